"""Plug-ins of every kind: how a function becomes one, how a recipe's name finds its file, how its options are checked.

A kind (`Kind`) is what a decorator of `rewards.plugin` makes: a reward, a token weight, a term of the actor's loss.
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
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from avar_rl.runtime.settings import first_fault

FOLDER = Path(__file__).parent  # where users drop files of any kind
NEEDS = ("masses", "region", "blind", "entropy", "right")  # what a plug-in can ask to be measured


@dataclass(frozen=True)
class Kind:
    """A kind of plug-in.

    decorator: the name of the decorator that declares one.
    called: what the messages call one.
    setting: the key of a recipe under which they are listed.
    shipped: the folder in `rewards/` with those that come with avar_rl.
    takes: what the first parameter may be annotated with.
    keys: of a recipe's line, which are no options of the function.
    reserved: names that none may have.
    """

    decorator: str
    called: str
    setting: str
    shipped: str
    takes: tuple[Any, ...]
    keys: tuple[str, ...]
    reserved: frozenset[str] = frozenset()

    @property
    def folders(self) -> tuple[Path, Path]:
        """Where a name is looked for."""
        return FOLDER, FOLDER / self.shipped


@dataclass(frozen=True)
class PlugIn:
    """A function with what it declares.

    takes: what its first parameter is annotated with, one of its kind's.
    needs: names of `NEEDS`.
    place: file:line.
    """

    kind: Kind
    name: str
    function: Callable[..., Any]
    takes: Any
    needs: frozenset[str]
    options: type[BaseModel]
    place: str

    def checked_options(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """`values`, as a recipe gives them, as the function's keyword arguments, defaults included.

        Raises:
            ValueError: names the first option that the function does not take, needs, or takes with other values.
        """
        known = self.options.model_fields
        try:
            found = self.options(**values)
        except ValidationError as error:
            fault = first_fault(error, f"{self.kind.setting}.{self.name}")
            if fault.startswith("unknown key"):
                takes = ", ".join(sorted(known)) or "no options"
                *keys, last = self.kind.keys
                fault += f"; {self.name} ({self.place}) takes {takes}, beside {', '.join(keys)} and {last}"
            raise ValueError(fault) from None
        return {key: getattr(found, key) for key in known}


def need_masses(needs: Iterable[str]) -> bool:
    """Whether attention masses must be recorded for `needs`."""
    return not {"masses", "region"}.isdisjoint(needs)


def needs_of(plug_ins: Iterable[PlugIn]) -> frozenset[str]:
    """What any of `plug_ins` needs to be measured, of `NEEDS`."""
    return frozenset(need for plug_in in plug_ins for need in plug_in.needs)


def split_line(kind: Kind, line: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's line as the fields of a term: the kind's own keys, and `options`, the others as (key, value), lists as
    tuples."""
    options = {str(key): value for key, value in line.items() if key not in kind.keys}
    frozen = tuple((key, tuple(value) if isinstance(value, list) else value) for key, value in options.items())
    return {"options": frozen, **{key: line[key] for key in kind.keys if key in line}}


_declared: dict[tuple[str, str], list[PlugIn]] = defaultdict(list)  # by decorator and file


def declare(kind: Kind, function: Callable[..., Any], name: str | None, needs: Iterable[str]) -> PlugIn:
    """Makes `function` a plug-in that its file is found to declare. TypeError: it is none that a recipe can use."""
    if not inspect.isfunction(function):
        raise TypeError(f"@{kind.decorator} stands on a function, not on {function!r}")
    called = name or function.__name__
    place = f"{function.__code__.co_filename}:{function.__code__.co_firstlineno}"
    if not called.isidentifier() or called in kind.reserved:
        raise TypeError(f"a {kind.called} cannot be called {called!r} ({place})")
    unknown = sorted(set(needs) - set(NEEDS))
    if unknown:
        raise TypeError(f"{called} needs {unknown[0]!r}, which nothing measures; known: {', '.join(NEEDS)} ({place})")
    takes, options = _signature(kind, function, place)
    return PlugIn(kind, called, function, takes, frozenset(needs), options, place)


def register(found: PlugIn) -> None:
    """Notes a plug-in under its file."""
    file = str(Path(found.function.__code__.co_filename).resolve())
    _declared[found.kind.decorator, file].append(found)


def find(kind: Kind, name: str, path: str | None = None) -> Any:
    """The plug-in called `name`, from the file `path`, from `rewards/<name>.py` or from its kind's folder of shipped
    ones.

    Raises:
        ValueError: there is no such file or plug-in (names candidates), the file does not import, or the name is taken.
    """
    file = _file_of(kind, name, path)
    there = _load(kind, file.resolve())
    found = [candidate for candidate in there if candidate.name == name]
    if not found:
        names = ", ".join(sorted({candidate.name for candidate in there})) or "none"
        raise ValueError(f"{file} declares no {kind.called} called {name} with @{kind.decorator}; it declares {names}")
    if len(found) > 1:
        raise ValueError(f"two {kind.called}s are called {name}: {found[0].place} and {found[1].place}; rename one")
    return found[0]


def names_in(kind: Kind, path: str) -> list[str]:
    """Names of the plug-ins that the file `path` declares, in its order.

    Raises:
        ValueError: there is no such file, it does not import, or it declares none.
    """
    if not Path(path).is_file():
        raise ValueError(f"{kind.called} file {path}: no such file")
    names = [found.name for found in _load(kind, Path(path).resolve())]
    if not names:
        raise ValueError(f"{path} declares no {kind.called} with @{kind.decorator}")
    return list(dict.fromkeys(names))


def shipped(kind: Kind) -> list[str]:
    """Names of the plug-ins in `rewards/` and in the kind's own folder, found without importing any of their files."""
    files = [file for folder in kind.folders for file in folder.glob("*.py")]
    return sorted(file.stem for file in files if file.stem in declared_in(kind, file))


def declared_in(kind: Kind, file: Path) -> set[str]:
    """Names of the plug-ins that `file` declares with the kind's decorator, read from its source without running it.

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
            if getattr(target, "id", getattr(target, "attr", None)) == kind.decorator:
                given = [k.value for k in (call.keywords if call else []) if k.arg == "name"]
                names.update(str(value.value) for value in given if isinstance(value, ast.Constant))
                names.update(() if given else {node.name})
    return names


def _file_of(kind: Kind, name: str, path: str | None) -> Path:
    """The file that declares the plug-in; ValueError as in `find`."""
    if path is not None and not Path(path).is_file():
        raise ValueError(f"{kind.setting}.{name}.path={path}: no such file")
    given = [] if path is None else [Path(path)]
    own = [file for folder in kind.folders if (file := folder / f"{name}.py").is_file()]
    files = {file.resolve(): file for file in (*given, *(file for file in own if name in declared_in(kind, file)))}
    if not files and own:
        return own[0]
    if not files:
        raise ValueError(f"unknown {kind.called} {name}; {_candidates(kind, name)}. A file of yours is named by `path`")
    if len(files) > 1:
        first, second, *_ = reversed(files.values())
        raise ValueError(f"two {kind.called}s are called {name}: {first} and {second}; rename yours")
    return next(iter(files.values()))


def _candidates(kind: Kind, name: str) -> str:
    names = shipped(kind)
    near = difflib.get_close_matches(name, names, n=3)
    return f"did you mean {', '.join(near)}?" if near else f"rewards/ has {', '.join(names)}"


def _load(kind: Kind, file: Path) -> list[PlugIn]:
    _import(kind.called, file)
    return _declared[kind.decorator, str(file)]


@functools.cache
def _import(called: str, file: Path) -> None:
    """Imports `file`, once in a process. ValueError where it does not import."""
    try:
        if file.is_relative_to(FOLDER.resolve()):
            module = file.relative_to(FOLDER.resolve().parent).with_suffix("")
            importlib.import_module(".".join(module.parts))
        else:
            _import_path(file)
    except Exception as error:  # whatever a user's file raises is his mistake, told in one sentence
        raise ValueError(f"{called} file {file} cannot be imported: {type(error).__name__}: {error}") from error


def _import_path(file: Path) -> None:
    module_name = f"avar_plugin_{file.stem}_{abs(hash(file)):x}"
    if module_name in sys.modules:
        return
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


def _signature(kind: Kind, function: Callable[..., Any], place: str) -> tuple[Any, type[BaseModel]]:
    """What the function takes: its first parameter's annotation, and its options as a pydantic model.

    TypeError where the signature is none of its kind.
    """
    parameters = list(inspect.signature(function).parameters.values())
    takes_only = SimpleNamespace(
        __annotations__={name: hint for name, hint in function.__annotations__.items() if name != "return"}
    )  # what it returns may have a name that its file imports for type checkers alone
    hints = get_type_hints(takes_only, globalns=function.__globals__, include_extras=True)
    takes = hints.get(parameters[0].name) if parameters else None
    if takes not in kind.takes:
        wanted = " or ".join(map(_short, kind.takes))
        raise TypeError(f"a {kind.called}'s first parameter must be annotated {wanted} ({place})")
    options: dict[str, Any] = {}
    for parameter in parameters[1:]:
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            raise TypeError(
                f"parameter {parameter.name} of a {kind.called} must be keyword-only: put `*` first ({place})"
            )
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        options[parameter.name] = (hints.get(parameter.name, Any), default)
    strict = ConfigDict(extra="forbid", validate_default=False, protected_namespaces=())
    return takes, create_model(f"{function.__name__}_options", __config__=strict, **options)


def _short(annotation: Any) -> str:
    """`Sequence[AttentionSample]` of `collections.abc.Sequence[rewards.sample.AttentionSample]`."""
    if isinstance(annotation, type):
        return annotation.__name__
    inner = ", ".join(argument.__name__ for argument in annotation.__args__)
    return f"{annotation.__origin__.__name__}[{inner}]"
