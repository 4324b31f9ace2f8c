"""Are two equations or inequalities the same up to a constant factor?"""

from typing import Any

from rewards.grading.compare.evaluate import UndefinedError, context, numeric
from rewards.grading.compare.scalars import points
from rewards.grading.parse.tree import Node, TooBigError, negative, symbols


def _difference(node: Node) -> Node:
    return Node("add", (node.args[0], negative(node.args[1])))


def factor(a: Node, b: Node) -> Any:
    """The constant c with (left - right) of `a` = c (left - right) of `b` at every point, as an mpmath number.

    None: it is 0, it varies, or too few points have a real value.
    """
    ctx, ratios = context(), []
    left, right = _difference(a), _difference(b)
    for point in points(sorted(symbols(a))):
        try:
            bottom = numeric(right, point, ctx)
            ratio = numeric(left, point, ctx) / bottom if abs(bottom) > ctx.mpf(10) ** -25 else None
        except (UndefinedError, TooBigError):
            continue
        if ratio is None or ctx.im(ratio) != 0:
            continue
        if ratios and abs(ratio - ratios[0]) > abs(ratios[0]) * ctx.mpf(10) ** -25:
            return None
        ratios.append(ctx.re(ratio))
    return ratios[0] if len(ratios) >= 5 and ratios[0] != 0 else None
