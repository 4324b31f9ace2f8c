"""Answers as trees: what the parser makes and every later tier reads. Nothing in a tree can be executed."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

Op = Literal[
    "number",
    "symbol",
    "constant",  # pi, e, i, infinity
    "add",
    "mul",
    "div",
    "pow",
    "function",
    "percent",
    "degree",
    "base",  # a literal in another base, such as 204_5: compared as text
    "integral",
    "sum",
    "product",
    "limit",
    "tuple",
    "list",
    "set",
    "bare",  # members without brackets: 1, 2
    "interval",
    "union",
    "intersection",
    "difference",
    "matrix",
    "row",
    "relation",
    "ratio",
    "remainder",  # quotient and remainder of a division
    "residue",  # a number and its modulus
    "pm",
    "mp",
]
SEQUENCES: frozenset[Op] = frozenset({"tuple", "list", "set", "bare"})
_SETS_AND_MORE: frozenset[Op] = frozenset(
    {"interval", "union", "intersection", "difference", "matrix", "relation", "ratio", "base", "remainder", "residue"}
)
NOT_SCALAR = SEQUENCES | _SETS_AND_MORE
_INFIX: dict[Op, str] = {"add": " + ", "mul": "*", "div": "/", "pow": "^"}


class ParseError(ValueError):
    """The text is not mathematics that the grammar covers."""


class TooBigError(ValueError):
    """The value is beyond the limits on digits, exponents or factorials."""


@dataclass(frozen=True, slots=True)
class Node:
    """One operation `op` on the trees `args`.

    `name` says which symbol, constant, function, relation (`<=`, `and` for a chain) or literal in another base it is;
    of an interval it is both brackets; of a ratio "am", "pm" or "clock" where it is a time; of an integral, sum,
    product or limit the bound variable; else "".
    `value` is the exact value of a number, and None for every other operation. `digits` are the significant digits of
    a number written as a decimal, 0 for an exact one.
    """

    op: Op
    args: tuple["Node", ...] = ()
    name: str = ""
    value: Fraction | None = None
    digits: int = 0


def number(value: int | Fraction, digits: int = 0) -> Node:
    """The tree of a number; `digits`: the significant digits it was written with as a decimal."""
    return Node("number", value=Fraction(value), digits=digits)


def negative(node: Node) -> Node:
    """The tree of -node."""
    if node.value is not None:
        return Node("number", value=-node.value, digits=node.digits)
    return Node("mul", (number(-1), *(node.args if node.op == "mul" else (node,))))


def walk(node: Node) -> Iterator[Node]:
    """The node and everything below it, parents first."""
    yield node
    for arg in node.args:
        yield from walk(arg)


def depth(node: Node) -> int:
    """Levels of operations. It does not recurse, as it is what guards recursion."""
    levels, layer = 0, [node]
    while layer:
        levels += 1
        layer = [arg for part in layer for arg in part.args]
    return levels


def symbols(node: Node) -> frozenset[str]:
    """Names of the free symbols; the variable bound by a sum, integral or limit is not one of them."""
    if node.op == "symbol":
        return frozenset({node.name})
    names = frozenset[str]().union(*(symbols(arg) for arg in node.args))
    return names - {node.name} if node.op in ("integral", "sum", "product", "limit") else names


def is_scalar(node: Node) -> bool:
    """Does the tree stand for one number: no list, set, interval, matrix, relation or ratio in it?"""
    return not any(part.op in NOT_SCALAR for part in walk(node))


def show(node: Node) -> str:
    """A canonical text of a tree, for people."""
    if node.value is not None:
        return str(node.value)
    if node.op in ("symbol", "constant"):
        return node.name
    inside = [show(arg) for arg in node.args]
    if node.op in _INFIX:
        return "(" + _INFIX[node.op].join(inside) + ")"
    if node.op == "relation":
        return f"{inside[0]} {node.name} {inside[1]}"
    if node.op == "interval":
        return f"{node.name[0]}{inside[0]}, {inside[1]}{node.name[1]}"
    brackets = {"set": "{}", "list": "[]"}.get(node.op, "()")
    name = node.name if node.op == "function" else "" if node.op in SEQUENCES else node.op
    return f"{name}{brackets[0]}{', '.join(inside)}{brackets[1]}"
