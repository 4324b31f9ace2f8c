"""Rewards as plug-ins: one file, one name. `@reward` marks a function; a recipe names it.

    from rewards.plugin import reward
    from rewards.sample import Sample

    @reward
    def brevity(sample: Sample, *, words: int = 50) -> float:
        return float(len(sample.response.split()) <= words)

The name is the function's; its file is `rewards/<name>.py`, `rewards/shipped/<name>.py`, or the `path` that the recipe
gives. What the sample is annotated with (`Sample` or `AttentionSample`) decides when it runs; keyword-only parameters
are options of the recipe.
"""

from __future__ import annotations

import ast
import difflib
import functools
import importlib
import importlib.util
import inspect
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints, overload

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from avar_rl.runtime.settings import first_fault
from rewards.sample import AttentionSample, Sample

FOLDER = Path(__file__).parent
SHIPPED = FOLDER / "shipped"
# verl gives these keys of a reward's result a meaning of its own; `total` is the sum of the parts.
RESERVED = frozenset({"acc", "pred", "reward", "score", "total", "uid", "reward_sample"})
Function = TypeVar("Function", bound=Callable[..., Any])
_declared: dict[str, list[Reward]] = defaultdict(list)  # by file


@dataclass(frozen=True)
class Reward:
    """A reward function with what it declares."""

    name: str
    function: Callable[..., Any]
    needs_attention: bool  # takes an AttentionSample: runs after the actor's forward pass
    is_async: bool
    gate: str | None  # the gate where the recipe names none
    options: type[BaseModel]
    place: str  # file:line

    def checked_options(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """`values`, as a recipe gives them, as the function's keyword arguments, defaults included.

        Raises:
            ValueError: names the first option that the function does not take, needs, or takes with other values.
        """
        known = self.options.model_fields
        try:
            found = self.options(**values)
        except ValidationError as error:
            fault = first_fault(error, f"avar.rewards.{self.name}")
            if fault.startswith("unknown key"):
                takes = ", ".join(sorted(known)) or "no options"
                fault += f"; {self.name} ({self.place}) takes {takes}, beside weight, gate and path"
            raise ValueError(fault) from None
        return {key: getattr(found, key) for key in known}


@overload
def reward(function: Function) -> Function: ...
@overload
def reward(*, name: str | None = None, gate: str | None = None) -> Callable[[Function], Function]: ...
def reward(function: Callable[..., Any] | None = None, *, name: str | None = None, gate: str | None = None) -> Any:
    """Declares a function to be a reward: `@reward`, or `@reward(name=…, gate=…)`.

    The function takes a `Sample` or an `AttentionSample`, and keyword-only options; it returns a finite number, or None
    for "not applicable". It may be `async`.

    Args:
        name: in recipes; the function's own by default.
        gate: name of the reward that must be above 0 for this one to count; a recipe may set another one, or null.

    Raises:
        TypeError: the signature is another one, or the name is none that a recipe can use.
    """
    if function is None:
        return functools.partial(_declare, name=name, gate=gate)
    return _declare(function, name=name, gate=gate)


def _declare(function: Callable[..., Any], *, name: str | None, gate: str | None) -> Callable[..., Any]:
    if not inspect.isfunction(function):
        raise TypeError(f"@reward stands on a function, not on {function!r}")
    called = name or function.__name__
    place = f"{function.__code__.co_filename}:{function.__code__.co_firstlineno}"
    if not called.isidentifier() or called in RESERVED:
        raise TypeError(f"a reward cannot be called {called!r} ({place})")
    sample, options = _signature(function, place)
    found = Reward(
        name=called,
        function=function,
        needs_attention=sample is AttentionSample,
        is_async=inspect.iscoroutinefunction(function),
        gate=gate,
        options=options,
        place=place,
    )
    _declared[str(Path(function.__code__.co_filename).resolve())].append(found)
    return function


def find(name: str, path: str | None = None) -> Reward:
    """The reward called `name`, from the file `path`, from `rewards/<name>.py` or from `rewards/shipped/<name>.py`.

    Raises:
        ValueError: there is no such file or reward (names candidates), the file does not import, or the name is taken.
    """
    file = _file_of(name, path)
    there = _load(file.resolve())
    found = [candidate for candidate in there if candidate.name == name]
    if not found:
        names = ", ".join(sorted({candidate.name for candidate in there})) or "none"
        raise ValueError(f"{file} declares no reward called {name} with @reward; it declares {names}")
    if len(found) > 1:
        raise ValueError(f"two rewards are called {name}: {found[0].place} and {found[1].place}; rename one")
    return found[0]


def names_in(path: str) -> list[str]:
    """Names of the rewards that the file `path` declares, in its order.

    Raises:
        ValueError: there is no such file, it does not import, or it declares no reward.
    """
    if not Path(path).is_file():
        raise ValueError(f"reward file {path}: no such file")
    names = [found.name for found in _load(Path(path).resolve())]
    if not names:
        raise ValueError(f"{path} declares no reward with @reward")
    return list(dict.fromkeys(names))


def _file_of(name: str, path: str | None) -> Path:
    """The file that declares the reward; ValueError as in `find`."""
    if path is not None and not Path(path).is_file():
        raise ValueError(f"avar.rewards.{name}.path={path}: no such file")
    given = [] if path is None else [Path(path)]
    own = [file for folder in (FOLDER, SHIPPED) if (file := folder / f"{name}.py").is_file()]
    files = {file.resolve(): file for file in (*given, *(file for file in own if name in declared_in(file)))}
    if not files and own:
        return own[0]
    if not files:
        raise ValueError(f"unknown reward {name}; {_candidates(name)}. A file of yours is named by `path`")
    if len(files) > 1:
        first, second, *_ = reversed(files.values())
        raise ValueError(f"two rewards are called {name}: {first} and {second}; rename yours")
    return next(iter(files.values()))


def shipped() -> list[str]:
    """Names of the rewards in `rewards/` and `rewards/shipped/`, found without importing any of their files."""
    files = [file for folder in (FOLDER, SHIPPED) for file in folder.glob("*.py")]
    return sorted(file.stem for file in files if file.stem in declared_in(file))


def declared_in(file: Path) -> set[str]:
    """Names of the rewards that `file` declares with `@reward`, read from its source without running it.

    A file that cannot be parsed has none: it is another's draft until a recipe names it.
    """
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return set()
    names: set[str] = set()
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for decorator in node.decorator_list:
            call = decorator if isinstance(decorator, ast.Call) else None
            target = call.func if call else decorator
            if getattr(target, "id", getattr(target, "attr", None)) == "reward":
                given = [k.value for k in (call.keywords if call else []) if k.arg == "name"]
                names.update(str(value.value) for value in given if isinstance(value, ast.Constant))
                names.update(() if given else {node.name})
    return names


def _candidates(name: str) -> str:
    names = shipped()
    near = difflib.get_close_matches(name, names, n=3)
    return f"did you mean {', '.join(near)}?" if near else f"rewards/ has {', '.join(names)}"


@functools.cache
def _load(file: Path) -> tuple[Reward, ...]:
    """The rewards of `file`, which is imported once in a process. ValueError where it does not import."""
    try:
        if file.parent in (FOLDER.resolve(), SHIPPED.resolve()):
            package = "rewards" if file.parent == FOLDER.resolve() else "rewards.shipped"
            importlib.import_module(f"{package}.{file.stem}")
        else:
            _import_path(file)
    except Exception as error:  # whatever a user's file raises is his mistake, told in one sentence
        raise ValueError(f"reward file {file} cannot be imported: {type(error).__name__}: {error}") from error
    return tuple(_declared[str(file)])


def _import_path(file: Path) -> None:
    module_name = f"avar_reward_{file.stem}_{abs(hash(file)):x}"
    spec = importlib.util.spec_from_file_location(module_name, file)
    if spec is None or spec.loader is None:
        raise ImportError("not a Python file (.py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # typing.get_type_hints looks names up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise


def _signature(function: Callable[..., Any], place: str) -> tuple[type, type[BaseModel]]:
    """What the function takes: the class of its sample, and its options as a pydantic model.

    TypeError where the signature is no reward's.
    """
    parameters = list(inspect.signature(function).parameters.values())
    hints = get_type_hints(function, include_extras=True)
    sample = hints.get(parameters[0].name) if parameters else None
    if sample not in (Sample, AttentionSample):
        raise TypeError(f"a reward's first parameter must be annotated Sample or AttentionSample ({place})")
    options: dict[str, Any] = {}
    for parameter in parameters[1:]:
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            raise TypeError(f"parameter {parameter.name} of a reward must be keyword-only: put `*` first ({place})")
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        options[parameter.name] = (hints.get(parameter.name, Any), default)
    strict = ConfigDict(extra="forbid", validate_default=False, protected_namespaces=())
    return sample, create_model(f"{function.__name__}_options", __config__=strict, **options)
