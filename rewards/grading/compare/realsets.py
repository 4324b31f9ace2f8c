"""Sets of real numbers with constant ends: unions of intervals and points, compared end by end."""

from collections.abc import Callable
from typing import Any

from rewards.grading.compare.evaluate import UndefinedError, context, numeric
from rewards.grading.compare.reshape import as_interval, is_absolute
from rewards.grading.parse.tree import Node, negative, symbols

Piece = tuple[Node, bool, Node, bool]  # low end, closed, high end, closed
_TOP = Node("constant", name="infinity")


class NotASetError(ValueError):
    """The tree is no union of intervals and points with constant ends."""


def pieces(node: Node) -> list[Piece]:
    """The disjoint pieces of a set of reals from low to high, adjacent ones joined.

    Raises:
        NotASetError: `node` is no union of intervals and points with constant ends.
        TooBigError: an end is beyond the limits on size.
    """
    return _joined(_pieces(node))


def _pieces(node: Node) -> list[Piece]:
    if node.op == "interval" or (node.op == "tuple" and len(node.args) == 2):
        brackets = node.name or "()"
        return [(node.args[0], brackets[0] == "[", node.args[1], brackets[1] == "]")]
    if node.op == "union":
        return [piece for arg in node.args for piece in _pieces(arg)]
    if node.op == "symbol" and node.name == "mathbb R":
        return [(negative(_TOP), False, _TOP, False)]
    if node.op == "set" and node.args and all(arg.op == "relation" for arg in node.args):
        return _alternatives(node)
    if node.op == "set":
        return [(arg, True, arg, True) for arg in node.args]
    if node.op == "difference":
        return _without_points(_joined(_pieces(node.args[0])), node.args[1])
    if node.op == "bare":
        return _alternatives(node)
    found = as_interval(node)
    if found is None:
        raise NotASetError
    quantity, interval = found
    return _mirrored(_pieces(interval)) if is_absolute(quantity) else _pieces(interval)


def _mirrored(of_absolute: list[Piece]) -> list[Piece]:
    """The x whose |x| lies in the pieces."""
    both = []
    for low, low_closed, high, high_closed in of_absolute:
        if height(high) < 0:
            continue
        if height(low) < 0:
            both.append((negative(high), high_closed, high, high_closed))
        else:
            both += [(negative(high), high_closed, negative(low), low_closed), (low, low_closed, high, high_closed)]
    return both


def _alternatives(node: Node) -> list[Piece]:
    """`x < 1 or x > 3`: a union; `x > 1 and x < 3`, whose union would be everything: what both say; without x ≠ 2."""
    found = [named for arg in node.args if (named := as_interval(arg)) is not None]
    if len(found) < len(node.args) or len({quantity for quantity, _ in found}) != 1:
        raise NotASetError
    removed = tuple(interval.args[0].args[1] for _, interval in found if interval.op == "union")
    if removed:
        rest = tuple(arg for arg, (_, interval) in zip(node.args, found, strict=True) if interval.op != "union")
        whole = _pieces(Node("bare", rest)) if rest else [(negative(_TOP), False, _TOP, False)]
        return _without_points(_joined(whole), Node("set", removed))
    parts = [piece for _, interval in found for piece in _pieces(interval)]
    joined = _joined(parts)
    everything = len(joined) == 1 and joined[0][0] == negative(_TOP) and joined[0][2] == _TOP
    if everything and len(parts) == 2:
        upper, lower = sorted(parts, key=lambda piece: piece[0] != negative(_TOP))
        return [(lower[0], lower[1], upper[2], upper[3])]
    return parts


def _without_points(whole: list[Piece], removed: Node) -> list[Piece]:
    if removed.op != "set":
        raise NotASetError
    for point in removed.args:
        at = height(point)
        split = []
        for low, low_closed, high, high_closed in whole:
            if height(low) < at < height(high):
                split += [(low, low_closed, point, False), (point, False, high, high_closed)]
            else:
                split.append((low, low_closed and height(low) != at, high, high_closed and height(high) != at))
        whole = split
    return whole


def height(node: Node) -> Any:
    """The value of an interval's end, infinite ones too, as an mpmath number. NotASetError: no constant real."""
    ctx = context()
    if node == _TOP:
        return ctx.inf
    if node == negative(_TOP):
        return -ctx.inf
    if symbols(node):
        raise NotASetError
    try:
        value = numeric(node, {}, ctx)
    except UndefinedError as error:
        raise NotASetError from error
    if ctx.im(value) != 0:
        raise NotASetError
    return ctx.re(value)


def _joined(found: list[Piece]) -> list[Piece]:
    joined: list[Piece] = []
    for piece in sorted(found, key=lambda piece: (height(piece[0]), not piece[1])):
        low, low_closed, high, high_closed = piece
        if height(low) > height(high) or (height(low) == height(high) and not (low_closed and high_closed)):
            continue  # empty
        if joined:
            last = joined[-1]
            touch = height(low) == height(last[2]) and (low_closed or last[3])
            if touch or height(low) < height(last[2]):
                further = height(high) > height(last[2])
                both = height(high) == height(last[2]) and (high_closed or last[3])
                joined[-1] = (
                    last[0],
                    last[1],
                    high if further else last[2],
                    high_closed if further else both or last[3],
                )
                continue
        joined.append(piece)
    return joined


def same_set(a: Node, b: Node, same: Callable[[Node, Node], bool | None]) -> bool | None:
    """Have two sets of reals the same pieces? None: undecided.

    Args:
        same: decides whether two ends are equal.

    Raises:
        NotASetError: one is no union of intervals and points with constant ends.
        TooBigError: an end is beyond the limits on size.
    """
    left, right = pieces(a), pieces(b)
    if len(left) != len(right):
        return False
    verdict: bool | None = True
    for one, other in zip(left, right, strict=True):
        if (one[1], one[3]) != (other[1], other[3]):
            return False
        for end, end_of_other in ((one[0], other[0]), (one[2], other[2])):
            equal = same(end, end_of_other)
            if equal is False:
                return False
            verdict = None if equal is None else verdict
    return verdict
