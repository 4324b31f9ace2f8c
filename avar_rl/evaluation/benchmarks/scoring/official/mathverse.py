"""MathVerse: the official comparison by rule of an extracted answer.

After `evaluation/score_answer_s2.py` (`match_answer` with `quick_match`) of ZrrSkywalker/MathVerse: equal texts. Its
primary score asks a language model for the answer and another time for the verdict, which is the column `judge` here;
`official` extracts by `marked.py`, of a choice its letter, and compares texts as they stand: `69°` is not `69 degrees`.
It is a lower bound for free-form questions.
"""

from __future__ import annotations

from avar_rl.evaluation.benchmarks.scoring.official.marked import marked_answer, marked_choice
from avar_rl.evaluation.benchmarks.scoring.official.reading import UNPARSED, Reading
from data_tools.formats.sample import DataSample, known_options

_PLACES = ("",) * 8  # options that are not known by their text: in the question or the image


def read(sample: DataSample, text: str) -> Reading:
    """Whether the text of an answer is right by the official rule; `sample` is a question of MathVerse."""
    choice = sample.extra["question_type"] == "multi-choice"
    answer = marked_choice(text, known_options(sample) or _PLACES) if choice else marked_answer(text)
    return UNPARSED if answer is None else Reading(answer, answer == str(sample.extra["answer"]).strip())
