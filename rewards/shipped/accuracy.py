"""The accuracy reward (arXiv 2603.03825, stage 3): 1 where the answer of a response equals the gold answer, else 0.

Equality is decided by `rewards.grading`. A gold that cannot be graded is an error in the data, never a silent 0. A pair
that the grader leaves undecided is logged and counted (`timeouts()`): `accuracy` scores it 0, the reward returns None.
"""

from collections.abc import Sequence
from dataclasses import replace

from rewards.grading import DEFAULT, check_gold, extract_answer, grade_response, undecided
from rewards.plugin import reward
from rewards.sample import Sample

__all__ = ["accuracy", "check_gold", "extract_answer", "grade_response", "timeouts"]


def accuracy(
    response: str, gold: str | Sequence[str], *, options: Sequence[str] = (), limit_s: float = DEFAULT.limit_s
) -> float:
    """1.0 where the answer of `response` equals `gold`, or one of several, else 0.0, undecided pairs included.

    Callable from any thread or process.

    Args:
        options: the texts of a multiple choice, A first: an option's text then equals its letter.
        limit_s: seconds for the symbolic work on the pair, beyond which it is undecided.

    Raises:
        ValueError: `gold` is empty or cannot be graded.
    """
    policy = DEFAULT if limit_s == DEFAULT.limit_s else replace(DEFAULT, limit_s=limit_s)
    return float(grade_response(response, gold, options=options, policy=policy).equivalent is True)


def timeouts() -> int:
    """How many pairs the grader has left undecided in this process."""
    return undecided()


@reward(name="accuracy")
def accuracy_reward(sample: Sample) -> float | None:
    """1.0 where the response's answer equals the gold answer, 0.0 where it does not, None where the grader cannot tell.

    Raises:
        ValueError: the gold is empty or cannot be graded.
    """
    equivalent = grade_response(sample.response, sample.golds, options=sample.options).equivalent
    return None if equivalent is None else float(equivalent)
