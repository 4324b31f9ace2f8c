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
from data_tools.synthesis.outcomes.filters import FilterHit

Lookup = Callable[[str], Completion | Failure | None]


@dataclass(frozen=True)
class Candidate:
    """One reasoning of a row, and how it ended.

    `stage` is the last one that it reached ("source": no call was made). A good one has a `response`, with its number
    of tokens and of anchors; else `rejection` or `failure` says why there is none (a rejected response keeps its text).
    """

    sample: int
    stage: str
    response: str = ""
    tokens: int = 0
    anchors: int = 0
    rejection: FilterHit | None = None
    failure: str | None = None

    @property
    def good(self) -> bool:
        """Is its response one to train on?"""
        return self.rejection is None and self.failure is None


@dataclass(frozen=True)
class Trace:
    """`needed`: the calls to make next; none where the row is finished. `candidates`: one for each reasoning, or a
    single one where the row ended before; none where calls are needed."""

    needed: tuple[Request, ...] = ()
    candidates: tuple[Candidate, ...] = ()


@dataclass(frozen=True)
class _Walk:
    """A trace in which final responses are still the teachers' completions, to be judged against `description`."""

    needed: tuple[Request, ...] = ()
    ended: tuple[Candidate | Completion, ...] = ()
    description: str = ""


class Tracer:
    """Traces rows under one recipe. `count_tokens` gives the length of a response in tokens."""

    def __init__(self, recipe: Recipe, count_tokens: Callable[[str], int]):
        self.recipe = recipe
        self.prompts: dict[str, Prompt] = load_prompts(recipe)
        self.count_tokens = count_tokens

    def needed(self, row: Row, lookup: Lookup) -> tuple[Request, ...]:
        """`trace(row, lookup).needed`, without judging responses, which no call depends on."""
        return self._walk(row, lookup).needed

    def trace(self, row: Row, lookup: Lookup) -> Trace:
        """What `row` needs next, or how it ended, given what `lookup` knows of calls by their keys."""
        walk = self._walk(row, lookup)
        judged = (
            self._judged(row, end, walk.description) if isinstance(end, Completion) else end for end in walk.ended
        )
        return Trace(walk.needed, tuple(judged))

    def _walk(self, row: Row, lookup: Lookup) -> _Walk:
        if hit := filters.reject_sample(row.sample):
            return _Walk(ended=(Candidate(0, "source", rejection=hit),))
        if not row.sample.images:
            return self._reasoned(row, "", lookup)
        try:
            request = self._request(row, "describe", 0, {})
        except ValueError as error:
            return _Walk(ended=(Candidate(0, "source", failure=str(error)),))
        done = lookup(request.key)
        if done is None:
            return _Walk(needed=(request,))
        end = _passed(done, filters.reject_description)
        return self._reasoned(row, end.text, lookup) if isinstance(end, Completion) else _Walk(ended=(end,))

    def _reasoned(self, row: Row, description: str, lookup: Lookup) -> _Walk:
        inputs = {"description": description or "(There is no image.)"}
        asked = [self._request(row, "reason", n, inputs) for n in range(self.recipe.stages.reason.samples)]
        known = [lookup(request.key) for request in asked]
        if missing := tuple(request for request, done in zip(asked, known, strict=True) if done is None):
            return _Walk(missing)
        places = self.recipe.stages.anchor.samples
        needed: list[Request] = []
        ended: list[Candidate | Completion] = []
        for done in filter(None, known):
            end = _passed(done, lambda text: filters.reject_reasoning(text, row.sample))
            if isinstance(end, Completion):
                end = self._anchored(row, description, end, lookup) if places else _surplus(end)
                places -= places > 0
            if isinstance(end, Request):
                needed.append(end)
            else:
                ended.append(end)
        return _Walk(tuple(needed)) if needed else _Walk((), tuple(ended), description)

    def _anchored(
        self, row: Row, description: str, reasoning: Completion, lookup: Lookup
    ) -> Request | Candidate | Completion:
        """The response that a right reasoning becomes, or how that failed, or the call that is needed first."""
        if not row.sample.images:  # nothing to look back at: the reasoning is the response
            return reasoning
        inputs = {"description": description, "reasoning": reasoning.text}
        request = self._request(row, "anchor", reasoning.sample, inputs)
        done = lookup(request.key)
        return request if done is None else _passed(done, lambda _: None)

    def _judged(self, row: Row, done: Completion, description: str) -> Candidate:
        tokens = self.count_tokens(done.text)
        hit = filters.reject_response(done, row.sample, description, self.recipe.filters, tokens)
        anchors = filters.find_anchors(filters.thought(done.text), description).grounded
        return Candidate(done.sample, done.stage, done.text, tokens, anchors, hit)

    def _request(self, row: Row, stage: str, sample: int, inputs: dict[str, str]) -> Request:
        return make_request(row, stage, self.recipe.stage(stage), self.prompts[stage], sample, inputs)


def _surplus(reasoning: Completion) -> Candidate:
    return Candidate(reasoning.sample, "reason", rejection=FilterHit("surplus", "not anchored"))


def _passed(done: Completion | Failure, reject: Callable[[Completion], FilterHit | None]) -> Completion | Candidate:
    """The call's completion where the row goes on with it, else how the row ended with it."""
    if isinstance(done, Failure):
        return Candidate(done.sample, done.stage, failure=done.error)
    hit = reject(done)
    return Candidate(done.sample, done.stage, rejection=hit) if hit else done
