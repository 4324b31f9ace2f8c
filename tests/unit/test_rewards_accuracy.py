"""rewards.shipped.accuracy: extraction, equality in both polarities, unscorable golds, undecided pairs."""

import pytest

from rewards.sample import Sample
from rewards.shipped.accuracy import accuracy, accuracy_reward, check_gold, extract_answer, timeouts


def graded(answer: str, gold: str) -> float:
    return accuracy(f"<think>so</think><answer>{answer}</answer>", gold)


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("<think>a</think><answer>6</answer>", "6"),
        ("<answer> 1 \n</answer> no, <answer>\n2\n</answer>", "2"),  # the last one, over several lines
        ("<answer>1<answer>2</answer>", "2"),  # the last opening tag
        (r"so \boxed{1} then \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),  # balanced braces
        (r"\boxed{1} <answer>2</answer>", "2"),  # the tag wins
        (r"<answer>3 \boxed{1}", "1"),  # an answer that never closes is none
        ("<answer></answer>", ""),
        ("the answer is 6", "6"),
        (r"\boxed{\frac{1}{2}", None),  # cut off
        ("</answer>6<answer>", None),
    ],
)
def test_extract_answer(response, expected):
    assert extract_answer(response) == expected


EQUAL = [
    ("6", "6"),
    (" 6. ", "6"),
    ("$6$", "6"),
    ("006", "6"),
    ("1,000", "1000"),
    ("0.5", r"\frac{1}{2}"),
    ("1/2", r"\dfrac{1}{2}"),
    ("2/4", r"\frac12"),
    ("-1/2", r"-\frac{1}{2}"),
    ("3 1/2", "3.5"),
    ("0.333333", r"\frac{1}{3}"),
    ("50%", "0.5"),
    ("50", r"50\%"),
    ("7 cm", "7"),
    ("12", "12 apples"),
    ("30°", r"30^\circ"),
    (r"2\pi", r"2\pi"),
    ("2π", r"2\pi"),
    ("2*pi", r"2\pi"),
    (r"\pi\cdot 2", r"2\pi"),
    ("sqrt(8)", r"2\sqrt{2}"),
    ("x**2 + 2x + 1", "(x+1)^2"),
    ("x = 5", "5"),
    ("{1, 2}", r"\{2, 1\}"),
    (r"\begin{bmatrix} 1 \\ 2 \end{bmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    ("B", "b"),
    ("(B)", "B"),
    ("B) red", "B"),
    ("B. red", "(B)"),
    ("Yes.", "yes"),
    (r"\text{blue square}", "Blue  square"),
    (r"\boxed{6}", "6"),
]
DIFFERENT = [
    ("5", "6"),
    ("", "6"),
    ("66", "6"),
    ("10000001", "10000000"),  # integers are compared exactly
    ("0.33", r"\frac{1}{3}"),
    ("1/0", "1"),
    ("-6", "6"),
    ("50%", "0.05"),
    ("7 cm", "7 m"),
    ("12 pears", "12 apples"),
    ("2", r"2\pi"),
    (r"3\pi", r"2\pi"),
    ("3.14", r"\pi"),  # four digits are the least that may stand for an exact value
    ("2x", "2"),
    ("x^2+1", "(x+1)^2"),
    ("A", "B"),
    ("A) B", "B"),
    ("AB", "B"),
    ("no", "yes"),
    ("yes or no", "yes"),
    ("seven", "6"),
    ("6 or 7", "6"),
]


@pytest.mark.parametrize(("answer", "gold"), EQUAL)
def test_equal_answers(answer, gold):
    assert graded(answer, gold) == 1.0


@pytest.mark.parametrize(("answer", "gold"), DIFFERENT)
def test_different_answers(answer, gold):
    assert graded(answer, gold) == 0.0


def test_no_answer_scores_zero_and_not_an_error():
    assert accuracy("I see a circle", "6") == 0.0


@pytest.mark.parametrize(
    ("answer", "expected"), [("blue", 1.0), ("B", 1.0), ("B) blue", 1.0), ("red", 0.0), ("A", 0.0)]
)
def test_the_text_of_an_option_is_its_letter(answer, expected):
    response = f"<answer>{answer}</answer>"
    assert accuracy(response, "B", options=["red", "blue"]) == expected
    assert accuracy_reward(Sample("Which?", response, "B", options=("red", "blue"))) == expected
    assert accuracy("<answer>blue</answer>", "B") == 0.0


@pytest.mark.parametrize(("answer", "expected"), [("Ann Lee", 1.0), ("ann", 1.0), ("Bob", 0.0), ("Ann, Bob", 0.0)])
def test_any_of_a_rows_right_answers_will_do(answer, expected):
    row = {"extra_info": {"other_golds": ["Ann"]}}
    assert accuracy_reward(Sample("Who?", f"<answer>{answer}</answer>", "Ann Lee", row)) == expected
    assert accuracy_reward(Sample("Who?", "<answer>Ann</answer>", "Ann Lee", {"extra_info": {}})) == 0.0


@pytest.mark.parametrize("gold", ["6", "-3.5", r"\frac{3}{16}", r"2\pi", "C", "yes", "blue square", "x=3", "12 apples"])
def test_scorable_golds(gold):
    check_gold(gold)


@pytest.mark.parametrize("gold", ["", "  ", "$$", r"\frac{1}{", "(((", "__import__('os')", "1+", "7" * 2001, None])
def test_unscorable_golds_raise_and_are_named(gold):
    with pytest.raises(ValueError, match="gold answer") as caught:
        check_gold(gold)
    assert repr(gold)[:100] in str(caught.value)
    with pytest.raises(ValueError, match="gold answer"):
        accuracy("<answer>1</answer>", gold)


def test_an_undecided_pair_scores_zero_and_is_counted():
    before = timeouts()
    assert accuracy(r"<answer>\int_0^1 x^{x^{x^x}} dx</answer>", r"\frac{\pi}{7}", limit_s=0.3) == 0.0
    assert timeouts() == before + 1
