"""Both sides of boundaries of the grader: one digit more, one sign less, a formula cut off; and which tier decides."""

from dataclasses import replace
from fractions import Fraction

import pytest

from rewards.grading import DEFAULT, check_gold, grade, grade_response
from rewards.grading.compare.scalars import last_place
from rewards.grading.parse.parser import parse
from rewards.grading.parse.tree import ParseError

ON_EACH_SIDE = [
    # a decimal that rounds, and one that is a whole last place off
    ("0.5001", "1/2", False),
    ("0.50004", "1/2", False),  # 0.5 has no further digits to round away
    ("0.3334", "1/3", True),  # less than one place off
    ("0.3335", "1/3", False),
    ("3.1416", r"\pi", True),
    ("3.1416", r"\pi+0.00001i", False),  # no real number rounds to a complex one
    # a floating number's last digits: from 16 digits on
    ("0.30000000000000004", "0.3", True),
    ("0.300000000000001", "0.3", False),
    # signs that double
    ("3!!", "720", False),  # a double factorial is 3, not (3!)!
    ("3!", "6", True),
    # letters that may be a unit or a variable
    ("3 s", "3", True),
    ("3s", "3", False),
    ("2c - c", "c", True),
    ("b", "c", False),
    # words that also read as a number with a unit
    ("the 12 angry men", "12 angry men", True),
    ("the 12 angry men", "11 angry men", False),
    # decoration in decoration, and a backslash too many
    (r"\text{\textbf{cats}}", "cats", True),
    (r"\\frac{1}{2}", "1/2", True),
    (r"\begin{pmatrix}a\\bc\end{pmatrix}", r"\begin{bmatrix}a\\bc\end{bmatrix}", True),
    (r"\begin{pmatrix}a\\bc\end{pmatrix}", r"\begin{bmatrix}a\\c\end{bmatrix}", False),
    # a command and the letter that it swallowed
    (r"0\lex", r"x \ge 0", True),
    (r"0\gex", r"x \ge 0", False),
    # every cell of a line counts
    (r"\begin{cases}1&2\\3&4\end{cases}", r"\begin{aligned}1&2\\3&4\end{aligned}", True),
    (r"\begin{cases}1&2\\3&4\end{cases}", r"\begin{aligned}1&5\\3&6\end{aligned}", False),
    # intervals whose ends are letters
    ("(a, b)", "(a, b]", False),
    ("[a, 2b)", "[a, b + b)", True),
    # what an answer is called, and an equation in which the same stands
    ("|AB| = 3", "3", True),
    ("|2x + 1| = 3", "3", False),
    ("f(x) = 3", "3", True),
    (r"\sin x = 1/2", "1/2", False),
    # ratios of letters
    ("a:b", "2a:2b", True),
    ("a:b", "2a:b", False),
    # words for numbers
    ("twenty", "20", True),
    ("twenty-one", "21", True),
    ("twenty", "21", False),
    ("nineteen", "19", True),
    ("twenty-zero", "20", False),
    ("cbrt(8)", "2", True),
    ("cbrt(16)", "2", False),
]


@pytest.mark.parametrize(("prediction", "gold", "expected"), ON_EACH_SIDE)
def test_a_step_to_the_other_side_changes_the_verdict(prediction, gold, expected):
    assert grade(prediction, gold).equivalent is expected


@pytest.mark.parametrize(
    ("prediction", "gold", "tier"),
    [
        ("5!", "120", "number"),
        (r"\binom{6}{2}", "15", "number"),
        ("gcd(12, 18)", "6", "number"),
        ("lcm(4, 6)", "12", "number"),
        ("max(2, 3)", "3", "number"),
        (r"\sqrt{16/9}", "4/3", "number"),
        (r"\sqrt[3]{27/8}", "3/2", "number"),
        ("(a, b)", "(a, b]", "structure"),
        (r"\sqrt{8}", r"2\sqrt{2}", "numeric"),
        ("x + x", "2x", "numeric"),
        (r"\sum_{n=1}^{4} n", "10", "symbolic"),
        ("cats", "2", "unread"),
        ("9**9**9**9", "2", "refused"),
    ],
)
def test_the_cheapest_tier_that_can_decide_does(prediction, gold, tier):
    assert grade(prediction, gold, policy=replace(DEFAULT, limit_s=60)).tier == tier


@pytest.mark.parametrize(
    ("value", "digits", "place"),
    [("2.50", 3, "0.01"), ("100", 4, "0.1"), ("99", 2, "1"), ("0.125", 3, "0.001"), ("-0.001", 1, "0.001")],
)
def test_the_worth_of_the_last_digit(value, digits, place):
    assert last_place(Fraction(value), digits) == Fraction(place)


@pytest.mark.parametrize(
    ("largest", "larger"),
    [
        ("x " * 800, "x " * 801),  # tokens
        ("(" * 29 + "x" + ")" * 29, "(" * 30 + "x" + ")" * 30),  # atoms in atoms, the x one of them
        ("x" + "%" * 59, "x" + "%" * 60),  # levels of the tree, the x one of them
        ("^".join("x" * 22), "^".join("x" * 23)),  # exponents on exponents: 20 on the first
        ("9" * 4100, "9" * 4101),  # digits
    ],
    ids=["tokens", "groups", "levels", "towers", "digits"],
)
def test_the_largest_formula_and_one_step_more(largest, larger):
    parse(largest)
    with pytest.raises(ParseError):
        parse(larger)


@pytest.mark.parametrize(
    "formula",
    [
        r"\frac{x_{12}}{\sqrt[3]{2}} + \left|x\right| \le \sum_{n=1}^{5} n^{2}",
        r"\int_0^1 x^2 dx = \lim_{x \to 0^+} \frac{\sin^{-1} x}{3}",
        r"\begin{pmatrix}1&2\\3&4\end{pmatrix} \cup \{x \in \mathbb{R} : x > 3\}",
        r"f'(x) = \vec{v} 2\frac{1}{3} 1.2\overline{34} 204_{5} \log_{2} 8!\%^\circ",
    ],
)
def test_a_formula_that_is_cut_off_anywhere_raises_nothing(formula):
    for end in range(len(formula)):
        for piece in (formula[:end], formula[end:]):
            assert grade(piece, "B").equivalent is False
            assert grade(piece, "5", policy=replace(DEFAULT, limit_s=0.2)).equivalent is not True
            assert grade_response(f"It is {piece}", "B").equivalent is False
            try:
                check_gold(piece)
            except ValueError as error:
                assert "the gold answer" in str(error)
