r"""MathVista: the official normalisation and comparison of an extracted answer.

After `evaluation/calculate_score.py` (`normalize_extracted_answer`, `safe_equal`) and the shortcuts at the head of
`extract_answer` in `evaluation/extract_answer.py` of lupantech/MathVista. The official code then asks a language model
for the answer; here `marked.py` extracts it. Of a choice that is a letter, or else the marked text, which becomes the
option nearest to it by Levenshtein, as there; but one that is further from it than half of the longer text would be a
guess, and none is made. Of a number it is the only number in the marked text, or in the last line, after the last `=`
in it, without the commas of thousands; of a list the last `[…]`. What has none of these is not parsed and wrong.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase

from avar_rl.evaluation.benchmarks.scoring.official.marked import last_line, marked_answer, marked_choice
from avar_rl.evaluation.benchmarks.scoring.official.reading import Reading
from data_tools.formats.sample import DataSample, known_options

_NUMBER = re.compile(r"-?(?:[0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+)")
_BRACKETED_LETTER = re.compile(r"\(([a-zA-Z])\)")
_LIST = re.compile(r"\[[^\[\]]*\]")


def read(sample: DataSample, text: str) -> Reading:
    """Whether the text of an answer is right by the official rules; `sample` is a question of MathVista."""
    return compare(sample, extracted(sample, text))


def compare(sample: DataSample, extraction: str | None) -> Reading:
    """The official verdict on an extracted answer, of this module or of a language model; None: there is none."""
    found = None if extraction is None else _normalised(sample, extraction)
    return Reading(found, found is not None and found == str(sample.extra["answer"]))


def stated_outright(sample: DataSample, text: str) -> str | None:
    """The text of an answer where it is a choice or a number as it stands, which the official code asks no model about;
    else None."""
    if sample.extra["question_type"] == "multi_choice":
        return text if text in known_options(sample) else None
    kind = sample.extra["answer_type"]
    return text if kind in ("integer", "float") and _number(text, whole=kind == "integer") is not None else None


def extracted(sample: DataSample, text: str) -> str | None:
    """The answer in a text, not yet normalised; None: there is none."""
    if (outright := stated_outright(sample, text)) is not None:
        return outright
    if sample.extra["question_type"] == "multi_choice":
        return marked_choice(text, known_options(sample))
    if sample.extra["answer_type"] == "list":
        found = _LIST.findall(text)
        return found[-1] if found else None
    return _only_number(marked_answer(text) or "") or _only_number(last_line(text))


def _only_number(text: str) -> str | None:
    found = _NUMBER.findall(re.split(r"=|≈|\\approx", text)[-1])
    return found[0].replace(",", "") if len(found) == 1 else None


def _normalised(sample: DataSample, extraction: str) -> str | None:
    if sample.extra["question_type"] == "multi_choice":
        return _option(extraction.strip(), known_options(sample))
    kind, precision = sample.extra["answer_type"], sample.extra.get("precision") or 0
    if kind == "list":
        return extraction
    value = _number(extraction, whole=kind == "integer")
    if value is None:
        return None
    return str(round(value, int(precision)) if kind == "float" else value)


def _option(text: str, options: Sequence[str]) -> str | None:
    """The option that a text names by its letter, else the one nearest to it; None: none is near."""
    letters = _BRACKETED_LETTER.findall(text)
    text = letters[0].upper() if letters else text
    if len(text) == 1 and text in ascii_uppercase[: len(options)]:
        return options[ascii_uppercase.index(text)]
    distances = [levenshtein(text, option) for option in options]
    nearest = options[distances.index(min(distances))]
    return nearest if 2 * min(distances) <= max(len(text), len(nearest)) else None


def _number(text: str, *, whole: bool) -> float | int | None:
    """The text as Python reads a number, cut to an integer where a `whole` one is asked; None: it is none."""
    try:
        return int(float(text)) if whole else float(text)
    except (ValueError, OverflowError):  # OverflowError: the integer of an infinity
        return None


def levenshtein(a: str, b: str) -> int:
    """The least number of insertions, deletions and replacements of one character that turn `a` into `b`."""
    above = list(range(len(b) + 1))
    for row, mark in enumerate(a, 1):
        line = [row]
        for column, other in enumerate(b, 1):
            line.append(min(above[column] + 1, line[-1] + 1, above[column - 1] + (mark != other)))
        above = line
    return above[-1]
