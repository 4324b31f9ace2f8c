"""Vectors as sums of unit vectors: 3i - 2j + k is (3, -2, 1)."""

from rewards.grading.parse import matrices
from rewards.grading.parse.tree import Node, is_scalar, symbols

_UNIT_VECTORS = ("i", "j", "k")


def in_unit_vectors(components: Node, total: Node) -> tuple[Node, Node] | None:
    """A vector and a sum of unit vectors as two sums with symbols i, j and k; None: they are no such pair.

    Args:
        components: a tuple, a list of three, or a row or column matrix.
        total: a formula with a j or k, of which an i counts as a unit vector, too.
    """
    if not is_scalar(total) or not symbols(total) & {"j", "k"}:
        return None
    if components.op == "matrix":
        parts = matrices.vector(components)
    else:
        parts = (
            components.args
            if components.op == "tuple" or (components.op, len(components.args)) == ("list", 3)
            else None
        )
    if parts is None or not 2 <= len(parts) <= 3 or not all(is_scalar(part) for part in parts):
        return None
    units = [Node("symbol", name=name) for name in _UNIT_VECTORS]
    return Node("add", tuple(Node("mul", pair) for pair in zip(parts, units, strict=False))), _without_i(total)


def _without_i(node: Node) -> Node:
    if node.op == "constant" and node.name == "i":
        return Node("symbol", name="i")
    return Node(node.op, tuple(_without_i(arg) for arg in node.args), node.name, node.value, node.digits)
