"""The recipe's token weights on the advantages of one step. Shapes: T tokens of a response."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from avar_rl.verl_plugin.scored_batch import ScoredBatch
from rewards.weigh import TokenWeightError, TokenWeightSet, Weighed


def weighed(
    advantages: Sequence[Tensor], masks: Sequence[Tensor], scored: ScoredBatch, weights: TokenWeightSet, on_error: str
) -> tuple[list[Tensor], ScoredBatch, Weighed]:
    """Advantages times the factors of their tokens, at the tokens that the policy wrote; the others stay as they are.

    Masked responses take no part: no weight is asked for them, and they are in no statistic.

    Args:
        advantages: (T,) of all tokens of each response.
        masks: bool (T,), those that the policy wrote.
        on_error: "stop" raises where a weight failed on a response; "mask" gives that response no advantage. Its
            reward has counted in its group's mean by then.

    Returns: the advantages; the responses with their factors; what the weights said of the unmasked ones, in order.

    Raises:
        TokenWeightError: see `on_error` and `TokenWeightSet.weigh`.
    """
    judged = [i for i, response in enumerate(scored.responses) if not response.masked]
    own = [advantages[i][masks[i]] for i in judged]
    samples = [
        replace(scored.responses[i].sample, parts=scored.responses[i].values.raw, advantage=_of_response(own_T))
        for i, own_T in zip(judged, own, strict=True)
    ]
    said = weights.weigh(samples)
    failed = [error for error in said.errors if error]
    if failed and on_error == "stop":
        raise TokenWeightError(
            f"{len(failed)} responses of step {scored.step} could not be weighted; the first:\n{failed[0]}"
        )
    found, responses = list(advantages), list(scored.responses)
    for i, factors_T, error in zip(judged, said.factors, said.errors, strict=True):
        responses[i] = replace(responses[i], weights_T=factors_T, masked=bool(error), error=error)
        found[i] = torch.zeros_like(found[i]) if factors_T is None else _times(found[i], masks[i], factors_T)
    return found, replace(scored, responses=tuple(responses)), said


def _of_response(own_T: Tensor) -> float:
    """The mean over its tokens, which in GRPO are all equal; 0 without tokens."""
    return float(own_T.double().mean()) if len(own_T) else 0.0


def _times(advantages_T: Tensor, mask_T: Tensor, factors_T: Tensor) -> Tensor:
    found_T = advantages_T.clone()
    found_T[mask_T] *= factors_T.to(found_T)
    return found_T
