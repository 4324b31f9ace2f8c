"""MathVista: the official normalisation by hand, and the extraction that stands in for a language model."""

import pytest

from avar_rl.evaluation.benchmarks.scoring.official.mathvista import compare, extracted, levenshtein, read
from tests.unit.benchmark_questions import asked

OPTIONS = ("3/11", "8/11", "dark red", "blue")
CHOICE = asked("B", options=OPTIONS, answer="8/11", question_type="multi_choice", answer_type="text")
INTEGER = asked("14", question_type="free_form", answer_type="integer")
FLOAT = asked("1.2", question_type="free_form", answer_type="float", precision=1.0)
LIST = asked("[2014, 2016]", question_type="free_form", answer_type="list")
TWICE = asked("A", options=("5", "6", "5"), answer="5", question_type="multi_choice", answer_type="text")
LETTERS = asked("C", options=("A", "B", "C"), answer="C", question_type="multi_choice", answer_type="text")


@pytest.mark.parametrize(
    ("question", "extraction", "prediction", "right"),
    [
        (CHOICE, "B", "8/11", True),
        (CHOICE, "(B) 8/11", "8/11", True),
        (CHOICE, "(b)", "8/11", True),
        (CHOICE, "8/11", "8/11", True),
        (CHOICE, "8/12", "8/11", True),  # the nearest by Levenshtein
        (CHOICE, "bleu", "blue", False),
        (CHOICE, "D", "blue", False),
        (CHOICE, "E", None, False),  # no such letter, and no option is near: the official code takes the first
        (CHOICE, "no idea", None, False),
        (TWICE, "C", "5", True),  # an option that stands there twice
        (LETTERS, "C", "C", True),
        (INTEGER, "14", "14", True),
        (INTEGER, "14.7", "14", True),  # int(float())
        (INTEGER, "fourteen", None, False),
        (INTEGER, "inf", None, False),
        (INTEGER, "1,400", None, False),
        (FLOAT, "1.24", "1.2", True),  # rounded to the precision
        (FLOAT, "1.26", "1.3", False),
        (FLOAT, "1.2 m", None, False),
        (LIST, "[2014, 2016]", "[2014, 2016]", True),
        (LIST, "[2014,2016]", "[2014,2016]", False),  # equal texts
        (CHOICE, None, None, False),
    ],
)
def test_official_normalisation(question, extraction, prediction, right):
    found = compare(question, extraction)
    assert (found.answer, found.right) == (prediction, right)


@pytest.mark.parametrize(
    ("question", "text", "answer"),
    [
        (CHOICE, "8/11", "8/11"),
        (CHOICE, "(B) 8/11", "B"),
        (CHOICE, "\\boxed{B}", "B"),
        (CHOICE, "We count.\n\nThe correct answer is (B) 8/11.", "B"),
        (CHOICE, "The answer is dark red.", "C"),
        (CHOICE, "The answer is darkish red.", "darkish red"),  # of which the nearest is taken
        (CHOICE, "We count.\nSo it is (B).", "B"),
        (CHOICE, "B. 8/11\n\nThis is because eight of the eleven parts that there are in the shape are blue.", "B"),
        (CHOICE, "I cannot see the shape, and thus I am not able to say what it may be here.", None),  # never a guess
        (INTEGER, "14", "14"),
        (INTEGER, "The number missing in the sequence is 14.", "14"),
        (INTEGER, "\\boxed{14}", "14"),
        (INTEGER, "The answer is 5 + 9 = 14.", "14"),
        (INTEGER, "There are 5 red and 9 blue ones.", None),  # two numbers: none is picked
        (INTEGER, "The answer is 1,400 years.", "1400"),
        (FLOAT, "Luca needs $1.45 to buy it.", "1.45"),
        (FLOAT, "The answer is -.5", "-.5"),
        (LIST, "Between [2014, 2016], I say", "[2014, 2016]"),
        (LIST, "2014 and 2016", None),
    ],
)
def test_extraction(question, text, answer):
    assert extracted(question, text) == answer


def test_what_is_not_extracted_is_unparsed_and_wrong():
    found = read(CHOICE, "I am sorry, but there is no image here that I could look at and describe to you.")
    assert not found.parsed and not found.right


def test_levenshtein():
    for a, b, distance in (("", "abc", 3), ("kitten", "sitting", 3), ("ab", "ba", 2), ("x", "x", 0)):
        assert levenshtein(a, b) == levenshtein(b, a) == distance
