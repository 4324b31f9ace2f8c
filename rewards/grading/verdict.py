"""What the grader says of a prediction and its gold answer."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """Whether a prediction equals its gold answer, and how that was decided.

    `equivalent` is None where the pair is undecided: given up, or beyond every tier. `prediction` and `gold` are the
    canonical forms that were compared, `reason` says in words why they differ, where there is something to say.
    `tier`: where it was decided, from cheap to dear: empty, refused (beyond the size limits), text, choice, words,
    number, structure, numeric (values at points), symbolic (sympy); unread: the prediction is not of the gold's kind.
    """

    equivalent: bool | None
    tier: str
    prediction: str
    gold: str
    reason: str = ""
