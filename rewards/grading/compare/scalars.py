"""Are two scalar trees equal? Exact rationals, then values at fixed points; what neither settles is left to sympy.

Two expressions that agree to 30 digits at six unrelated points are taken as equal; a difference at one point where both
are defined and real refutes. Variables are real: points where a side is not real are skipped (so √(1/n) ~ 1/√n), unless
no point is real or an i is written.
"""

import math
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from typing import Any

from rewards.grading.compare.evaluate import DIGITS, UndefinedError, context, exact, numeric
from rewards.grading.compare.policy import Policy
from rewards.grading.parse.tree import Node, TooBigError, number, symbols, walk

_FOR_SYMPY = frozenset({"integral", "sum", "product", "limit", "function"})
MAX_WHOLE_DIGITS = 3000
POINTS = 14
SMALL = (4, 8)  # points close to 0, where a constant beside a high power shows
ENOUGH = 5  # points that must agree
_SEEDS = [Fraction(p, q) for p, q in ((37, 53), (149, 101), (263, 97), (701, 89), (17, 61), (1103, 311), (83, 71))]


def magnitude_refuses(node: Node) -> bool:
    """Is this tree, where it is constant, beyond the size limits, so that no later tier may touch it?"""
    try:
        exact(node)
        if not symbols(node):
            numeric(node, {}, context())
    except TooBigError:
        return True
    except UndefinedError:
        return False
    return False


def same_value(a: Node, b: Node, policy: Policy) -> bool | None:
    """Have two scalar trees the same value under the policy on rounding? None: numbers do not decide it.

    Raises:
        TooBigError: a side is beyond the limits on size.
    """
    left, right = rational(a), rational(b)
    if left is not None and right is not None:
        return left == right or rounds_to(left, digits_of(a), right, digits_of(b), policy)
    names = symbols(a) | symbols(b)
    if not names:
        return _same_constant(a, b, policy)
    if symbols(a) != symbols(b) and not (_could_cancel(a) or _could_cancel(b)):
        return False
    return _same_at_points(a, b, sorted(names))


def same_when_rounded(a: Node, b: Node, places: int) -> bool | None:
    """Are two constants the same number, rounded half up to so many places? None: a side is no real constant.

    Raises:
        TooBigError: a side is beyond the limits on size.
    """
    values, ctx = [], context()
    for node in (a, b):
        if symbols(node):
            return None
        try:
            value = numeric(node, {}, ctx)
        except UndefinedError:
            return None
        if ctx.im(value) != 0:
            return None
        written = rational(node)
        scaled = written * 10**places if written is not None else ctx.re(value) * ctx.mpf(10) ** places
        half = Fraction(1, 2) if written is not None else ctx.mpf(1) / 2
        whole = math.floor(abs(scaled) + half) if written is not None else int(ctx.floor(abs(scaled) + half))
        values.append(whole if scaled >= 0 else -whole)
    return values[0] == values[1]


@lru_cache(maxsize=16384)
def rational(node: Node) -> Fraction | None:
    """The rational value of a constant tree; None: it has none. TooBigError: it is beyond the limits on size."""
    try:
        return exact(node)
    except UndefinedError:
        return None


def computed(node: Node) -> Fraction | None:
    """The rational value of a constant tree; None: it has none, or one that is beyond the limits on size."""
    try:
        return rational(node)
    except TooBigError:
        return None


def digits_of(node: Node) -> int:
    """The significant digits of a plain decimal such as 0.333 or -3.14; 0: it is an exact form or a computed one."""
    if node.op == "percent" or (node.op == "mul" and len(node.args) == 2 and node.args[0] == number(-1)):
        return digits_of(node.args[-1])
    return node.digits if node.op == "number" else 0


def rounds_to(a: Fraction, a_digits: int, b: Fraction, b_digits: int, policy: Policy) -> bool:
    """Is the decimal with fewer digits the other value, rounded or cut off?

    `a_digits` and `b_digits` are the significant digits as written, 0 for an exact value; a decimal of ten digits or
    more counts as exact, too. The policy says from how many digits a decimal may stand for an exact value.
    """
    least = policy.rounded_digits
    if not least or a == b:
        return a == b
    for value, value_digits, other, digits in ((a, a_digits, b, b_digits), (b, b_digits, a, a_digits)):
        exact_form = (value_digits == 0 and value.denominator > 1) or value_digits >= 10
        if exact_form and digits >= least and (not value_digits or digits < value_digits):
            if abs(value - other) < last_place(other, digits):
                return True
    if max(a_digits, b_digits) >= 16 and min(a_digits, b_digits) < 15:  # 0.30000000000000004 and 0.3
        return abs(a - b) <= max(abs(a), abs(b)) * Fraction(1, 10**14)
    return False


def last_place(value: Fraction, digits: int) -> Fraction:
    """The worth of the last of `digits` significant digits of `value`: 0.01 for 2.50 with three."""
    exponent = len(str(abs(value.numerator))) - len(str(value.denominator))
    if abs(value) < Fraction(10) ** exponent:
        exponent -= 1
    return Fraction(10) ** (exponent - digits + 1)


def _could_cancel(node: Node) -> bool:
    """Can a symbol drop out (x - x, x/x, 0·x)? Then different symbols prove nothing."""
    counts = [part.name for part in walk(node) if part.op == "symbol"]
    return len(counts) != len(set(counts)) or any(part.value == 0 for part in walk(node))


def _same_constant(a: Node, b: Node, policy: Policy) -> bool | None:
    try:
        ctx = context()
        left, right = numeric(a, {}, ctx), numeric(b, {}, ctx)
        if _close(left, right, ctx):
            return abs(left) < 10**8 or _close_beyond_the_point(a, b, int(ctx.log10(abs(left))))
    except UndefinedError:
        # A value that does not exist (1/0) equals nothing; what has no number here may have one for sympy
        return None if any(part.op in _FOR_SYMPY for tree in (a, b) for part in walk(tree)) else False
    return _rounded_constant(a, left, right, policy) or _rounded_constant(b, right, left, policy)


def _close_beyond_the_point(a: Node, b: Node, whole_digits: int) -> bool:
    """π^100 and π^100 + 1 differ in the 50th digit: large values are compared to 20 digits after the point."""
    if whole_digits > MAX_WHOLE_DIGITS:
        return False
    ctx = context(whole_digits + DIGITS)
    left, right = numeric(a, {}, ctx), numeric(b, {}, ctx)
    context()
    return abs(left - right) <= ctx.mpf(10) ** -20


def _rounded_constant(decimal: Node, value: Any, exact_value: Any, policy: Policy) -> bool:
    """3.1416 for π, under the policy."""
    digits = digits_of(decimal)
    if not policy.rounded_digits or digits < policy.rounded_digits:
        return False
    ctx, written = context(), rational(decimal)
    if written is None or ctx.im(exact_value) != 0:
        return False
    place = last_place(written, min(digits, 15))
    return abs(value - exact_value) < ctx.mpf(place.numerator) / place.denominator


def _close(left: Any, right: Any, ctx: Any) -> bool:
    return abs(left - right) <= ctx.mpf(10) ** -30 * (1 if left == right else max(abs(left), abs(right)))


def points(names: list[str]) -> Iterator[dict[str, Fraction]]:
    """POINTS fixed points, as a value for each name: positive ones within and beyond 1, then ones with every sign."""
    for nth in range(POINTS):
        signs = 1 if nth < 5 else -1
        point = {}
        for index, name in enumerate(names):
            seed = _SEEDS[(nth + 2 * index) % len(_SEEDS)] + Fraction(index * 7 + nth, 29)
            seed /= 50 if nth in SMALL else 1
            point[name] = seed * (signs if (index + nth) % 2 or nth > 8 else 1)
        yield point


def _same_at_points(a: Node, b: Node, names: list[str]) -> bool | None:
    ctx = context()
    complex_wanted = any(part.op == "constant" and part.name == "i" for tree in (a, b) for part in walk(tree))
    agreed = agreed_complex = 0
    differed_complex = False
    for point in points(names):
        try:
            left, right = numeric(a, point, ctx), numeric(b, point, ctx)
        except UndefinedError:
            continue
        real = abs(ctx.im(left)) <= ctx.mpf(10) ** -30 * abs(left) and abs(ctx.im(right)) <= ctx.mpf(10) ** -30 * abs(
            right
        )
        same = _close(left, right, ctx)
        if real or complex_wanted:
            if not same:
                return False
            agreed += 1
        else:
            agreed_complex += same
            differed_complex |= not same
    if agreed >= ENOUGH or (agreed >= 2 and agreed + agreed_complex >= ENOUGH):
        return True
    if agreed == 0 and differed_complex:
        return False
    return True if agreed_complex >= ENOUGH and not differed_complex else None
