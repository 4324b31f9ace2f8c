r"""The parts of LaTeX with a form of their own: `\begin{...}`, sums, products, integrals and limits."""

from typing import Protocol

from rewards.grading.parse.matrices import determinant
from rewards.grading.parse.tokens import Tokens
from rewards.grading.parse.tree import Node, Op, ParseError

BIG: dict[str, Op] = {"\\int": "integral", "\\sum": "sum", "\\prod": "product"}
_LINES = ("cases", "aligned", "align", "gathered")  # a row of these is an equation, no row of a matrix
ENVIRONMENTS = frozenset("matrix pmatrix bmatrix Bmatrix vmatrix smallmatrix array".split()) | frozenset(_LINES)


class Grammar(Protocol):
    """What this module needs of the parser: each method takes one part of that name (see `parser.Parser`)."""

    tokens: Tokens

    def sequence(self) -> Node: ...
    def relation(self) -> Node: ...
    def relation_group(self) -> Node: ...
    def sum(self) -> Node: ...
    def product(self) -> Node: ...
    def exponent(self) -> Node: ...
    def integrand(self) -> tuple[Node, str]: ...


def environment(grammar: Grammar) -> Node:
    r"""Takes what follows `\begin`: a matrix, or the lines of `cases` and the like as a bare list.

    Raises:
        ParseError: an unknown environment, one that does not end, or a matrix with rows of different lengths.
    """
    tokens = grammar.tokens
    name = tokens.raw_argument().rstrip("*")
    if name not in ENVIRONMENTS:
        raise ParseError(f"unknown environment {name!r}")
    if name == "array" and tokens.at("{"):
        tokens.raw_argument()
    rows = _rows(grammar, name in _LINES)
    if tokens.raw_argument().rstrip("*") != name:
        raise ParseError("an environment that does not end as it begins")
    if name in _LINES:
        return Node("bare", tuple(_one(row) for row in rows))
    if not rows or len({len(row.args) for row in rows}) != 1:
        raise ParseError("a matrix with rows of different lengths")
    matrix = Node("matrix", tuple(rows))
    return determinant(matrix) if name == "vmatrix" else matrix


def _rows(grammar: Grammar, lines: bool) -> list[Node]:
    r"""The rows up to `\end`, which is taken; cells are set apart by `&`, rows by `\\`."""
    tokens = grammar.tokens
    rows: list[Node] = []
    row: list[Node] = []
    while not tokens.at("\\end"):
        if tokens.at("&", "\\\\"):
            raise ParseError("an empty cell")
        row.append(grammar.sequence() if lines else grammar.relation())
        while tokens.at(",", ";"):
            tokens.take()
        if not tokens.at("&"):
            rows.append(Node("row", tuple(row)))
            row = []
        if tokens.at("&", "\\\\"):
            tokens.take()
    tokens.take()
    if row:
        raise ParseError("a row that ends with &")
    return rows


def _one(row: Node) -> Node:
    return row.args[0] if len(row.args) == 1 else Node("bare", row.args)


def big_operator(grammar: Grammar, op: Op) -> Node:
    """Takes what follows an integral, sum or product sign (`op`): its limits, then its body.

    Raises:
        ParseError: a limit or the variable is missing.
    """
    tokens = grammar.tokens
    low = high = None
    variable = ""
    while tokens.at("_", "^"):
        if tokens.take().text == "^":
            high = grammar.exponent()
            continue
        low = grammar.relation_group()
        if low.op == "relation":
            bound, low = low.args[0], low.args[1]
            variable = bound.name or (str(bound.value) if bound.value else "")
    if op == "integral":
        body, variable = grammar.integrand()
    else:
        body = grammar.sum()
    if variable and low is not None and high is not None:
        return Node(op, (body, low, high), variable)
    if op == "integral" and low is None and high is None:
        return Node(op, (body,), variable)
    raise ParseError(f"an incomplete {op}")


def limit(grammar: Grammar) -> Node:
    r"""Takes what follows `\lim`: `_{x \to a}` or `_{x \to a^+}`, then its body. ParseError: it is something else."""
    tokens = grammar.tokens
    tokens.expect("_")
    tokens.expect("{")
    variable = tokens.take().text
    tokens.expect("\\to", "\\rightarrow")
    point = grammar.sum()
    side = tokens.peek().text if tokens.at("^") and tokens.peek().text in ("+", "-") else ""
    tokens.position += 2 if side else 0
    tokens.expect("}")
    return Node("limit", (grammar.product(), point, Node("symbol", name=side)), variable)
