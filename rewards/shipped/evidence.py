"""Attention on the evidence: how much of a response's attention to the image falls on the boxes of its data row.

    r_evidence = 0 if the answer is wrong, else 1/|T| sum_t 1/|L| sum_l [ reg_l,t / img_l,t ]

reg and img are the attention mass of token t in layer l on the image tokens in the evidence boxes of the row
(`extra_info.evidence`) and on all image tokens, averaged over heads; T is the set of response tokens, L that of
recorded layers; "0 if the answer is wrong" is the gate. As reg is a part of img, the value lies in 0..1.

Source: SAYO (arXiv 2602.08241: a reward for attention on regions) and EASE (arXiv 2605.30912: attention guided towards
annotated evidence, on rollouts of high reward only). Neither has published code, and only their abstracts were read, so
the formula is ours: a plain share instead of EASE's smoothed target, every response token alike, a reward instead of a
loss. Mode "mass" = reg alone also pays for looking at the image at all. None of the papers' numbers are claimed for it.

Shapes: T tokens of the response, L recorded layers.
"""

from typing import Literal

from avar_rl.runtime.evidence import read_evidence
from avar_rl.runtime.settings import Positive
from rewards.plugin import reward
from rewards.sample import AttentionSample


@reward(gate="accuracy", needs=("region",))
def evidence(
    sample: AttentionSample, *, mode: Literal["share", "mass"] = "share", eps: Positive = 1e-6
) -> float | None:
    """How much a response attends to the evidence boxes of its data row, from 0 to 1.

    Args:
        mode: "share" = region / image in each layer and token, then the mean; "mass" = region, the mean of all.
        eps: an image mass below it counts as it, so that a token which looks at no image has a share of 0.

    Returns: None for a row without evidence boxes.

    Raises:
        ValueError: the boxes of the row are none, or no mass was recorded for them.
    """
    if not any(read_evidence((sample.row.get("extra_info") or {}).get("evidence"))):
        return None
    if sample.masses is None or sample.masses.region_TL is None:
        raise ValueError("the row has evidence boxes, but no attention mass on them was recorded")
    region_TL, image_TL = sample.masses.region_TL, sample.masses.image_TL
    if region_TL.ndim != 2 or region_TL.shape != image_TL.shape or not region_TL.numel():
        raise ValueError(
            f"region masses {tuple(region_TL.shape)} and image masses {tuple(image_TL.shape)} must be (T, L), T > 0"
        )
    value_TL = region_TL if mode == "mass" else region_TL / image_TL.clamp_min(eps)
    return float(value_TL.double().clamp(max=1.0).mean())  # rounding alone lifts a part above its whole
