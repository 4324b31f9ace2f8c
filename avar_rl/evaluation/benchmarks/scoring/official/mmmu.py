"""MMMU: the official rules for letters, and for words and numbers.

After `mmmu/utils/eval_utils.py` of MMMU-Benchmark/MMMU (`parse_multi_choice_response`, `parse_open_response`,
`extract_numbers`, `normalize_str`, `eval_multi_choice`, `eval_open`). One deviation: where no letter is found the
official code draws a random one; here the answer does not parse and is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase

from avar_rl.evaluation.benchmarks.scoring.official.reading import UNPARSED, Reading
from data_tools.formats.sample import DataSample, known_options

MIN_WORDS = 5  # a text of more words is looked through for the text of an option
_INDICATORS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
# As the official patterns, but that no number begins within a run of digits: else a long run takes its square in time.
_THOUSANDS = re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b")
_SCIENTIFIC = re.compile(r"-?(?<!\d)\d+(?:\.\d+)?[eE][+-]?\d+")
_SIMPLE = re.compile(r"-?(?:(?<!\d)\d+\.\d+|\.\d+|(?<!\d)\d+\b)(?![eE][+-]?\d+)(?![,\d])")


def read(sample: DataSample, text: str) -> Reading:
    """Whether the text of an answer is right by the official rules; `sample` is a question of MMMU."""
    if sample.extra["question_type"] == "multiple-choice":
        letter = chosen(text, known_options(sample))
        return Reading(letter, letter is not None and letter == sample.gold)
    if not text.strip():
        return UNPARSED
    said = key_responses(text)
    found = [value for part in (*said, *(n for part in said for n in numbers(part))) for value in normalised(part)]
    golds = [value for gold in sample.golds for value in normalised(gold)]
    return Reading(said[-1], any(_matches(value, golds) for value in found))


def chosen(text: str, options: Sequence[str]) -> str | None:
    """The letter that the official rule finds; None where it would draw a random one."""
    for mark in ",.!?;:'":
        text = text.strip(mark)
    text = f" {text} "
    for form in ("({})", " {} "):
        if found := [letter for letter in ascii_uppercase[: len(options)] if form.format(letter) in text]:
            return last_of(found, lambda letter, form=form: text.rfind(form.format(letter)))
    return option_said(text, options)


def option_said(text: str, options: Sequence[str]) -> str | None:
    """The letter of the option whose text a text of more than MIN_WORDS words says last; None: there is none."""
    if len(text.split()) <= MIN_WORDS:
        return None
    lower = text.lower()
    said = {letter: option.lower() for letter, option in zip(ascii_uppercase, options, strict=False)}
    found = [letter for letter, option in said.items() if option in lower]
    return last_of(found, lambda letter: lower.rfind(said[letter])) if found else None


def last_of(letters, place) -> str:
    """The first of the letters at the greatest `place`."""
    return max(letters, key=place)


def key_responses(text: str) -> list[str]:
    """The ends of lines that may hold the answer: the shortest rest after an indicator, or the whole text."""
    text = text.strip().strip(".").lower()
    found = []
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        indicators = (*_INDICATORS, "=") if number == len(lines) else _INDICATORS
        rests = [line.rpartition(indicator)[2].strip() for indicator in indicators if indicator in line]
        if rests and (shortest := _shortest(rests)) and shortest not in [*":,.!?;'"]:
            found.append(shortest)
    return found or [text]


def _shortest(rests: Sequence[str]) -> str:
    """The first of the shortest rests; an empty one before the others does not count, as in the official loop."""
    shortest = ""
    for rest in rests:
        if not shortest or len(rest) < len(shortest):
            shortest = rest
    return shortest


def numbers(text: str) -> list[str]:
    """All numbers in a text: with commas, in scientific notation, and simple ones."""
    return [found for pattern in (_THOUSANDS, _SCIENTIFIC, _SIMPLE) for found in pattern.findall(text)]


def normalised(text: str) -> list[str | float]:
    """A number to 2 decimals, or a text in lower case; one of a single character has to stand beside a space."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
        return [f" {text}", f"{text} "] if len(text) == 1 else [text]


def _matches(value: str | float, golds: Sequence[str | float]) -> bool:
    if isinstance(value, str):
        return any(isinstance(gold, str) and gold in value for gold in golds)
    return value in golds
