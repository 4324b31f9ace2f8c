"""Why a teacher's text is not used: the filters of each stage, in the order in which they are applied.

Each function gives the first hit, or None where the text passes. Near-duplicates need the other texts (`Deduplicator`).
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from data_tools.formats.markup import markup_in
from data_tools.formats.sample import DataSample
from data_tools.synthesis.calls.journal import Completion
from data_tools.synthesis.inputs.recipe import Filters
from data_tools.synthesis.outcomes.anchors import find_anchors
from rewards.grading import stated_answer
from rewards.shipped.accuracy import accuracy, check_gold
from rewards.shipped.format import format_reward

# In the order in which they are applied; the report lists them so.
NAMES = {
    "undecidable": "the gold answer cannot be graded (no call is paid)",
    "cut_off": "the teacher ran into its own token limit",
    "content_filter": "the endpoint's content filter ended the text",
    "refusal": "the teacher declines, or says that it sees no image",
    "markup": "the text holds markup of the chat, such as <|image_pad|> or <image>",
    "format": "not <think>…</think><answer>…</answer>; a reasoning without an answer; an empty text",
    "wrong_answer": "the grader does not accept the answer",
    "leak": "speaks of the description or caption",
    "too_few_anchors": "too few look-backs at the image",
    "decorative_anchors": "too few look-backs that name something of the image",
    "contradiction": "a look-back contradicts the description",
    "repetition": "repeats itself",
    "too_long": "more tokens than the recipe allows",
    "near_duplicate": "nearly the text of an earlier sample",
    "surplus": "right, but the question has its responses already",
}
_SORRY = r"I(?:'m| am) (?:very |really |so )?sorry|sorry,|As an AI\b|I won't\b"
_CANNOT = r"I (?:cannot|can't|can not|am unable to|am not able to)|I'm (?:unable|not able) to"
_DO = "help|assist|comply|view|see|describe|provide|answer|process|analy[sz]e|identify"
_DECLINES = rf"^(?:<think>|\W)*+(?:{_SORRY}|(?:{_CANNOT}) (?:\w+ ){{0,3}}?(?:{_DO}))"
_NO_IMAGE = r"\bno image (?:was|has been|is) (?:provided|attached|uploaded|visible)\b"
_SEES_NONE = r"\bI (?:do not|don't) see (?:any|an) image\b"
_REFUSAL = re.compile(rf"{_DECLINES}|{_NO_IMAGE}|{_SEES_NONE}", re.IGNORECASE)
_KIND = r"(?:image |given |provided |above |scene |visual |text(?:ual)? |written |detailed )*"
_TOLD = "description|caption|notes"
_NAMED = rf"\b(?:the|this|that|your|our|a|given|provided) {_KIND}(?:{_TOLD})\b"
_BY_FORMULA = " by the (?:equation|function|formula)"
_DESCRIBED = rf"\b(?:as|it is|it's|are|is|was|were) (?:described|captioned)\b(?!{_BY_FORMULA})"
_DESCRIBED_THERE = r"\bdescribed (?:above|in|as)\b"
_IT_SAYS = rf"\b(?:{_TOLD}) (?:says?|states?|mentions?|indicates?|gives?|tells?)\b"
_FROM_IT = rf"\b(?:according to|based on|from) (?:the |this )?(?:{_TOLD})\b"
_LEAK = re.compile(rf"{_NAMED}|{_DESCRIBED}|{_DESCRIBED_THERE}|{_IT_SAYS}|{_FROM_IT}", re.IGNORECASE)
_THINK = re.compile(r"<think>(.*?)</think>", re.DOTALL)
_NGRAM = 6


@dataclass(frozen=True)
class FilterHit:
    """Why a text is not used: `filter` is one of NAMES; `detail` says what was found."""

    filter: str
    detail: str


def thought(text: str) -> str:
    """What stands between the <think> tags of a text; all of it where there are none."""
    found = _THINK.search(text)
    return found[1] if found else text


@lru_cache(maxsize=4096)
def _right(answer: str, golds: tuple[str, ...], options: tuple[str, ...]) -> bool:
    return accuracy(f"<answer>{answer}</answer>", golds, options=options) == 1.0


def reject_sample(sample: DataSample) -> FilterHit | None:
    """A hit where the sample's gold answer cannot be graded: no call is to be paid for it."""
    try:
        check_gold(sample.golds)
    except ValueError as error:
        return FilterHit("undecidable", str(error))
    return None


def _reject_text(done: Completion) -> FilterHit | None:
    if done.finish == "length":
        return FilterHit("cut_off", f"{done.completion_tokens} tokens")
    if done.finish == "content_filter":
        return FilterHit("content_filter", f"finish reason content_filter after {done.text[:80]!r}")
    if done.finish == "refusal":  # the model said so in the field for that
        return FilterHit("refusal", done.text[:80])
    if found := _REFUSAL.search(done.text):
        return FilterHit("refusal", found[0].strip())
    if markup := markup_in(done.text):
        return FilterHit("markup", " ".join(markup))
    return None if done.text.strip() else FilterHit("format", "empty")


def reject_description(done: Completion) -> FilterHit | None:
    """A hit where a description is cut off, refused or empty."""
    return _reject_text(done)


def _reject_answer(done: Completion, sample: DataSample) -> FilterHit | None:
    answer, _ = stated_answer(done.text)  # a teacher says which of its numbers is the answer
    if answer is None or not answer.strip():
        return FilterHit("format", "no answer")
    if not _right(answer, sample.golds, sample.options):
        return FilterHit("wrong_answer", f"{answer[:80]} for {' or '.join(sample.golds)}")
    return None


def reject_reasoning(done: Completion, sample: DataSample) -> FilterHit | None:
    """A hit where a reasoning is cut off, refused, empty, without an answer, or has another answer than the gold's."""
    return _reject_text(done) or _reject_answer(done, sample)


def reject_response(
    done: Completion, sample: DataSample, description: str, limits: Filters, tokens: int
) -> FilterHit | None:
    """The first filter that a final response of `tokens` tokens does not pass, None where it passes all.

    Without an image there is no description, and nothing to look back at.
    """
    found = _reject_text(done)
    if found is None and not format_reward(done.text):
        found = FilterHit("format", done.text[:80])
    found = found or _reject_answer(done, sample)
    if found is None and sample.images:
        found = _reject_sight(done, sample, description, limits)
    if found is None and limits.max_repetition is not None and repetition(done.text) > limits.max_repetition:
        found = FilterHit("repetition", f"{repetition(done.text):.0%} of its {_NGRAM}-grams")
    if found is None and tokens > limits.max_tokens:
        found = FilterHit("too_long", f"{tokens} tokens")
    return found


def _reject_sight(done: Completion, sample: DataSample, description: str, limits: Filters) -> FilterHit | None:
    asked = {match[0].lower() for match in _LEAK.finditer(sample.text)}  # the question itself may speak of a caption
    leaks = [match[0] for match in _LEAK.finditer(done.text) if match[0].lower() not in asked]
    if leaks:
        return FilterHit("leak", leaks[0])
    anchors = find_anchors(thought(done.text), description)
    if anchors.total < limits.min_anchors:
        return FilterHit("too_few_anchors", f"{anchors.total} of {limits.min_anchors}")
    if anchors.grounded < limits.min_anchors:
        return FilterHit("decorative_anchors", f"{anchors.grounded} of {anchors.total} name something")
    return FilterHit("contradiction", anchors.contradiction) if anchors.contradiction else None


def repetition(text: str) -> float:
    """Share of the word 6-grams of a text that occurred before in it; 0 for a text too short to have two."""
    words = re.findall(r"\w+", text.lower())
    grams = Counter(tuple(words[i : i + _NGRAM]) for i in range(len(words) - _NGRAM + 1))
    total = sum(grams.values())
    return 1 - len(grams) / total if total > 1 else 0.0


class Deduplicator:
    """Near-duplicates of earlier texts by MinHash, so the outcome depends on the order of the texts alone.

    At most `keep` texts that are similar to each other pass. Memory is about a kilobyte per text that passed.
    """

    PERMUTATIONS = 64

    def __init__(self, threshold: float | None, keep: int):
        self._threshold, self._keep = threshold, keep
        if threshold is not None:
            from datasketch import MinHashLSH

            self._index: Any = MinHashLSH(threshold=threshold, num_perm=self.PERMUTATIONS)
            self._sketches: dict[str, Any] = {}

    def reject(self, name: str, text: str) -> FilterHit | None:
        """A hit where `text` is nearly that of `keep` earlier ones; else it is remembered under `name`."""
        if self._threshold is None:
            return None
        from datasketch import LeanMinHash, MinHash

        words = re.findall(r"\w+|[^\w\s]", text.lower())
        grams = {" ".join(words[i : i + 3]).encode() for i in range(max(1, len(words) - 2))}
        sketch = MinHash(num_perm=self.PERMUTATIONS, seed=1)
        sketch.update_batch(sorted(grams))
        # The index finds more than the threshold asks for.
        found = sorted(self._index.query(sketch))
        close = [name for name in found if sketch.jaccard(self._sketches[name]) >= self._threshold]
        if len(close) >= self._keep:
            return FilterHit("near_duplicate", f"of {close[0]}")
        self._index.insert(name, sketch)
        self._sketches[name] = LeanMinHash(sketch)
        return None
