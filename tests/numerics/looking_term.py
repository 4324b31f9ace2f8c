"""A loss term of a user's own, for test_loss_terms.py: right responses are to look at the image."""

import torch
from torch import Tensor

from rewards.plugin import actor_loss
from rewards.sample import LossBatch


@actor_loss(needs=("masses", "right"))
def looking(batch: LossBatch) -> Tensor:
    """-log of the mean image mass of a response's tokens, averaged over layers, (N,); 0 where it does not apply."""
    counts_N = batch.right_N & batch.has_image_N
    mask_NT1 = batch.response_mask_NT[..., None]
    mean_NL = (batch.image_mass_NTL * mask_NT1).sum(1) / mask_NT1.sum(1)
    return -torch.where(counts_N[:, None], mean_NL, 1.0).log().mean(1)
