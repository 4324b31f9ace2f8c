"""The recipe's token weights on the advantages of one step. Shapes: B responses, T tokens of one, A of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from avar_rl.verl_plugin.scored_batch import ScoredBatch, ScoredResponse
from rewards.sample import AttentionSample
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
    found, responses = list(advantages), list(scored.responses)
    own = [masks[i] for i in judged]
    means = _means([advantages[i] for i in judged], own)
    said = weights.weigh([_sample(responses[i], mean) for i, mean in zip(judged, means, strict=True)])
    if (failed := [error for error in said.errors if error]) and on_error == "stop":
        raise TokenWeightError(
            f"{len(failed)} responses of step {scored.step} could not be weighted; the first:\n{failed[0]}"
        )
    products = _times([advantages[i] for i in judged], own, said.factors)
    for i, product_T, factors_T, error in zip(judged, products, said.factors, said.errors, strict=True):
        found[i] = product_T
        responses[i] = replace(responses[i], weights_T=factors_T, masked=bool(error), error=error)
    return found, replace(scored, responses=tuple(responses)), said


def _sample(response: ScoredResponse, advantage: float) -> AttentionSample:
    return replace(response.sample, parts=response.values.raw, advantage=advantage)


def _means(advantages: Sequence[Tensor], masks: Sequence[Tensor]) -> list[float]:
    """The mean of each response's advantages (in GRPO all equal) at the tokens that the policy wrote; 0 without any."""
    if not advantages:
        return []
    response_A = torch.arange(len(masks)).repeat_interleave(torch.tensor([len(mask_T) for mask_T in masks]))
    mask_A = torch.cat(list(masks)).double()
    tokens_B = torch.zeros(len(masks), dtype=torch.float64).index_add(0, response_A, mask_A)
    sum_B = torch.zeros_like(tokens_B).index_add(0, response_A, torch.cat(list(advantages)).double() * mask_A)
    return (sum_B / tokens_B.clamp_min(1)).tolist()


def _times(advantages: Sequence[Tensor], masks: Sequence[Tensor], factors: Sequence[Tensor | None]) -> Sequence[Tensor]:
    """The advantages (T,) of each response times the factors of its own tokens; 0 where there are no factors."""
    if not advantages:
        return ()
    found_A = torch.cat(list(advantages))
    by_response = zip(advantages, masks, factors, strict=True)
    factor_A = torch.cat([a_T.new_zeros(int(m_T.sum())) if f_T is None else f_T for a_T, m_T, f_T in by_response])
    found_A[torch.cat(list(masks))] *= factor_A.to(found_A)
    return found_A.split([len(advantages_T) for advantages_T in advantages])
