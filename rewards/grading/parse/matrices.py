"""Matrices: their notations as one, and sums and products of written-out ones."""

import functools

from rewards.grading.parse.tree import Node, is_scalar, negative, walk

MAX_NODES = 2000  # of a factor: each product multiplies the size of the entries


def has_matrix(node: Node) -> bool:
    """Is there a matrix in the tree?"""
    return any(part.op == "matrix" for part in walk(node))


def as_matrix(node: Node) -> Node:
    """The matrix that a list of lists or a matrix in brackets is; any other tree as it is."""
    while node.op in ("list", "tuple", "set") and len(node.args) == 1 and has_matrix(node):
        node = node.args[0]
    rows = node.args if node.op in ("list", "interval", "tuple", "bare") else ()
    if rows and all(row.op in ("list", "interval") for row in rows) and len({len(row.args) for row in rows}) == 1:
        return Node("matrix", tuple(Node("row", row.args) for row in rows))
    return node


def vector(matrix: Node) -> tuple[Node, ...] | None:
    """The entries of a matrix with a single row or column; None: it has several of both."""
    if len(matrix.args) == 1:
        return matrix.args[0].args
    return tuple(row.args[0] for row in matrix.args) if len(matrix.args[0].args) == 1 else None


def determinant(matrix: Node) -> Node:
    """The determinant of a matrix: written out up to 3 × 3, else as a function that only sympy knows."""
    rows = [row.args for row in matrix.args]
    if not 1 <= len(rows) == len(rows[0]) <= 3:
        return Node("function", (matrix,), "det")
    return _expansion(rows)


def _expansion(rows: list[tuple[Node, ...]]) -> Node:
    """The determinant, expanded along the first row."""
    if len(rows) == 1:
        return rows[0][0]
    terms = []
    for column, entry in enumerate(rows[0]):
        minor = [row[:column] + row[column + 1 :] for row in rows[1:]]
        term = Node("mul", (entry, _expansion(minor)))
        terms.append(negative(term) if column % 2 else term)
    return functools.reduce(lambda x, y: Node("add", (x, y)), terms)


def computed(node: Node) -> Node:
    """Sums, products and multiples of matrices as one matrix; the tree itself where they do not fit."""
    if node.op not in ("add", "mul", "div") or not has_matrix(node):
        return node
    if len(node.args) > 2:
        return functools.reduce(lambda x, y: computed(Node(node.op, (x, y))), node.args)
    left, right = (computed(arg) for arg in node.args)
    if left.op == right.op == "matrix":
        return (_sum if node.op == "add" else _product)(left, right) if node.op != "div" else node
    scalar, matrix = (left, right) if right.op == "matrix" else (right, left)
    if node.op == "add" or matrix.op != "matrix" or not is_scalar(scalar) or (node.op == "div" and matrix is right):
        return node
    entry = (lambda x: Node("div", (x, scalar))) if node.op == "div" else (lambda x: Node("mul", (scalar, x)))
    return Node("matrix", tuple(Node("row", tuple(map(entry, row.args))) for row in matrix.args))


def _sum(a: Node, b: Node) -> Node:
    if len(a.args) != len(b.args) or len(a.args[0].args) != len(b.args[0].args):
        return Node("add", (a, b))
    pairs = [zip(x.args, y.args, strict=True) for x, y in zip(a.args, b.args, strict=True)]
    return Node("matrix", tuple(Node("row", tuple(Node("add", pair) for pair in row)) for row in pairs))


def _product(a: Node, b: Node) -> Node:
    if len(a.args[0].args) != len(b.args) or any(sum(1 for _ in walk(factor)) > MAX_NODES for factor in (a, b)):
        return Node("mul", (a, b))
    columns = list(zip(*(row.args for row in b.args), strict=True))
    return Node("matrix", tuple(Node("row", tuple(_dot(row.args, column) for column in columns)) for row in a.args))


def _dot(a: tuple[Node, ...], b: tuple[Node, ...]) -> Node:
    total = Node("mul", (a[0], b[0]))
    for x, y in zip(a[1:], b[1:], strict=True):
        total = Node("add", (total, Node("mul", (x, y))))
    return total
