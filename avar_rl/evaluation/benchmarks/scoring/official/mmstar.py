"""MMStar: the official rule, the character at which the letter must stand.

After `eval/vlmeval/evaluate/mmstar.py` (`MMStar_eval`) of MMStar-Benchmark/MMStar: in lower case the letter is the
first character, or follows "(", "option " or "the answer is " at the head. So "A cat" is read as A, as there. Any
other beginning does not parse.
"""

from __future__ import annotations

from avar_rl.evaluation.benchmarks.scoring.official.reading import UNPARSED, Reading
from data_tools.formats.sample import DataSample

_HEADS = ("", "(", "option ", "the answer is ")
_LETTERS = "abcd"


def read(sample: DataSample, text: str) -> Reading:
    """Whether the text of an answer is right by the official rule; `sample` is a question of MMStar."""
    said, gold = (words.lower().strip().replace("\n", " ") for words in (text, str(sample.extra["answer"])))
    for head in _HEADS:
        letter = said[len(head) : len(head) + 1]
        if said.startswith(head) and letter and letter in _LETTERS:
            return Reading(letter.upper(), letter == gold)
    return UNPARSED
