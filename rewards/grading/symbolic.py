"""What only sympy can answer, asked of the pool; a question given up is undecided: logged and counted."""

import logging
import threading

from rewards.grading import pool
from rewards.grading.scalars import magnitude_refuses
from rewards.grading.tree import Node, show, walk

logger = logging.getLogger(__name__)

MAX_NODES = 200
_lock = threading.Lock()
_given_up = 0


def given_up() -> int:
    """How many questions of this process went unanswered: over the time limit, or fatal to the worker."""
    return _given_up


def admissible(node: Node) -> bool:
    """Small enough for sympy: few operations, and no constant part beyond the limits on digits."""
    parts = list(walk(node))
    return len(parts) <= MAX_NODES and not any(part.op in ("pow", "function") and magnitude_refuses(part) for part in parts)


def ask(task: str, a: Node, b: Node, limit_s: float) -> bool | None:
    """sympy's verdict; None: it has none, or the question was refused or given up."""
    global _given_up
    if not (admissible(a) and admissible(b)):
        return None
    try:
        return pool.shared().ask(task, a, b, limit_s)
    except pool.GaveUpError as error:
        with _lock:
            _given_up += 1
        logger.warning("comparing %s with gold %s %s; it is undecided", show(a)[:200], show(b)[:200], error)
        return None
