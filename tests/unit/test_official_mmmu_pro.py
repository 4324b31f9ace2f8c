"""MMMU-Pro's rule by hand, of both settings."""

import pytest

from avar_rl.evaluation.benchmarks.scoring.official.mmmu_pro import read
from tests.unit.benchmark_questions import asked, in_its_text

OPTIONS = ("apples", "pears", "plums", "figs", "dates", "kiwis", "limes", "nuts", "oats", "sweet rye bread")
STANDARD = asked("J", options=OPTIONS)
VISION = in_its_text("J", list(OPTIONS))


@pytest.mark.parametrize("question", [STANDARD, VISION])
@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Steps.\nAnswer: J", "J"),
        ("Answer: A\nNo, wait.\nAnswer: J", "J"),  # the last "Answer:"
        ("Answer: $J$", "J"),
        ("Answer: J, Since it is so", "J"),  # S is beyond the ten
        ("J", "J"),
        ("(J)", "J"),
        ("(A) or (J)", "J"),
        ("I think J.", "J"),
        ("my guess would be sweet rye bread now", "J"),
        ("sweet rye bread", None),
        ("answer: j", None),
        ("", None),
    ],
)
def test_rule(question, text, answer):
    assert (read(question, text).answer, read(question, text).right) == (answer, answer == "J")


def test_several_letters_after_answer():
    # J and A stand after "Answer:"; none is in brackets, before a space or before a full stop; six words, no option
    assert read(STANDARD, "Answer: J, As it is so").answer is None
    # "J " is found, "A" stands before "s"
    assert read(STANDARD, "Answer: J As it is so").answer == "J"


def test_faults_of_the_official_rule():
    assert read(STANDARD, "the NBA wins").answer == "A"  # a capital at the end of a word
    # both end a word, neither stands alone: the first of the alphabet
    assert read(STANDARD, "in J. or in xB. then").answer == "B"
