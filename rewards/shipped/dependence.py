"""How much a response needs its image: what its tokens lose where the image is masked, bounded and averaged.

    r_dependence = 1/|T| sum_t clip(d_t, -c, c) / c
    d_t = log p(y_t | x, image, y_<t) - log p(y_t | x, masked image, y_<t)

T is the set of response tokens; the masked image is that of `avar.blind`; c is the option `clip`, in nats. Over the
policy's own samples the mean of d_t, unclipped, is the KL divergence between policy and blind policy, which PAPO
(arXiv 2507.06448) maximises as a term of its loss; VPPO (arXiv 2510.09285) weighs tokens by it. As a plain reward it is
in neither. It is clipped on both sides: cut at 0 from below, tokens whose d_t is noise around 0 would count as needing
the image. It lies from -1 to 1 and is about the share of tokens that the image makes likelier by a factor of e^c or
more. By default it counts only where the answer is right, like the visual reward.
"""

from __future__ import annotations

from avar_rl.runtime.settings import Positive
from rewards.plugin import reward
from rewards.sample import AttentionSample


@reward(gate="accuracy", needs=("blind",))
def dependence(sample: AttentionSample, *, clip: Positive = 1.0) -> float | None:
    """The mean dependence of the response's tokens on the image, each from -1 to 1.

    Args:
        clip: nats beyond which a token counts in full.

    Returns: None for a question without an image.

    Raises:
        ValueError: no blind pass was run, the response has no tokens, or a dependence is not finite.
    """
    if not sample.image_sizes:
        return None
    if sample.tokens is None or sample.tokens.dependence_T is None:
        raise ValueError("the response has no dependence: no blind pass was run (avar.blind)")
    dependence_T = sample.tokens.dependence_T
    if not len(dependence_T) or not bool(dependence_T.isfinite().all()):
        raise ValueError(f"the dependences of a response's {len(dependence_T)} tokens must be some, and finite")
    return float((dependence_T.double().clamp(-clip, clip) / clip).mean())
