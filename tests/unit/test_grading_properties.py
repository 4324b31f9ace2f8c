"""Properties of the grader: reflexive, symmetric for numbers, right about rewrites and perturbations."""

from decimal import Decimal
from fractions import Fraction

import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.grading import check_gold, grade

NUMBERS = st.one_of(
    st.integers(-(10**25), 10**25).map(str),
    st.decimals(-(10**6), 10**6, allow_nan=False, allow_infinity=False, places=4).map(str),
    st.tuples(st.integers(-999, 999), st.integers(1, 999)).map(lambda pair: rf"\frac{{{pair[0]}}}{{{pair[1]}}}"),
    st.tuples(st.integers(-999, 999), st.integers(1, 999)).map(lambda pair: f"{pair[0]}/{pair[1]}"),
)
x, y = sympy.symbols("x y")
LEAVES = st.sampled_from([x, y, sympy.Integer(2), sympy.Integer(3), sympy.Rational(1, 2), sympy.pi, sympy.sqrt(5)])
EXPRESSIONS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda pair: pair[0] + pair[1]),
        st.tuples(inner, inner).map(lambda pair: pair[0] * pair[1]),
        inner.map(lambda e: e**2),
        inner.map(sympy.sin),
    ),
    max_leaves=5,
)


def exact(text: str) -> Fraction:
    top, _, bottom = text.replace(r"\frac{", "").replace("}{", "/").replace("}", "").partition("/")
    return Fraction(top) / Fraction(bottom or 1)


@given(st.one_of(NUMBERS, EXPRESSIONS.map(sympy.latex), EXPRESSIONS.map(str)))
@settings(max_examples=150, deadline=None)
def test_everything_readable_equals_itself(text):
    check_gold(text)
    assert grade(text, text).equivalent is True
    assert grade(f"  ${text}$ ", text).equivalent is True


@given(st.text(max_size=60), st.sampled_from(["5", r"2\pi", "B", "x>3", "yes"]))
@settings(max_examples=300, deadline=None)
def test_any_text_gets_a_verdict(text, gold):
    assert grade(text, gold).equivalent in (True, False)


@given(NUMBERS, NUMBERS)
@settings(max_examples=200, deadline=None)
def test_numbers_are_symmetric_and_right(a, b):
    forward, backward = grade(a, b).equivalent, grade(b, a).equivalent
    assert forward is backward
    if exact(a) == exact(b):
        assert forward is True


@given(st.integers(-(10**15), 10**15), st.integers(1, 999), st.integers(0, 15))
@settings(max_examples=150, deadline=None)
def test_perturbed_numbers_fail(number, change, place):
    changed = number + change * 10 ** min(place, len(str(abs(number))) - 1)
    assert grade(str(changed), str(number)).equivalent is False
    scaled = Decimal(number).scaleb(-6)
    assert grade(f"{Decimal(changed).scaleb(-6):f}", f"{scaled:f}").equivalent is False


@given(EXPRESSIONS)
@settings(max_examples=100, deadline=None)
def test_rewrites_by_sympy_hold(expression):
    for rewritten in (sympy.expand(expression), sympy.factor(expression), sympy.together(expression)):
        assert grade(sympy.latex(rewritten), sympy.latex(expression)).equivalent is True
        assert grade(str(rewritten), sympy.latex(expression)).equivalent is True


@given(EXPRESSIONS, st.sampled_from([sympy.Integer(1), sympy.Rational(-1, 7), sympy.sqrt(3), x]))
@settings(max_examples=100, deadline=None)
def test_perturbed_expressions_fail(expression, change):
    assert grade(sympy.latex(expression + change), sympy.latex(expression)).equivalent is False
