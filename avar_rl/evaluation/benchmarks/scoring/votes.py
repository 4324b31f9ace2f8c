"""Several responses to a question: pass@k, and the answer that most of them give."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import comb


def pass_at(k: int, right: int, drawn: int) -> float:
    """The chance that one of `k` responses is right, of `drawn` of which so many are `right`.

    The unbiased estimator of Chen et al. 2021 (arXiv 2107.03374, equation 1), 1 - C(drawn - right, k) / C(drawn, k),
    for k <= drawn.
    """
    return 1.0 - comb(drawn - right, k) / comb(drawn, k)


def numbers_to_pass(drawn: int) -> list[int]:
    """The k for which pass@k is given: powers of two below `drawn`, and `drawn`."""
    return [*(2**power for power in range(drawn.bit_length()) if 2**power < drawn), drawn]


def majority(answers: Sequence[str | None]) -> int | None:
    """The place of the first response with the answer that most give; None where none gives one.

    Answers are the same where their texts are, without case and spaces. Of two that are given as often, the one that
    stands first counts; a response without an answer has no vote.
    """
    said = [None if answer is None else "".join(answer.lower().split()) for answer in answers]
    votes = Counter(answer for answer in said if answer)
    return said.index(votes.most_common(1)[0][0]) if votes else None
