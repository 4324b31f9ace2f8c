"""PAPO's implicit perception loss (arXiv 2507.06448): the policy is to write differently where it sees less.

    term_t = -min(exp(d_t) - d_t - 1, clip),   d_t = log p(y_t | x, masked image, y_<t) - log p(y_t | x, image, y_<t)

on the policy's own tokens, 0 in rows without an image; with the recipe's weight gamma, L = L_policy + gamma * term.

The number is Schulman's k3: over tokens of p(.|image) its mean is KL(p || q), p with the image and q without. Its
gradient is another one, since the tokens are fixed when it is taken: over tokens of p it is, of what p is made from,
the gradient of KL(q || p), and of what q is made from, that of KL(p || q). Both are maximised. Two consequences:
- A token that is likelier without the image (d > 0) has a gradient, too, with the largest factor, exp(d) - 1: it is
  made unlikelier with the image and likelier without it. Where d < 0 the factor lies between -1 and 0.
- Nothing bounds KL from above: its authors report collapses. `clip` takes the gradient off tokens that differ by
  that much; `double_entropy` is the paper's other guard.

Deviations from the released code (github.com/MikeWangWZHL/PAPO, read in 2026):
- There the masked log-probabilities come from before the step, without a gradient, so that only the half with the image
  is trained (its issue #20). `blind_gradient: false` takes the gradient off here, too; the number stays of the current
  policy.
- There, square patches of the image are blackened before the processor resizes it, anew in each step, each with
  probability 0.6; here `avar.blind` masks that share of the patches that the model sees, the same in each pass.
- There d is clamped to [-20, 20], k3 to 10 always, and to `kl_prcp_clipping` (0.2) by option: `clip` is both.
- Its gamma is 0.01 or 0.02, its tokens are averaged as the policy loss's are, as here.
"""

from __future__ import annotations

from torch import Tensor

from avar_rl.runtime.settings import Flag, Positive
from rewards.plugin import actor_loss
from rewards.sample import LossBatch

_LARGEST_D = 20.0  # exp of it is 5e8: what a token at the edge of float32's precision could do to the others


@actor_loss(needs=("blind",))
def papo(batch: LossBatch, *, clip: Positive | None = 10.0, blind_gradient: Flag = True) -> Tensor:
    """-k3 of each token, (N, T), no more than `clip` in size; see the module.

    Args:
        clip: k3 of a token is cut there, and has no gradient above; null: nowhere.
        blind_gradient: whether the half without the image is trained, too.
    """
    blind_NT = batch.blind_log_probs_NT
    assert blind_NT is not None
    if not blind_gradient:
        blind_NT = blind_NT.detach()
    d_NT = (blind_NT - batch.log_probs_NT).clamp(-_LARGEST_D, _LARGEST_D)
    k3_NT = d_NT.expm1() - d_NT
    if clip is not None:
        k3_NT = k3_NT.clamp(max=clip)
    return -k3_NT * batch.has_image_N[:, None]
