"""Terms of the actor's loss beside the policy loss: which a recipe names, and what they return.

L = L_policy + sum over the recipe's losses of weight * term
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from avar_rl.runtime.settings import NotNegative, parse, settings
from rewards.finding import PlugIn, find
from rewards.plugin import ACTOR_LOSS


@settings
class LossTerm:
    """A line of a recipe's `losses:`, `name: weight`, or `name: {weight: …, path: …, an option: …}`.

    path: the file that declares the term; None: it lies in `rewards/` or `rewards/actor_losses/`.
    options: (key, value) of each keyword argument of the term.
    """

    name: str
    weight: NotNegative
    path: str | None = None
    options: tuple[tuple[str, Any], ...] = ()


def parse_losses(lines: Any, where: str = "avar.losses") -> tuple[LossTerm, ...]:
    """The terms of a recipe's `losses:` block, in its order.

    Raises:
        ValueError: names the first fault and its place. Whether the terms exist is checked by `ActorLossSet`.
    """
    if not isinstance(lines or {}, Mapping):
        raise ValueError(f"{where} must be a mapping of names to weights, not {lines!r}")
    return tuple(_term(str(name), value, f"{where}.{name}") for name, value in (lines or {}).items())


def _term(name: str, value: Any, where: str) -> LossTerm:
    line = dict(value) if isinstance(value, Mapping) else {"weight": value}
    own = {key: line.pop(key) for key in ACTOR_LOSS.keys if key in line}
    options = tuple((str(key), tuple(option) if isinstance(option, list) else option) for key, option in line.items())
    return parse(LossTerm, {"name": name, "options": options, **own}, where)


@dataclass(frozen=True)
class _Bound:
    """A term with the function behind it."""

    plug_in: PlugIn
    weight: float
    options: dict[str, Any]


class ActorLossSet:
    """The terms of a recipe that have a weight."""

    def __init__(self, terms: Iterable[LossTerm]):
        """Finds and checks every term.

        Raises:
            ValueError: a term is not found (see `rewards.finding.find`) or does not take its options.
        """
        self._terms: dict[str, _Bound] = {}
        for term in terms:
            plug_in = find(ACTOR_LOSS, term.name, term.path)
            bound = _Bound(plug_in, term.weight, plug_in.checked_options(dict(term.options)))
            if term.weight > 0:
                self._terms[term.name] = bound

    @property
    def names(self) -> tuple[str, ...]:
        """The terms, in the recipe's order."""
        return tuple(self._terms)

    @property
    def needs(self) -> frozenset[str]:
        """What the terms need to be measured, of `rewards.finding.NEEDS`."""
        return frozenset(need for term in self._terms.values() for need in term.plug_in.needs)
