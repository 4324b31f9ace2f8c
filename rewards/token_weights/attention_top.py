"""Only the tokens of a response that look at the image most carry gradient.

    w_t = 1 where m_t is among the ceil(share * T) largest of the response, else 0
    m_t = 1/|L| sum_l img_l,t

img_l,t is the attention mass of token t on the image in layer l, averaged over heads. Of equal masses the earlier token
is chosen. A question without an image has nothing to choose by: all its tokens have the factor 1.

After AT-RL (arXiv 2602.11455; only its abstract was read), which finds that about 15 % of tokens are bound to the image
and reinforces these. It finds them by clustering the attention graph and scales every token by its cluster; here the
share with the greatest image mass is chosen, and nothing else is. DyCo-RL (arXiv 2606.08035) scales advantages by how
well a token's attention fits its role, which this is not either.

Shapes: T tokens of the response, L recorded layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rewards.plugin import token_weight
from rewards.sample import AttentionSample
from rewards.weigh import TopShare, top_share, unweighted

if TYPE_CHECKING:
    from torch import Tensor


@token_weight(needs=("masses",))
def attention_top(sample: AttentionSample, *, share: TopShare = 0.4) -> Tensor:
    """1 for the tokens with the greatest image mass, else 0; 1 for all without an image.

    Args:
        share: of the response's tokens that carry gradient.

    Raises:
        ValueError: the response has no masses, or these are not finite.
    """
    if not sample.image_sizes:
        return unweighted(sample)
    if sample.masses is None:
        raise ValueError("the response has no attention masses: nothing was recorded")
    return top_share(sample.masses.image_TL.double().mean(1), share)
