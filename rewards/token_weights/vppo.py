"""VPPO (arXiv 2510.09285): the tokens that need the image carry gradient, more of it in responses that need it more.

    w_t  = alpha * [s_t is among the ceil(share * T) largest of the response]
    s_t  = exp(-d_t) + d_t - 1,   d_t = log p(y_t | x, image, y_<t) - log p(y_t | x, masked image, y_<t)
    alpha = beta_min + (beta_max - beta_min) * (S - min S) / (max S - min S),   S = 1/T sum_t s_t

min and max are over the responses of the step to questions with an image. Where no beta_max is given, it is the one
that makes their mean alpha 1, as in the authors' code (max S then cancels):

    alpha = beta_min + (1 - beta_min) * (S - min S) / (mean S - min S)

A question without an image has nothing to choose by: all its tokens have the factor 1, and it is in no statistic. Of
equal s_t the earlier token is chosen. Where max S - min S is 1e-6 or less, alpha is 1.

The paper's s_t is the Kullback-Leibler divergence of the two distributions over the vocabulary. The authors' code has,
and so has this, its estimate k3 from the sampled token (Schulman), with d clamped to 20 and s to 10. k3 is large both
for tokens that the image made likelier and, exponentially, for those that it made unlikelier.

Deviations from the authors' code (github.com/huaixuheqing/VPPO-RL, read in 2026):
- It takes min and max of a mini-batch on each device (the exchange between devices is commented out) and beta_max of
  each micro-batch, so that alpha depends on how many there are; here both are of the whole step.
- It blackens each patch of 14 x 14 pixels with probability 0.5; here `avar.blind` says what is masked.
- The entropy penalty of its recipe is no part of this.

Shapes: T tokens of a response, A those of all responses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from avar_rl.runtime.settings import Positive, Share
from rewards.plugin import token_weight
from rewards.sample import AttentionSample
from rewards.weigh import TopShare, top_share, unweighted

if TYPE_CHECKING:
    from torch import Tensor

LARGEST_DIFFERENCE, LARGEST_DIVERGENCE = 20.0, 10.0  # of the authors' code
NO_SPREAD = 1e-6


@token_weight(needs=("blind",))
def vppo(
    samples: Sequence[AttentionSample],
    *,
    share: TopShare = 0.4,
    beta_min: Share = 0.9,
    beta_max: Positive | None = None,
) -> Sequence[Tensor]:
    """alpha of the response for the tokens that depend on the image most, else 0; 1 for all without an image.

    Args:
        share: of each response's tokens that carry gradient.
        beta_min: the factor of the response that depends on its image least.
        beta_max: the factor of the one that does most; None: so that the mean of all is 1.

    Raises:
        ValueError: beta_max is less than beta_min, or a response to a question with an image has no dependence.
    """
    if beta_max is not None and beta_max < beta_min:
        raise ValueError(f"avar.token_weights.vppo.beta_max={beta_max} is less than beta_min={beta_min}")
    scores = _divergences([sample for sample in samples if sample.image_sizes])
    factors = trajectory_factors([score_T.mean().item() for score_T in scores], beta_min, beta_max)
    weights = (top_share(score_T, share) * factor for score_T, factor in zip(scores, factors, strict=True))
    return [next(weights) if sample.image_sizes else unweighted(sample) for sample in samples]


def _divergences(samples: Sequence[AttentionSample]) -> Sequence[Tensor]:
    """s_t of each token of each response to a question with an image, (T,)."""
    import torch

    dependence = [sample.tokens.dependence_T for sample in samples if sample.tokens]
    measured = [dependence_T for dependence_T in dependence if dependence_T is not None]
    if len(measured) < len(samples):
        raise ValueError(f"{len(samples) - len(measured)} responses have no dependence: there was no blind pass")
    if not measured:
        return ()
    d_A = torch.cat(measured).double().clamp(-LARGEST_DIFFERENCE, LARGEST_DIFFERENCE)
    return ((-d_A).exp() + d_A - 1).clamp(0, LARGEST_DIVERGENCE).split([len(d_T) for d_T in measured])


def trajectory_factors(means: Sequence[float], beta_min: float, beta_max: float | None) -> list[float]:
    """alpha of each response by the mean S of its tokens; `beta_min` and `beta_max` as for `vppo`."""
    if not means or max(means) - min(means) <= NO_SPREAD:
        return [1.0] * len(means)
    low = min(means)
    top, at_top = (1.0, sum(means) / len(means)) if beta_max is None else (beta_max, max(means))
    return [beta_min + (top - beta_min) * (mean - low) / (at_top - low) for mean in means]
