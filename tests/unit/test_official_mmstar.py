"""MMStar's rule by hand: where the letter has to stand."""

import pytest

from avar_rl.evaluation.benchmarks.scoring.official.mmstar import read
from avar_rl.evaluation.benchmarks.scoring.official.reading import Reading
from tests.unit.benchmark_questions import asked

QUESTION = asked("B", options=("red", "blue", "green", "none"))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("B", "B"),
        ("b", "B"),
        ("B. blue", "B"),
        ("(B) blue", "B"),
        ("Option B", "B"),
        ("The answer is B.", "B"),
        ("\n B", "B"),
        ("A", "A"),
        ("Because it is blue", "B"),  # the official rule's fault, kept: the first character is b
        ("A cat, so B", "A"),
        ("It is B", None),  # not at one of its places
        ("Answer: B", "A"),  # the first character is a
        ("The answer is: B", None),
        ("**B**", None),
        ("E", None),
        ("", None),
        ("(", None),
    ],
)
def test_first_character(text, answer):
    assert read(QUESTION, text) == Reading(answer, answer == "B")
