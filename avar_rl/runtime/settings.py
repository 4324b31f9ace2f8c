"""Settings that a user writes (recipes, options) → checked, frozen dataclasses; a mistake is one sentence.

A settings class is a pydantic dataclass that forbids unknown keys and states its bounds in its fields:

    from avar_rl.runtime.settings import Number, Positive, settings

    @settings
    class Guard:
        min_correlation: Annotated[Number, Field(ge=-1, le=1)] = 0.99
        step_minutes: Positive = 30.0
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, dataclass_transform, get_args, get_origin

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

Settings = TypeVar("Settings")
UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")  # pydantic's names of an unknown key


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("Input should be a number")
    return value


# A finite number; text such as 1e-6 counts, as YAML 1.1 reads that as text; true and false do not.
Number = Annotated[float, Field(allow_inf_nan=False), BeforeValidator(_no_bool)]
Positive = Annotated[Number, Field(gt=0)]
NotNegative = Annotated[Number, Field(ge=0)]
Share = Annotated[Number, Field(ge=0, le=1)]
Whole = Annotated[int, BeforeValidator(_no_bool)]
Count = Annotated[Whole, Field(ge=1)]
Flag = Annotated[bool, Field(strict=True)]


@dataclass_transform(frozen_default=True, field_specifiers=(Field,))
def settings(cls: type[Settings]) -> type[Settings]:
    """Makes `cls` a frozen pydantic dataclass that forbids unknown keys and checks its defaults, too."""
    config = ConfigDict(extra="forbid", validate_default=True)
    return dataclass(frozen=True, config=config)(cls)  # pyright: ignore[reportReturnType] (pydantic says `type[...]` of its own)


def parse(cls: type[Settings] | Any, values: Any, where: str) -> Settings:
    """`values`, as YAML or an option gives them, as a `cls` (a settings class, or any type that pydantic validates).

    Args:
        where: the place of `values` in what the user wrote, such as `avar.guard`; "" for a whole file.

    Raises:
        ValueError: one sentence that names the first faulty key by its full place, what it holds and what it may hold.
    """
    try:
        return TypeAdapter(cls).validate_python(values)
    except ValidationError as error:
        raise ValueError(first_fault(error, where, known_keys(cls))) from None


def first_fault(error: ValidationError, where: str, known: Callable[[tuple], list[str]] | None = None) -> str:
    """The first fault of a validation in one sentence. `known` names the keys that may stand at a place."""
    faults = error.errors()
    # An unknown key first: a misspelt one also leaves another missing.
    fault = next((fault for fault in faults if fault["type"] in UNKNOWN), faults[0])
    path = tuple(part for part in fault["loc"] if not (isinstance(part, str) and part.startswith("function-")))
    place = ".".join(part for part in (where, *map(str, path)) if part)
    if fault["type"] in UNKNOWN:
        return f"unknown key {place}{_suggestion(str(path[-1]), known(path[:-1]) if known else [])}"
    if fault["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return f"missing key {place}"
    if fault["type"] in ("dataclass_type", "dict_type", "mapping_type", "model_type"):
        return f"{place or 'the whole'} must be a mapping of keys to values, not {fault['input']!r}"
    message = fault["msg"].removeprefix("Value error, ").removesuffix(".")
    found = f", not {fault['input']!r}" if message.startswith("Input should") else ""
    return f"{place}{': ' if place else ''}{message}{found}"


def known_keys(cls: Any) -> Callable[[tuple], list[str]]:
    """A function from a place in `cls` (a path of field names and of keys in mappings) to the keys that may stand
    there."""

    def at(path: tuple) -> list[str]:
        kind = cls
        for part in path:
            fields = getattr(kind, "__pydantic_fields__", {})
            kind = _set(fields[part].annotation) if part in fields else _of_mapping(kind)
        return sorted(getattr(kind, "__pydantic_fields__", {}))

    return at


def _set(kind: Any) -> Any:
    """`X` of `X | None`; any other kind as it is."""
    parts = [part for part in get_args(kind) if part is not type(None)]
    return parts[0] if get_origin(kind) in (Union, UnionType) and len(parts) == 1 else kind


def _of_mapping(kind: Any) -> Any:
    """`X` of `Mapping[str, X]`; None for any other kind."""
    origin = get_origin(kind)
    return get_args(kind)[1] if isinstance(origin, type) and issubclass(origin, Mapping) else None


def _suggestion(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    if near:
        return f" (did you mean {near[0]}?)"
    return f"; known: {', '.join(known)}" if known else ""
