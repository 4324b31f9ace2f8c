"""Looking again: attention to the image late in a response in relation to that early in it.

    r_late = 0 if the answer is wrong, else min( mean_t∈late img_t / (mean_t∈early img_t + eps), clip )

img_t is the attention mass of token t on the image, averaged over heads and recorded layers. The response is cut in
two: the first `split` of its tokens are early, the others late.

Source: Reflection-V (arXiv 2509.12132), which finds that attention to the image fades as a response grows, and rewards
models for keeping it up. In its released code the attention (of the last layer) is commented out where it would be
computed, beside the log-probabilities, and no reward reads it; of the paper only the abstract was read. So the ratio of
means, the place of the cut, the bound, the gate and the mean over all recorded layers are ours.

A ratio grows where the late part looks more, and where the early part looks less. With clip = 1 (the default) nothing
is gained beyond looking as much late as early; still, watch the early part (docs/methods/late_attention.md).

Shapes: T tokens of the response, L recorded layers.
"""

from typing import Annotated

from pydantic import Field

from avar_rl.runtime.settings import Number, Positive
from rewards.plugin import reward
from rewards.sample import AttentionSample


@reward(gate="accuracy", needs=("masses",))
def late_attention(
    sample: AttentionSample,
    *,
    split: Annotated[Number, Field(gt=0, lt=1)] = 0.5,
    clip: Positive = 1.0,
    eps: Positive = 1e-6,
) -> float | None:
    """The image mass of the later tokens by that of the earlier ones, from 0 to `clip`.

    Args:
        split: the share of the tokens that are early, rounded down; each part has at least one token.
        clip: upper bound of the ratio.
        eps: is added to the early mass, which keeps the quotient finite.

    Returns: None for a question without an image, and for a response of fewer than two tokens.

    Raises:
        ValueError: the response has no masses.
    """
    if not sample.image_sizes:
        return None
    if sample.masses is None:
        raise ValueError("the response has no attention masses: nothing was recorded")
    image_T = sample.masses.image_TL.double().mean(-1)
    if len(image_T) < 2:
        return None
    cut = min(max(int(split * len(image_T)), 1), len(image_T) - 1)
    early, late = image_T[:cut].mean(), image_T[cut:].mean()
    return float((late / (early + eps)).clamp(max=clip))
