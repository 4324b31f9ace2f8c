"""HallusionBench: yes or no, by rule.

The official code (`utils.py`, `evaluate_by_chatgpt`, of tianyi-lab/HallusionBench) asks a language model whether the
answer conflicts with the reference: the column `judge`. The rule here is that of `YOrN_Extraction` (with
`process_punctuation`) of VLMEvalKit, with which the leaderboards first read an answer: exactly one of the words "yes"
and "no" stands in it. Where it does not decide, the first word of the answer, or of what `marked.py` finds in it, does.
"""

from __future__ import annotations

import re

from avar_rl.evaluation.benchmarks.scoring.official.marked import marked_answer
from avar_rl.evaluation.benchmarks.scoring.official.reading import UNPARSED, Reading
from data_tools.formats.sample import DataSample

_MARKS = ';/[]"{}()=+\\_->-<@`,?!'
_FULL_STOP = re.compile(r"(?<!\d)\.(?!\d)")
_FULL_STOPS = 32  # those that VLMEvalKit takes out: it hands re.UNICODE where the count belongs
_FIRST_WORD = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)
SAYS = {"1": "yes", "0": "no"}  # gt_answer


def read(sample: DataSample, text: str) -> Reading:
    """Whether the text of an answer is right by rule; `sample` is a question of HallusionBench."""
    said = yes_or_no(text)
    return UNPARSED if said is None else Reading(said, said == SAYS[str(sample.extra["gt_answer"])])


def yes_or_no(text: str) -> str | None:
    """ "yes" or "no"; None: the text does not say which."""
    found = {"yes", "no"}.intersection(_without_punctuation(text.lower()).split())
    if len(found) == 1:
        return found.pop()
    for answer in (text, marked_answer(text) or ""):
        if first := _FIRST_WORD.match(answer):
            return first[1].lower()
    return None


def _without_punctuation(text: str) -> str:
    """A mark is dropped where one of its kind stands beside a space, or a comma between digits; else it is a space."""
    thousands = re.search(r"\d,\d", text) is not None
    plain = text
    for mark in _MARKS:
        beside = thousands or f"{mark} " in text or f" {mark}" in text
        plain = plain.replace(mark, "" if beside else " ")
    return _FULL_STOP.sub("", plain, count=_FULL_STOPS)
