"""MMMU-Pro: the official rule for letters, of both settings.

After `mmmu-pro/evaluate.py` of MMMU-Benchmark/MMMU (`parse_multi_choice_response`): the one letter after the last
"Answer:", else the last letter in brackets, at the end of a word, before a full stop, else the option whose text is
said last. Deviation: where nothing is found the official code draws a random letter; here the answer does not parse.

The official rule's faults are kept: a capital at the end of a word ("USA ") is a letter, and of several letters that
stand only at ends of words, or before full stops, it takes the first of the alphabet.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_uppercase

from avar_rl.evaluation.benchmarks.scoring.official.mmmu import last_of, option_said
from avar_rl.evaluation.benchmarks.scoring.official.reading import Reading
from data_tools.formats.sample import DataSample, known_options

# What a letter stands in to be found, and in what its place is then looked for
_FORMS = (("({})", "({})"), ("{} ", " {} "), ("{}.", " {} "))


def read(sample: DataSample, text: str) -> Reading:
    """Whether the text of an answer is right by the official rule; `sample` is a question of MMMU-Pro."""
    letter = chosen(text, known_options(sample))
    return Reading(letter, letter is not None and letter == sample.gold)


def chosen(text: str, options: Sequence[str]) -> str | None:
    """The letter that the official rule finds; None where it would draw a random one."""
    letters = ascii_uppercase[: len(options)]
    _, marked, after = text.rpartition("Answer:")
    if marked and len(found := [letter for letter in letters if letter in after]) == 1:
        return found[0]
    for mark in ",.!?;:'":
        text = text.strip(mark)
    text = f" {text} "
    for form, place in _FORMS:
        if found := [letter for letter in letters if form.format(letter) in text]:
            return last_of(found, lambda letter, place=place: text.rfind(place.format(letter)))
    return option_said(text, options)
