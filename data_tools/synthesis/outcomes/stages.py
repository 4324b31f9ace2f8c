"""What a row needs next, and what became of it: a pure function of the calls that are known (`Tracer.trace`).

The run, the Ray pipeline and the export all call it, so they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from data_tools.synthesis.calls.journal import Completion, Failure
from data_tools.synthesis.calls.request import Request, make_request
from data_tools.synthesis.inputs.prompts import Prompt, load_prompts
from data_tools.synthesis.inputs.recipe import Recipe
from data_tools.synthesis.inputs.selection import Row
from data_tools.synthesis.outcomes import filters
from data_tools.synthesis.outcomes.filters import Rejection

Lookup = Callable[[str], Completion | Failure | None]


@dataclass(frozen=True)
class Candidate:
    """One reasoning of a row, and how it ended.

    `stage` is the last one that it reached ("source": no call was made). Exactly one of `response` (with its number of
    tokens and of anchors), `rejection` and `failure` is set, but that a rejected response keeps its text.
    """

    sample: int
    stage: str
    response: str | None = None
    tokens: int = 0
    anchors: int = 0
    rejection: Rejection | None = None
    failure: str | None = None

    @property
    def good(self) -> bool:
        return self.rejection is None and self.failure is None


@dataclass(frozen=True)
class Trace:
    """`needed`: the calls to make next; none where the row is finished. `candidates`: one for each reasoning, or a
    single one where the row ended before."""

    needed: tuple[Request, ...]
    candidates: tuple[Candidate, ...] = ()


class Tracer:
    """Rows under one recipe. `count_tokens` gives the length of a response."""

    def __init__(self, recipe: Recipe, count_tokens: Callable[[str], int]):
        self.recipe = recipe
        self.prompts: dict[str, Prompt] = load_prompts(recipe)
        self.count_tokens = count_tokens

    def needed(self, row: Row, lookup: Lookup) -> tuple[Request, ...]:
        """`trace(row, lookup).needed`, without judging responses, which no call depends on."""
        return self.trace(row, lookup, judge=False).needed

    def trace(self, row: Row, lookup: Lookup, *, judge: bool = True) -> Trace:
        """What `row` needs next given what `lookup` knows by key. Candidates count only with `judge`."""
        if rejection := filters.reject_sample(row.sample):
            return Trace((), (Candidate(0, "source", rejection=rejection),))
        description = ""
        if row.sample.images:
            try:
                request = self._request(row, "describe", 0, {})
            except ValueError as error:
                return Trace((), (Candidate(0, "source", failure=str(error)),))
            done = lookup(request.key)
            if done is None:
                return Trace((request,))
            if ended := _ended(done, filters.reject_description):
                return Trace((), (ended,))
            description = done.text
        return self._reasoned(row, description, lookup, judge)

    def _reasoned(self, row: Row, description: str, lookup: Lookup, judge: bool) -> Trace:
        inputs = {"description": description or "(There is no image.)"}
        asked = [self._request(row, "reason", n, inputs) for n in range(self.recipe.stages.reason.samples)]
        known = [lookup(request.key) for request in asked]
        if None in known:
            return Trace(tuple(request for request, done in zip(asked, known, strict=True) if done is None))
        needed, candidates, places = [], [], self.recipe.stages.anchor.samples
        for done in known:
            ended = _ended(done, lambda text: filters.reject_reasoning(text, row.sample))
            if ended is None and places == 0:
                ended = Candidate(done.sample, "reason", rejection=Rejection("surplus", "not anchored"))
            if ended is None:
                places -= 1
                ended = self._anchored(row, description, done, lookup, judge)
            (needed if isinstance(ended, Request) else candidates).append(ended)
        return Trace(tuple(needed), () if needed else tuple(candidates))

    def _anchored(
        self, row: Row, description: str, reasoning: Completion, lookup: Lookup, judge: bool
    ) -> Candidate | Request:
        """The candidate that a right reasoning becomes, or the call that is needed first."""
        done = reasoning
        if row.sample.images:  # without one there is nothing to look back at: the reasoning is the response
            inputs = {"description": description, "reasoning": reasoning.text}
            request = self._request(row, "anchor", reasoning.sample, inputs)
            done = lookup(request.key)
            if done is None:
                return request
            if isinstance(done, Failure):
                return _failed(done)
        if not judge:
            return Candidate(done.sample, done.stage)
        tokens = self.count_tokens(done.text)
        limits = self.recipe.filters
        rejection = filters.reject_response(done, row.sample, description, limits, tokens)
        anchors = filters.find_anchors(filters.thought(done.text), description).grounded
        return Candidate(done.sample, done.stage, done.text, tokens, anchors, rejection)

    def _request(self, row: Row, stage: str, sample: int, inputs: dict[str, str]) -> Request:
        return make_request(row, stage, self.recipe.stage(stage), self.prompts[stage], sample, inputs)


def _failed(done: Failure) -> Candidate:
    return Candidate(done.sample, done.stage, failure=done.error)


def _ended(done: Completion | Failure, reject: Callable[[Completion], Rejection | None]) -> Candidate | None:
    """The candidate that ends with this call, or None where it goes on."""
    if isinstance(done, Failure):
        return _failed(done)
    rejection = reject(done)
    return Candidate(done.sample, done.stage, rejection=rejection) if rejection else None
