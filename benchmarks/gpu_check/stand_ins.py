"""Empty stand-ins for Ray, wandb and datasets, for machines that lack them: verl imports them, this check uses none.

verl's modules name them at import, as decorators, base classes and annotations. A stand-in has every attribute and
every submodule asked for; used as a decorator it gives back what it decorates; anything else that is done with it is an
error. They are for this check alone, and only for packages that are not installed.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types

ABSENT = ("ray", "wandb", "datasets")


class StandIn(type):
    """The type of all names in a stand-in: classes, so that they can be base classes and annotations."""

    def __getattr__(cls, name: str) -> StandIn:
        if name.startswith("__"):
            raise AttributeError(name)
        return _named(f"{cls.__qualname__}.{name}")

    def __call__(cls, *args, **kwargs):
        decorates = len(args) == 1 and not kwargs and callable(args[0])
        if decorates or (not args and kwargs):  # @ray.remote and @ray.remote(num_cpus=1)
            return args[0] if decorates else cls
        raise RuntimeError(f"{cls.__qualname__} is a stand-in for a package that is not installed; it cannot be called")


def _named(name: str) -> StandIn:
    return StandIn(name, (), {"__qualname__": name})


class _Module(types.ModuleType):
    def __getattr__(self, name: str) -> StandIn:
        if name.startswith("__"):
            raise AttributeError(name)
        return _named(f"{self.__name__}.{name}")


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, absent: tuple[str, ...]) -> None:
        self._absent = absent

    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] in self._absent:
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec):
        return _Module(spec.name)

    def exec_module(self, module):
        pass


def install() -> tuple[str, ...]:
    """Makes the packages of `ABSENT` that are not installed importable in this process, and returns their names."""
    absent = tuple(name for name in ABSENT if not _installed(name))
    if absent:
        sys.meta_path.insert(0, _Finder(absent))
    return absent


def _installed(name: str) -> bool:
    """Whether there is such a package; a mere folder of that name, as Ray leaves one in /tmp, is none."""
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None
