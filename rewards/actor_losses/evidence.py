"""Attention on evidence as a loss, on right responses only (the idea of EASE, arXiv 2605.30912).

    term = -1/L sum_l log m_l,   m_l = sum_t region_tl / sum_t image_tl

over the response's tokens t and the recorded layers l: region is the attention mass on the image tokens of the row's
evidence boxes, image the mass on all image tokens, heads averaged. `of: all` takes m_l = sum_t region_tl / T instead,
the mean mass itself. The term is 0 where the response is wrong, or its row has no box. The mean is inside the
logarithm, as in the guided loss of the cold start: not every token is to look, but the response as a whole is.

With `of: image`, the gradient moves mass within the image and leaves it open how much of it there is; with `of: all`,
it takes mass from the text, too. The mean is over all sequences of the batch, so that few right responses with boxes
pull little.

Deviations from EASE, of which the abstract was read: its target is smoothed around the boxes, here all tokens in them
count alike; its trajectories are those of high reward, here those whose accuracy is above 0.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rewards.plugin import actor_loss
from rewards.sample import LossBatch


@actor_loss(needs=("region", "right"))
def evidence(batch: LossBatch, *, of: Literal["image", "all"] = "image") -> Tensor:
    """-log of the share of attention that lies on the evidence, (N,); see the module.

    Args:
        of: what the share is of: the attention on the image, or all of it.
    """
    assert batch.region_mass_NTL is not None and batch.image_mass_NTL is not None
    mask_NT1 = batch.response_mask_NT[..., None]
    tokens_N = batch.response_mask_NT.sum(1)
    region_NL = (batch.region_mass_NTL * mask_NT1).sum(1)
    whole_NL = (batch.image_mass_NTL * mask_NT1).sum(1) if of == "image" else tokens_N[:, None]
    counts_N = batch.right_N & batch.has_region_N & (tokens_N > 0)
    tiny = torch.finfo(torch.float32).tiny
    share_NL = region_NL.clamp(min=tiny) / torch.where(counts_N[:, None], whole_NL, 1.0).clamp(min=tiny)
    return -torch.where(counts_N[:, None], share_NL, 1.0).log().mean(1)
