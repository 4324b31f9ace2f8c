"""MathVerse by rule: the marked answer, equal as it stands."""

import pytest

from avar_rl.evaluation.benchmarks.scoring.official.mathverse import read
from tests.unit.benchmark_questions import asked, in_its_text

CHOICE = asked("B", question_type="multi-choice")  # options in the image
LISTED = in_its_text("B", ["40°", "50°"], question_type="multi-choice")
FREE = asked("50°", question_type="free-form")


@pytest.mark.parametrize(
    ("question", "text", "answer", "right"),
    [
        (CHOICE, "B", "B", True),
        (CHOICE, "\\boxed{B}", "B", True),
        (CHOICE, "B. 50°", "B", True),
        (CHOICE, "We see it.\nSo the correct option is **B**.", "B", True),
        (CHOICE, "A:40°", "A", False),
        (CHOICE, "50°", "50°", False),  # the texts of the options are not known
        (LISTED, "The answer is 50°.", "B", True),
        (
            LISTED,
            "The angle has\nmany sides, and more than twelve words stand in this line, so it is none",
            None,
            False,
        ),
        (FREE, "50°", "50°", True),
        (FREE, "The answer is $50°$.", "50°", True),
        (FREE, "\\boxed{50^\\circ}", "50^\\circ", False),  # equal texts only: a lower bound
        (FREE, "First a long line of words, many of them, which state nothing that is an answer.\nx", None, False),
    ],
)
def test_rule(question, text, answer, right):
    found = read(question, text)
    assert (found.answer, found.right) == (answer, right)
