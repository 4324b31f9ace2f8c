"""MathVerse: the official comparison by rule of an extracted answer.

After `evaluation/score_answer_s2.py` (`match_answer` with `quick_match`) of ZrrSkywalker/MathVerse: equal texts. Its
primary score asks a language model for the answer and another time for the verdict, which is the column `judge` here;
`official` extracts by `marked.py`, of a choice the letter that the answer or the last line picks, and compares texts
as they stand: `69°` is not `69^\\\\circ`. It is a lower bound for free-form questions.
"""

from __future__ import annotations

from avar_rl.evaluation.benchmarks.benchmark import known_options
from avar_rl.evaluation.benchmarks.official.marked import chosen_letter, last_line, marked_answer
from avar_rl.evaluation.benchmarks.official.reading import UNPARSED, Reading
from data_tools.formats.sample import DataSample

_PLACES = ("",) * 8  # options that are not known by their text: in the question or the image


def read(sample: DataSample, text: str) -> Reading:
    """Whether the text of an answer is right by the official rule; `sample` is a question of MathVerse."""
    answer = marked_answer(text)
    if sample.extra["question_type"] == "multi-choice":
        options = known_options(sample) or _PLACES
        answer = chosen_letter(last_line(text) if answer is None else answer, options) or answer
    return UNPARSED if answer is None else Reading(answer, answer == str(sample.extra["answer"]).strip())
