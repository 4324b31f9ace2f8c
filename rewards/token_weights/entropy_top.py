"""Only the tokens at which the policy was least certain carry gradient (arXiv 2506.01939, section 5).

    w_t = 1 where H_t is among the ceil(share * T) largest, else 0
    H_t = - sum_v p(v | x, y_<t) log p(v | x, y_<t)

H is taken under the policy before the step. The paper chooses 20 % of the tokens of the batch (over: batch), so that a
response may keep many or none; over: response chooses the same share in each. Of equal entropies the earlier token is
chosen, in the order of the step's responses.

The paper divides its loss by all tokens, as this does with normalise: none. Its code divides by the chosen ones (under
token-mean, normalise: batch does so), and chooses in each micro-batch by itself; here it is the whole step.

Shapes: T tokens of a response, A tokens of all responses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from rewards.plugin import token_weight
from rewards.sample import AttentionSample
from rewards.weigh import TopShare, top_share

if TYPE_CHECKING:
    from torch import Tensor


@token_weight
def entropy_top(
    samples: Sequence[AttentionSample], *, share: TopShare = 0.2, over: Literal["batch", "response"] = "batch"
) -> Sequence[Tensor]:
    """1 for the tokens with the greatest entropy, else 0.

    Args:
        share: of the tokens that carry gradient.
        over: what it is a share of: all tokens of the step, or those of each response.

    Raises:
        ValueError: a response has no entropies, or these are not finite.
    """
    import torch

    if any(sample.tokens is None for sample in samples):
        raise ValueError("a response has no entropies")
    entropies = [sample.tokens.entropy_T for sample in samples if sample.tokens is not None]
    if over == "response":
        return [top_share(entropy_T, share) for entropy_T in entropies]
    return top_share(torch.cat(entropies), share).split([len(entropy_T) for entropy_T in entropies])
