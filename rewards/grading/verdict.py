"""What the grader says of a pair."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """`equivalent` is None where the pair is undecided: given up, or beyond every tier.

    `tier`: where it was decided, from cheap to dear: empty, refused (beyond the size limits), text, choice, words,
    number, structure, numeric (values at points), symbolic (sympy); unread: the prediction is not of the gold's kind.
    """

    equivalent: bool | None
    tier: str
    prediction: str  # canonical form
    gold: str
    reason: str = ""
