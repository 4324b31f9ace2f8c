"""avar_rl: reinforcement learning that makes vision-language models look before they answer (a plug-in to verl).

The names below are imported when they are first used, so that `import avar_rl` takes no time and imports no torch:

    from avar_rl import Intervention, Role, grade, intervene, record_span_mass, span_mass, token_roles, vas
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avar_rl import vas
    from avar_rl.attention.recorder import record_span_mass
    from avar_rl.attention.roles import Role, token_roles
    from avar_rl.attention.span_mass import span_mass
    from avar_rl.intervention import Intervention, intervene
    from rewards.grading import grade

    __version__: str

__all__ = [
    "Intervention",
    "Role",
    "__version__",
    "grade",
    "intervene",
    "record_span_mass",
    "span_mass",
    "token_roles",
    "vas",
]

# Name → the module that has it; `vas` is a module itself.
_HOMES = {
    "Intervention": "avar_rl.intervention",
    "Role": "avar_rl.attention.roles",
    "grade": "rewards.grading",
    "intervene": "avar_rl.intervention",
    "record_span_mass": "avar_rl.attention.recorder",
    "span_mass": "avar_rl.attention.span_mass",
    "token_roles": "avar_rl.attention.roles",
}


def __getattr__(name: str) -> Any:
    if name == "vas":
        return importlib.import_module("avar_rl.vas")
    if name == "__version__":
        value: Any = _version()
    elif name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'avar_rl' has no attribute {name!r}")
    globals()[name] = value  # found directly from now on
    return value


def _version() -> str:
    from importlib.metadata import PackageNotFoundError

    from avar_rl.runtime.versions import STACK, installed_version

    try:
        return installed_version(STACK["avar_rl"])
    except PackageNotFoundError:
        raise AttributeError("avar_rl runs from a directory and is not installed, so it has no __version__") from None


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
