"""From token weights to one factor for each token of a response, which its advantage is multiplied by.

    A'_t = A_t * prod over the recipe's token weights of w_t

Several weights multiply. A factor of 1 everywhere changes nothing, bit by bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from avar_rl.runtime.settings import parse, settings
from rewards.finding import PlugIn, find
from rewards.plugin import TOKEN_WEIGHT

Normalise = Literal["none", "response", "batch"]


@settings
class WeightTerm:
    """A line of a recipe's `token_weights:`, `name: {normalise: …, path: …, an option: …}`.

    normalise: what a weight's factors are divided by, so that their mean is 1: nothing, the mean over each response, or
        the mean over all tokens of the step.
    path: the file that declares the weight; None: it lies in `rewards/` or `rewards/token_weights/`.
    options: (key, value) of each keyword argument of the weight.
    """

    name: str
    normalise: Normalise = "none"
    path: str | None = None
    options: tuple[tuple[str, Any], ...] = ()


def parse_weights(lines: Any, where: str = "avar.token_weights") -> tuple[WeightTerm, ...]:
    """The terms of a recipe's `token_weights:` block, in its order.

    Raises:
        ValueError: names the first fault and its place. Whether the weights exist is checked by `TokenWeightSet`.
    """
    if not isinstance(lines or {}, Mapping):
        raise ValueError(f"{where} must be a mapping of names to options, not {lines!r}")
    return tuple(_term(str(name), value, f"{where}.{name}") for name, value in (lines or {}).items())


def _term(name: str, value: Any, where: str) -> WeightTerm:
    if not isinstance(value or {}, Mapping):
        raise ValueError(f"{where} must be a mapping of options, such as {{}}, not {value!r}")
    line = dict(value or {})
    own = {key: line.pop(key) for key in TOKEN_WEIGHT.keys if key in line}
    options = tuple((str(key), tuple(option) if isinstance(option, list) else option) for key, option in line.items())
    return parse(WeightTerm, {"name": name, "options": options, **own}, where)


@dataclass(frozen=True)
class _Bound:
    """A term with the function behind it."""

    plug_in: PlugIn
    normalise: Normalise
    options: dict[str, Any]


class TokenWeightSet:
    """The token weights of a recipe."""

    def __init__(self, terms: Iterable[WeightTerm]):
        """Finds and checks every weight.

        Raises:
            ValueError: a weight is not found (see `rewards.finding.find`) or does not take its options.
        """
        self._terms: dict[str, _Bound] = {}
        for term in terms:
            plug_in = find(TOKEN_WEIGHT, term.name, term.path)
            self._terms[term.name] = _Bound(plug_in, term.normalise, plug_in.checked_options(dict(term.options)))

    @property
    def names(self) -> tuple[str, ...]:
        """The weights, in the recipe's order."""
        return tuple(self._terms)

    @property
    def needs(self) -> frozenset[str]:
        """What the weights need to be measured, of `rewards.finding.NEEDS`."""
        return frozenset(need for term in self._terms.values() for need in term.plug_in.needs)
