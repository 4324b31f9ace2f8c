"""The accuracy reward: is the answer of a response equal to the gold answer? A thin reward over `rewards.grading`.

A gold that cannot be scored is an error in the data, never a silent 0. An undecided pair scores 0, is logged and
counted (`timeouts()`); callers that want to tell it from a wrong answer use `grade_response`, whose verdict is None.
"""

from collections.abc import Sequence
from dataclasses import replace

from rewards.grading import DEFAULT, check_gold, extract_answer, grade_response, undecided
from rewards.plugin import reward
from rewards.sample import Sample

__all__ = ["accuracy", "check_gold", "extract_answer", "grade_response", "timeouts"]


def accuracy(response: str, gold: str, *, options: Sequence[str] = (), limit_s: float = DEFAULT.limit_s) -> float:
    """1.0 where the answer of `response` equals `gold`, else 0.0. Callable from any thread or process.

    options: the texts of a multiple choice, A first: an option's text then equals its letter.

    Raises:
        ValueError: `gold` is empty or cannot be scored.
    """
    policy = DEFAULT if limit_s == DEFAULT.limit_s else replace(DEFAULT, limit_s=limit_s)
    return float(grade_response(response, gold, options=options, policy=policy).equivalent is True)


def timeouts() -> int:
    """How many pairs of this process were left undecided."""
    return undecided()


@reward(name="accuracy")
def accuracy_reward(sample: Sample) -> float | None:
    """1.0 for the gold answer, 0.0 for another one, None where the grader cannot tell.

    ValueError for a gold that cannot be scored.
    """
    equivalent = grade_response(sample.response, sample.gold, options=sample.options).equivalent
    return None if equivalent is None else float(equivalent)
