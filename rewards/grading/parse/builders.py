"""Trees of what the parser has read: numerals, repeating decimals, bracketed lists, functions by their names."""

import re
from fractions import Fraction

from rewards.grading.parse.tree import Node, ParseError, number

MAX_DIGITS = 4100  # of a number written out: Python shows up to 4300, and percent signs add some

SPELLINGS = {
    **{"tg": "tan", "ctg": "cot", "arctg": "arctan", "asin": "arcsin", "acos": "arccos", "atan": "arctan"},
    **{"asinh": "arcsinh", "acosh": "arccosh", "atanh": "arctanh", "log": "log", "lg": "lg", "Abs": "abs"},
    **{"ceiling": "ceil", "sgn": "sign", "binomial": "binom"},
}
INVERSES = {"sin": "arcsin", "cos": "arccos", "tan": "arctan", "cot": "arccot", "sec": "arcsec", "csc": "arccsc"}
INVERSES |= {"sinh": "arcsinh", "cosh": "arccosh", "tanh": "arctanh"}


def numeral(text: str) -> Node:
    """The number that `12`, `.5`, `1.50` or `3e8` is: its exact value and, of a decimal, its significant digits.

    Raises:
        ParseError: it has more than MAX_DIGITS digits when written out.
    """
    mantissa, _, exponent = text.lower().partition("e")
    if len(exponent) > 5 or len(mantissa) + abs(int(exponent or 0)) > MAX_DIGITS:
        raise ParseError("a number of too many digits")
    digits = len(mantissa.replace(".", "").lstrip("0")) if "." in mantissa or exponent.startswith("-") else 0
    return number(Fraction(text if not text.endswith(".") else text[:-1]), digits)


def repeating(start: str, period: str) -> Node:
    r"""The number that a decimal and its period are: `0.1\overline{6}` is 1/6. ParseError: the period is no digits."""
    if not re.fullmatch("[0-9]{1,50}", period):
        raise ParseError("a repeating decimal whose period is no digits")
    shift = 10 ** len(start.partition(".")[2])
    return number(Fraction(start.rstrip(".")) + Fraction(int(period), shift * (10 ** len(period) - 1)))


def bracketed(inside: Node, opener: str, closer: str) -> Node:
    """What round and square brackets make of what they hold: an interval, a tuple, a list, or just the same."""
    if inside.op == "bare" and len(inside.args) == 2 and opener + closer != "()":
        return Node("interval", inside.args, opener + closer)
    if inside.op == "bare":
        return Node("tuple" if opener == "(" else "list", inside.args)
    return Node("list", (inside,)) if opener == "[" else inside


_ARITIES = {"log": (1, 2), "binom": (2, 2), **dict.fromkeys(("gcd", "lcm", "max", "min"), (1, 50))}


def applied(name: str, arguments: tuple[Node, ...]) -> Node:
    """The function `name` of its arguments; exp, sqrt and cbrt as powers, ln and lg as logarithms.

    Raises:
        ParseError: too few or too many arguments for this function.
    """
    least, most = _ARITIES.get(name, (1, 1))
    if not least <= len(arguments) <= most:
        raise ParseError(f"{name} of {len(arguments)} arguments")
    if name == "exp" and len(arguments) == 1:
        return Node("pow", (Node("constant", name="e"), arguments[0]))
    if name == "sqrt" or name == "cbrt":
        return Node("pow", (arguments[0], Node("div", (number(1), number(2 if name == "sqrt" else 3)))))
    if name == "lg":
        return Node("function", (arguments[0], number(10)), "log")
    if name == "ln":
        return Node("function", arguments, "log")
    return Node("function", arguments, name)
