"""Values of trees: exact rationals, and numbers of 40 digits at given points. Bounded: nothing here can hang.

A number's size is checked before it is computed: towers and factorials raise TooBigError in microseconds.
"""

import math
import threading
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import mpmath
from mpmath.libmp import NoConvergence

from rewards.grading.parse.tree import Node, TooBigError

MAX_BITS = 60_000  # of an exact number: about 18,000 digits
MAX_FACTORIAL = 3000
MAX_LOG = 1e6  # of a floating number: |ln x|
DIGITS = 40

_local = threading.local()


class UndefinedError(ValueError):
    """The tree has no value: a division by zero, an infinite one, or an operation that is no function of numbers."""


def exact(node: Node) -> Fraction | None:
    """The value of a constant tree; None where it is not rational, or not by arithmetic alone.

    Raises:
        UndefinedError: a division by zero.
        TooBigError: a number within it has over MAX_BITS bits.
    """
    if node.value is not None:
        return node.value
    if node.op in ("symbol", "constant", "degree") or node.op not in _EXACT:
        return None
    values = []
    for arg in node.args:
        value = exact(arg)
        if value is None:
            return None
        values.append(value)
    result = _EXACT[node.op](node, values)
    if result is not None and max(result.numerator.bit_length(), result.denominator.bit_length()) > MAX_BITS:
        raise TooBigError("an exact number of too many digits")
    return result


def _exact_div(node: Node, values: list[Fraction]) -> Fraction:
    if values[1] == 0:
        raise UndefinedError("a division by zero")
    return values[0] / values[1]


def _exact_pow(node: Node, values: list[Fraction]) -> Fraction | None:
    base, exponent = values
    if base == 0 and exponent < 0:
        raise UndefinedError("a division by zero")
    if base in (0, 1) and exponent > 0:
        return base
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if abs(exponent) * bits > MAX_BITS:
        raise TooBigError("a power of too many digits")
    if exponent.denominator == 1:
        return base ** int(exponent)
    if base < 0 or exponent.denominator > 64:
        return None
    top, bottom = (_root(part, exponent.denominator) for part in (base.numerator, base.denominator))
    return None if top is None or bottom is None else Fraction(top, bottom) ** exponent.numerator


def _root(value: int, degree: int) -> int | None:
    """The integer root of a perfect power, else None."""
    if degree == 2:
        root = math.isqrt(value)
        return root if root * root == value else None
    if value.bit_length() > 1000:
        return None
    root = round(value ** (1 / degree)) if value.bit_length() < 900 else 0
    return next((r for r in (root - 1, root, root + 1) if r >= 0 and r**degree == value), None)


def _exact_function(node: Node, values: list[Fraction]) -> Fraction | None:
    name, integers = node.name, all(value.denominator == 1 for value in values)
    if name == "abs":
        return abs(values[0])
    if name in ("floor", "ceil"):
        return Fraction(math.floor(values[0]) if name == "floor" else math.ceil(values[0]))
    if name in ("max", "min"):
        return max(values) if name == "max" else min(values)
    if name == "factorial" and integers and values[0] >= 0:
        if values[0] > MAX_FACTORIAL:
            raise TooBigError("a factorial of too many digits")
        return Fraction(math.factorial(int(values[0])))
    if name == "binom" and integers and 0 <= values[1]:
        if values[0] > MAX_FACTORIAL:
            raise TooBigError("a binomial of too many digits")
        return Fraction(math.comb(int(values[0]), int(values[1]))) if values[0] >= 0 else None
    if name in ("gcd", "lcm") and integers:
        return Fraction((math.gcd if name == "gcd" else math.lcm)(*map(int, values)))
    return None


_EXACT = {
    "add": lambda node, values: sum(values, Fraction(0)),
    "mul": lambda node, values: math.prod(values, start=Fraction(1)),
    "div": _exact_div,
    "pow": _exact_pow,
    "percent": lambda node, values: values[0] / 100,
    "function": _exact_function,
}


def context(digits: int = DIGITS) -> Any:
    """This thread's mpmath context, set to so many decimal digits: its precision is state."""
    if not hasattr(_local, "context"):
        _local.context = mpmath.ctx_mp.MPContext()
    _local.context.dps = digits
    return _local.context


def numeric(node: Node, point: Mapping[str, Fraction], ctx: Any) -> Any:
    """The value of a scalar tree where its symbols have the values of `point`: a real or complex number of `ctx`.

    mpmath has no types, hence Any.

    Raises:
        UndefinedError: no finite value there, or an operation (integral, limit) that only sympy knows.
        TooBigError: beyond MAX_LOG, or a factorial beyond MAX_FACTORIAL.
    """
    if node.value is not None:
        return ctx.mpf(node.value.numerator) / node.value.denominator
    if node.op == "symbol":
        if node.name not in point:
            raise UndefinedError(f"{node.name} has no value")
        return ctx.mpf(point[node.name].numerator) / point[node.name].denominator
    if node.op == "constant":
        return _constant(node.name, ctx)
    values = [numeric(arg, point, ctx) for arg in node.args]
    try:
        result = _NUMERIC[node.op](node, values, ctx) if node.op in _NUMERIC else _unknown(node)
    except (ArithmeticError, ValueError, TypeError, NotImplementedError, NoConvergence) as error:
        if isinstance(error, (TooBigError, UndefinedError)):
            raise
        raise UndefinedError(str(error)) from error
    if not (ctx.isfinite(result)):
        raise UndefinedError("no finite value")
    if abs(result) > ctx.exp(MAX_LOG):
        raise TooBigError("a number of too many digits")
    return result


def _unknown(node: Node):
    raise UndefinedError(f"no number: {node.op}")


def _constant(name: str, ctx):
    if name == "infinity":
        raise UndefinedError("infinity")
    return {"pi": +ctx.pi, "e": +ctx.e, "i": ctx.mpc(0, 1)}[name]


def _power(node: Node, values: list, ctx):
    base, exponent = values
    if base == 0:
        if ctx.re(exponent) <= 0 and exponent != 0:
            raise UndefinedError("a division by zero")
        return ctx.mpf(exponent == 0)
    if abs(exponent) * (abs(ctx.log(abs(base))) + 4) > MAX_LOG:
        raise TooBigError("a power of too many digits")
    return base**exponent


def _function(node: Node, values: list, ctx):
    name = node.name
    if name.endswith("()"):
        return _unknown_function(name, values, ctx)
    if any(abs(value) > 1e12 for value in values) and name not in ("abs", "log", "floor", "ceil", "sign", "max", "min"):
        raise TooBigError(f"{name} of a number that large")
    if name in ("factorial", "binom") and any(abs(value) > MAX_FACTORIAL for value in values):
        raise TooBigError(f"{name} of a number that large")
    if name in ("sinh", "cosh", "tanh", "coth") and abs(values[0]) > MAX_LOG:
        raise TooBigError(f"{name} of a number that large")
    if name == "log":
        if values[0] == 0 or (len(values) > 1 and values[1] in (0, 1)):
            raise UndefinedError("the logarithm of 0")
        return ctx.log(values[0]) / (ctx.log(values[1]) if len(values) > 1 else 1)
    function = _FUNCTIONS.get(name)
    if function is None:
        raise UndefinedError(f"no numeric {name}")
    return function(ctx, *values)


def _unknown_function(name: str, values: list, ctx):
    """f(x) stands for an arbitrary function: some number that depends on the name and every argument."""
    seed = sum((index + 2) * ord(letter) for index, letter in enumerate(name))
    return sum((ctx.sin((index + 1) * value + seed) for index, value in enumerate(values)), ctx.mpf(2))


def _of_context(name: str):
    return lambda ctx, x: getattr(ctx, name)(x)


_RENAMED = {"arcsin": "asin", "arccos": "acos", "arctan": "atan", "arccot": "acot", "arcsec": "asec", "arccsc": "acsc"}
_RENAMED |= {"arcsinh": "asinh", "arccosh": "acosh", "arctanh": "atanh", "binom": "binomial", "sign": "sign"}
_SAME = "sin cos tan cot sec csc sinh cosh tanh coth factorial floor ceil erf gamma Gamma arg".split()
_FUNCTIONS = {name: _of_context(_RENAMED.get(name, name.lower())) for name in [*_SAME, *_RENAMED]}
_FUNCTIONS |= {
    "abs": lambda ctx, x: abs(x),
    "radians": lambda ctx, x: x,
    "Re": lambda ctx, x: ctx.re(x),
    "Im": lambda ctx, x: ctx.im(x),
    "max": lambda ctx, *xs: max(xs),
    "min": lambda ctx, *xs: min(xs),
}
_NUMERIC = {
    "add": lambda node, values, ctx: sum(values[1:], values[0]),
    "mul": lambda node, values, ctx: math.prod(values[1:], start=values[0]),
    "div": lambda node, values, ctx: values[0] / values[1],
    "pow": _power,
    "percent": lambda node, values, ctx: values[0] / 100,
    "degree": lambda node, values, ctx: values[0] * ctx.pi / 180,
    "function": _function,
}
