"""PAPO's double entropy loss (arXiv 2507.06448): keeps `papo` from growing by distributions that just get flat.

    term_t = image * H[p(. | x, image, y_<t)] + blind * H[p(. | x, masked image, y_<t)]

in nats, 0 in rows without an image; with the recipe's weight eta, L = L_policy + eta * term: entropies are made small.

Deviations from the released code (github.com/MikeWangWZHL/PAPO, read in 2026), whose eta is 0.03:
- There H is estimated by -log p of the sampled token, whose gradient at the policy that sampled it is 0 in the mean;
  here it is the entropy of the whole distribution, with its gradient.
- There the masked half has no gradient (its issue #20); here it has. `blind: 0` leaves that half out.
"""

from __future__ import annotations

from torch import Tensor

from avar_rl.runtime.settings import NotNegative
from rewards.plugin import actor_loss
from rewards.sample import LossBatch


@actor_loss(needs=("blind", "entropy"))
def double_entropy(batch: LossBatch, *, image: NotNegative = 1.0, blind: NotNegative = 1.0) -> Tensor:
    """The weighted entropies of each token, (N, T); see the module.

    Args:
        image: factor of the entropy with the image.
        blind: factor of the entropy with the masked image.
    """
    assert batch.entropy_NT is not None and batch.blind_entropy_NT is not None
    return (image * batch.entropy_NT + blind * batch.blind_entropy_NT) * batch.has_image_N[:, None]
