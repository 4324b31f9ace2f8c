"""Answers as trees: what the parser makes and every later tier reads. Nothing in a tree can be executed."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction


class ParseError(ValueError):
    """The text is not mathematics that this grammar covers."""


class TooBigError(ValueError):
    """The value is beyond the limits on digits, exponents or factorials."""


@dataclass(frozen=True, slots=True)
class Node:
    """One operation on `args`. `value` is a Fraction for "number" and a name for "symbol", "function" and "relation".

    Operations: number, symbol, constant (pi, e, i, infinity), add, mul, div, pow, function, percent, degree, base;
    integral, sum, product, limit; tuple, list, set, bare (1, 2), interval, union, intersection, difference, matrix,
    row, relation, ratio, pm, mp.
    `digits`: significant digits of a number written as a decimal, 0 for an exact one.
    """

    op: str
    args: tuple["Node", ...] = ()
    value: Fraction | str | None = None
    digits: int = 0


SEQUENCES = frozenset({"tuple", "list", "set", "bare"})
NOT_SCALAR = SEQUENCES | {"interval", "union", "intersection", "difference", "matrix", "relation", "ratio", "base"}


def number(value: int | Fraction, digits: int = 0) -> Node:
    return Node("number", value=Fraction(value), digits=digits)


def negative(node: Node) -> Node:
    if node.op == "number":
        return Node("number", value=-node.value, digits=node.digits)
    return Node("mul", (number(-1), *(node.args if node.op == "mul" else (node,))))


def walk(node: Node) -> Iterator[Node]:
    yield node
    for arg in node.args:
        yield from walk(arg)


def depth(node: Node) -> int:
    """Levels of operations; without recursion, as this guards it."""
    levels, layer = 0, [node]
    while layer:
        levels += 1
        layer = [arg for part in layer for arg in part.args]
    return levels


def symbols(node: Node) -> frozenset[str]:
    """Names of the free symbols; the variable bound by a sum, integral or limit is not one of them."""
    if node.op == "symbol":
        return frozenset({node.value})
    names = frozenset().union(*(symbols(arg) for arg in node.args))
    return names - {node.value} if node.op in ("integral", "sum", "product", "limit") else names


def is_scalar(node: Node) -> bool:
    return not any(part.op in NOT_SCALAR for part in walk(node))


def show(node: Node) -> str:
    """A canonical text of a tree, for people."""
    if node.op == "number":
        return str(node.value)
    if node.op in ("symbol", "constant"):
        return node.value
    inside = [show(arg) for arg in node.args]
    if node.op in ("add", "mul", "div", "pow"):
        sign = {"add": " + ", "mul": "*", "div": "/", "pow": "^"}[node.op]
        return "(" + sign.join(inside) + ")"
    if node.op == "relation":
        return f"{inside[0]} {node.value} {inside[1]}"
    if node.op == "interval":
        return f"{node.value[0]}{inside[0]}, {inside[1]}{node.value[1]}"
    brackets = {"set": "{}", "list": "[]"}.get(node.op, "()")
    name = node.value if node.op == "function" else "" if node.op in SEQUENCES else node.op
    return f"{name}{brackets[0]}{', '.join(inside)}{brackets[1]}"
