"""MathVision's rules by hand: extraction, and equality of texts and values."""

import pytest

from avar_rl.evaluation.benchmarks.scoring.official.mathvision import extracted, is_equal, read
from tests.unit.benchmark_questions import asked, in_its_text

CHOICE = asked("B", options=("$2\\pi$", "$3\\pi$", "5", "6", "7"))
LETTERS = in_its_text("C", list("ABCDE"))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("60", "60"),
        ("\\boxed{60}", "60"),
        ("First \\boxed{1}, then \\boxed{60}", "60"),
        ("x = 60", "60"),
        ("The answer is 60.", "60"),
        ("I say. The final answer is (B). Because.", "b"),
        ("the answer should be B\nand so on", "b"),
        ("It must be B.", "b"),
        ("B\nas one sees", "b"),
        ("\\boxed{(C)}", "c"),
        ("\\boxed{69^\\circ}", "69"),
        ("\\boxed{x = \\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{5} as in {5}", "5"),
        ("\\boxed{3 \\text{ km}}", "3"),
        ("12 m^3", "12"),
        (".5", "0.5"),
        ("", ""),
    ],
)
def test_extraction(text, answer):
    assert extracted(text) == answer


@pytest.mark.parametrize(
    ("gold", "answer", "equal"),
    [
        ("60", "60.0", True),
        ("60", "60.004", True),  # 2 decimals
        ("60", "60.006", False),
        ("\\frac{1}{2}", "0.5", True),
        ("$4 \\pi$", "12.566", True),
        ("2\\sqrt{2}", "\\sqrt{8}", True),
        ("45^2", "2025", True),
        ("1:2", "0.5", True),
        ("(3,-4)", "(3, -4)", True),
        ("(3,-4)", "(-4,3)", False),
        ("\\infty", "\\infty", True),
        ("69{degrees}", "69", False),  # as latex2sympy: the official code does not know the unit
        ("$\\boxed{\\frac{16}{7}}$", "\\frac{16}{7}", False),  # nor a box in a gold
        ("\x0crac{36}{13}", "\\frac{36}{13}", False),  # nor a lost backslash
        ("100", "50%", False),
        ("60", "60 cm", False),
        ("A", "a", True),
        ("", "", False),
        ("red", "blue", False),
    ],
)
def test_equality(gold, answer, equal):
    assert is_equal(gold, answer) is equal


@pytest.mark.parametrize(
    ("question", "text", "right"),
    [
        (CHOICE, "\\boxed{B}", True),
        (CHOICE, "\\boxed{3\\pi}", True),  # the option's value
        (CHOICE, "9.42", True),
        (CHOICE, "\\boxed{C}", False),
        (LETTERS, "C", True),
        (LETTERS, "The answer is D", False),
    ],
)
def test_letter_or_value(question, text, right):
    assert read(question, text).right is right


def test_an_empty_answer_does_not_parse():
    assert not read(CHOICE, "  ").parsed


def test_a_letter_gold_without_options():
    assert read(asked("C"), "\\boxed{C}").right and not read(asked("C"), "5").right
