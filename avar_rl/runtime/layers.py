"""Which layers a person means: the one grammar of every option and recipe key that names layers (or steps)."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

GRAMMAR = "layer indices from 0 and ranges FIRST-LAST (both ends included), joined by commas or +, such as 0-13,20"


def parse_layers(text: str, where: str) -> tuple[int, ...]:
    """`0-13,20` or `0-13+20` → (0, 1, …, 13, 20), ascending, each once.

    Indices count the decoder layers of the language model from 0. `+` is for places where a comma has another meaning.

    Args:
        where: what the user wrote it in (an option, a recipe key), for the message.

    Raises:
        ValueError: `text` is not of this grammar, or a range runs backwards.
    """
    return parse_indices(text, where)


def parse_indices(text: str, where: str, noun: str = "layer", grammar: str = GRAMMAR) -> tuple[int, ...]:
    """Reads the same form for other things that are counted; `noun` and `grammar` name them in the message."""
    indices: set[int] = set()
    for part in re.split("[,+]", text):
        bounds = re.fullmatch(r"\s*([0-9]{1,6})(?:-([0-9]{1,6}))?\s*", part)
        if bounds is None:
            raise ValueError(f"{where} {text!r}: {part!r} is not a {noun} or FIRST-LAST; write {grammar}")
        first, last = int(bounds[1]), int(bounds[2] or bounds[1])
        if last < first:
            raise ValueError(f"{where} {text!r}: the range {part.strip()} runs backwards; write {grammar}")
        indices.update(range(first, last + 1))
    return tuple(sorted(indices))


def format_layers(layers: tuple[int, ...], joint: str = ",") -> str:
    """(0, 1, 2, 20) → `0-2,20`: the shortest text that `parse_layers` reads as these ascending indices."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and runs[-1][1] == layer - 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    return joint.join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _from_text(value: Any) -> Any:
    """YAML and command lines give one layer as a number, several as a list or as text of the grammar."""
    if isinstance(value, int) and not isinstance(value, bool):
        return (value,)
    return parse_layers(value, "layers") if isinstance(value, str) else value


def _ascending(layers: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(set(layers)))


# A field of settings: a list of indices, one index, or text of the grammar → ascending, each once, at least one.
Layers = Annotated[
    tuple[Annotated[int, Field(strict=True, ge=0)], ...],
    Field(min_length=1),
    BeforeValidator(_from_text),
    AfterValidator(_ascending),
]
