"""What only sympy can answer, asked of the pool within a pair's time; a question given up is undecided and logged."""

import logging
from dataclasses import dataclass

from rewards.grading.compare.scalars import magnitude_refuses, rational
from rewards.grading.parse.tree import Node, TooBigError, show, walk
from rewards.grading.sympy_pool import pool

logger = logging.getLogger(__name__)

MAX_NODES = 200
MAX_TERMS = 10_000  # of a sum or product with whole limits
SHARE = 0.9  # of a pair's limit: the rest is for the cheap tiers and for killing what is late


def admissible(node: Node) -> bool:
    """Is the tree small enough for sympy: few operations, no constant part beyond the limits on digits, short sums?"""
    parts = list(walk(node))
    if len(parts) > MAX_NODES or any(part.op in ("pow", "function") and magnitude_refuses(part) for part in parts):
        return False
    try:
        ends = [[rational(arg) for arg in part.args[1:]] for part in parts if part.op in ("sum", "product")]
    except TooBigError:
        return False
    return not any(low is not None and high is not None and high - low > MAX_TERMS for low, high in ends)


@dataclass
class TimeBudget:
    """The seconds that a pair's symbolic work may take, and those that it has taken."""

    limit_s: float
    spent_s: float = 0.0

    def ask(self, task: str, a: Node, b: Node) -> bool | None:
        """sympy's verdict on `task` ("equal", "matrix" or "solve") for prediction `a` and gold `b`.

        None: sympy does not decide it, or was given up as the pair's seconds are spent.

        Raises:
            TooBigError: a side is not `admissible`.
            RuntimeError: the process with sympy does not start.
        """
        left = SHARE * self.limit_s - self.spent_s
        if not (admissible(a) and admissible(b)):
            raise TooBigError("too large for sympy")
        if left <= 0:
            return None
        try:
            verdict, seconds = pool.shared().ask(task, a, b, left)
        except pool.GaveUpError as error:
            why, seconds = error.args
            verdict = None
            logger.warning("comparing %s with gold %s %s; it is undecided", show(a)[:200], show(b)[:200], why)
        self.spent_s += seconds
        return verdict
