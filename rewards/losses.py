"""Terms of the actor's loss beside the policy loss: which a recipe names, and what they return.

    L = L_policy + sum over the recipe's losses of weight * mean(term)

Shapes: N sequences, T response tokens, L layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from avar_rl.runtime.settings import NotNegative, parse, settings
from rewards.finding import PlugIn, find, needs_of, split_line
from rewards.plugin import ACTOR_LOSS
from rewards.sample import LossBatch

if TYPE_CHECKING:
    from torch import Tensor

# What a `LossBatch` holds only for terms that declare one of these needs.
_NEEDED_BY = {
    "entropy_NT": {"entropy"},
    "image_mass_NTL": {"masses", "region"},
    "system_mass_NTL": {"masses", "region"},
    "region_mass_NTL": {"region"},
    "blind_log_probs_NT": {"blind"},
    "blind_entropy_NT": {"blind"},
}


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
    line = value if isinstance(value, Mapping) else {"weight": value}
    return parse(LossTerm, {"name": name, **split_line(ACTOR_LOSS, line)}, where)


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
    def weights(self) -> dict[str, float]:
        """The weight of each term, by name."""
        return {name: term.weight for name, term in self._terms.items()}

    @property
    def plug_ins(self) -> list[PlugIn]:
        """The functions behind the terms, in the recipe's order."""
        return [term.plug_in for term in self._terms.values()]

    @property
    def needs(self) -> frozenset[str]:
        """What the terms need to be measured, of `rewards.finding.NEEDS`."""
        return needs_of(self.plug_ins)

    def values(self, batch: LossBatch) -> dict[str, Tensor]:
        """What each term is for a micro-batch: (N, T), 0 at tokens that do not count, or (N,); by name.

        A term gets what it has declared to need, and None for the rest.

        Raises:
            RuntimeError: names the term that raised, returned another shape, or a number that is not finite, or whose
                needs were not measured.
        """
        return {name: _checked(name, term, batch) for name, term in self._terms.items()}


def _checked(name: str, term: _Bound, batch: LossBatch) -> Tensor:
    import torch

    where = f"the actor loss {name} ({term.plug_in.place})"
    given = _only_needed(batch, term.plug_in.needs, where)
    try:
        value = term.plug_in.function(given, **term.options)
    except Exception as error:
        raise RuntimeError(f"{where} failed: {type(error).__name__}: {error}") from error
    mask_NT = batch.response_mask_NT
    N, T = mask_NT.shape
    if not isinstance(value, torch.Tensor) or value.shape not in ((N, T), (N,)) or not value.is_floating_point():
        found = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, torch.Tensor) else repr(value)
        raise RuntimeError(f"{where} returned {found}; wanted is a float tensor ({N}, {T}) or ({N},)")
    if value.dim() == 2:
        value = torch.where(mask_NT, value, 0.0)
    if not bool(value.isfinite().all()):
        bad = int((~value.isfinite()).sum())
        raise RuntimeError(f"{where} returned {bad} numbers that are not finite, of {value.numel()}")
    return value


def _only_needed(batch: LossBatch, needs: frozenset[str], where: str) -> LossBatch:
    wanted = {name for name, by in _NEEDED_BY.items() if by & needs}
    if "entropy" not in needs:
        wanted -= {"blind_entropy_NT"}
    for name in wanted:
        if getattr(batch, name) is None:
            raise RuntimeError(f"{where} needs {name}, which the forward pass did not give")
    return replace(batch, **{name: None for name in _NEEDED_BY if name not in wanted})
