"""From single rewards to the one that is trained on: weights, gates, failures.

    total = sum over rewards of weight x value        (arXiv 2603.03825, stage 3: accuracy + 0.3 visual + 0.1 format)

Beyond the paper: a reward whose gate is closed (the gate's own value is not above 0, or it is not applicable) counts 0,
and so does one that returns None. The paper has one gate: its visual reward is 0 where the answer is wrong.
"""

from __future__ import annotations

import asyncio
import math
import numbers
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from avar_rl.runtime.settings import NotNegative, parse, settings
from rewards.finding import needs_of, split_line
from rewards.plugin import REWARD, Reward, find
from rewards.sample import AttentionSample, Sample

_DECLARED = "<declared>"  # the gate that the reward itself declares


@settings
class Term:
    """A line of a recipe's `rewards:`: `name: weight`, or `name: {weight: …, gate: …, path: …, an option: …}`.

    gate: the reward that must be above 0 for this one to count; None: no gate; by default the one that it declares.
    path: the file that declares the reward; None: it lies in `rewards/` or `rewards/shipped/`.
    options: (key, value) of each keyword argument of the reward; lists as tuples.
    """

    name: str
    weight: NotNegative
    gate: str | None = _DECLARED
    path: str | None = None
    options: tuple[tuple[str, Any], ...] = ()


PAPER = (Term("accuracy", 1.0), Term("visual", 0.3), Term("format", 0.1))


class RewardError(RuntimeError):
    """A reward raised, or returned what is no number: names the reward and the row, and holds the traceback."""


@dataclass(frozen=True)
class Values:
    """What the rewards returned for one response.

    raw: by name, before gate and weight; None stands for "not applicable".
    closed: names of the rewards whose gate was closed.
    """

    raw: Mapping[str, float | None] = field(default_factory=dict)
    closed: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Score:
    """The reward that a response is trained on, with its breakdown.

    total: the sum of `weighted`.
    weighted: weight x value of each reward by name, 0 behind a closed gate.
    """

    total: float
    weighted: dict[str, float]


def parse_terms(lines: Any, where: str = "avar.rewards") -> tuple[Term, ...]:
    """The terms of a recipe's `rewards:` block, in its order.

    Args:
        lines: a mapping from names to weights, or to mappings with a weight, as YAML gives it.
        where: the place of `lines` in what the user wrote, for the message.

    Raises:
        ValueError: names the first fault and its place. Whether the rewards exist is checked by `RewardSet`.
    """
    if not isinstance(lines, Mapping):
        raise ValueError(f"{where} must be a mapping of names to weights, not {lines!r}")
    return tuple(_term(str(name), value, f"{where}.{name}") for name, value in lines.items())


def _term(name: str, value: Any, where: str) -> Term:
    line = value if isinstance(value, Mapping) else {"weight": value}
    return parse(Term, {"name": name, **split_line(REWARD, line)}, where)


@dataclass(frozen=True)
class _Bound:
    """A term with the function behind it."""

    reward: Reward
    weight: float
    gate: str | None
    options: dict[str, Any]

    @property
    def active(self) -> bool:
        """Attention is recorded only where it is paid for; a text reward of weight 0 is scored and reported."""
        return self.weight > 0 or not self.reward.after_forward


class RewardSet:
    """The rewards of a recipe, in the order in which they are scored: as listed, gates first, attention last."""

    def __init__(self, terms: Iterable[Term], *, measure_attention: bool = False):
        """Finds and checks every reward.

        Args:
            measure_attention: attention rewards of weight 0 are scored, too.

        Raises:
            ValueError: `terms` is empty; a reward is not found (see `rewards.plugin.find`) or does not take its
                options; a gate is not among the rewards, is scored after what it gates, or gates itself in a circle.
        """
        bound = {term.name: _bind(term) for term in terms}
        if not bound:
            raise ValueError("avar.rewards is empty: nothing would be trained on")
        for name, term in bound.items():
            _check_gate(name, term, bound)
        wanted = {name for name, term in bound.items() if term.active or measure_attention}
        ordered = _gates_first(bound)
        wanted |= _gates(bound, wanted)
        ordered = {name: term for name, term in ordered.items() if name in wanted}
        self._text = {name: term for name, term in ordered.items() if not term.reward.after_forward}
        self._attention = {name: term for name, term in ordered.items() if term.reward.after_forward}

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each reward that is scored, by name, in the order of scoring."""
        return {name: term.weight for name, term in (self._text | self._attention).items()}

    @property
    def gates(self) -> dict[str, str]:
        """The gate of each gated reward that is scored, both by name."""
        return {name: term.gate for name, term in (self._text | self._attention).items() if term.gate}

    @property
    def plug_ins(self) -> list[Reward]:
        """The rewards that are scored, in the order of scoring."""
        return [term.reward for term in (self._text | self._attention).values()]

    @property
    def needs(self) -> frozenset[str]:
        """What the rewards that are scored need to be measured, of `rewards.finding.NEEDS`."""
        return needs_of(self.plug_ins)

    @property
    def after_forward(self) -> bool:
        """Whether any reward that is scored is scored after the actor's forward pass."""
        return bool(self._attention)

    async def score_text(self, sample: Sample) -> Values:
        """The values of every text reward for one response.

        A reward whose gate is closed is not called (a judge costs money); its value is None.

        Raises:
            RewardError: a reward raised, or returned neither a finite number nor None.
        """
        values = Values()
        for name, term in self._text.items():
            if closed := _is_closed(term.gate, values):
                value = None
            else:
                value = await _call(name, term, replace(sample, parts=values.raw))
            values = _with(values, name, value, closed)
        return values

    async def score_attention(self, sample: AttentionSample, values: Values) -> Values:
        """`values` (those of `score_text`) joined by every attention reward's for the same response.

        A reward whose gate is closed is called all the same: its ungated value shows what the gate hides.

        Raises:
            RewardError: a reward raised, or returned neither a finite number nor None.
        """
        for name, term in self._attention.items():
            value = await _call(name, term, replace(sample, parts=values.raw))
            values = _with(values, name, value, _is_closed(term.gate, values))
        return values

    def combine(self, values: Values) -> Score:
        """The weighted sum of `values`; a reward that is absent from them (one before it failed) counts 0."""
        weighted = {
            name: 0.0 if name in values.closed else weight * (values.raw.get(name) or 0.0)
            for name, weight in self.weights.items()
        }
        return Score(math.fsum(weighted.values()), weighted)


def _bind(term: Term) -> _Bound:
    reward = find(term.name, term.path)
    gate = reward.gate if term.gate == _DECLARED else term.gate
    return _Bound(reward, term.weight, gate, reward.checked_options(dict(term.options)))


def _check_gate(name: str, term: _Bound, others: Mapping[str, _Bound]) -> None:
    if term.gate is None:
        return
    if term.gate not in others:
        raise ValueError(
            f"reward {name} is gated by {term.gate}, which is not among avar.rewards ({', '.join(others)}); "
            f"list it, with weight 0 if it is not to count, or set avar.rewards.{name}.gate=null"
        )
    if others[term.gate].reward.after_forward and not term.reward.after_forward:
        raise ValueError(f"reward {name} is gated by {term.gate}, which is scored later, after the actor's forward")


def _gates(terms: Mapping[str, _Bound], wanted: set[str]) -> set[str]:
    """The gates of `wanted`, and theirs."""
    found = {gate for name in wanted if (gate := terms[name].gate)}
    return found | _gates(terms, found) if found else found


def _gates_first(terms: Mapping[str, _Bound]) -> dict[str, _Bound]:
    ordered: dict[str, _Bound] = {}

    def place(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise ValueError(f"rewards gate each other in a circle: {' <- '.join((*above, name))}")
        if name not in ordered:
            if gate := terms[name].gate:
                place(gate, (*above, name))
            ordered[name] = terms[name]

    for name in terms:
        place(name, ())
    return ordered


def _is_closed(gate: str | None, values: Values) -> bool:
    return gate is not None and (gate in values.closed or not (values.raw.get(gate) or 0.0) > 0)


def _with(values: Values, name: str, value: float | None, closed: bool) -> Values:
    return Values({**values.raw, name: value}, values.closed | {name} if closed else values.closed)


async def _call(name: str, term: _Bound, sample: Sample) -> float | None:
    """The reward's checked value. A plain function runs in a thread: it may wait, and others must go on."""
    try:
        if term.reward.is_async:
            value = await term.reward.function(sample, **term.options)
        elif term.reward.after_forward:
            value = term.reward.function(sample, **term.options)
        else:
            value = await asyncio.to_thread(term.reward.function, sample, **term.options)
        if value is None:
            return None
        if not isinstance(value, numbers.Real) or not math.isfinite(value):
            raise ValueError(f"it returned {value!r}; a reward returns a finite number, or None for not applicable")
        return float(value)
    except Exception as error:
        line = f"reward {name} failed on row {sample.row_id or '(no id)'}: {type(error).__name__}: {error}"
        raise RewardError(f"{traceback.format_exc()}{line}") from error
