"""The visual-anchoring reward (arXiv 2603.03825, stage 3), from the span masses of the response tokens.

    r_visual = 0 if the answer is wrong, else 1/|T| sum_t 1/|L| sum_l [ img_l,t / (sys_l,t + eps) ]

img and sys are the attention mass of token t in layer l on the image and on the system turn, averaged over heads; T is
the set of response tokens, L that of recorded layers; "0 if the answer is wrong" is the gate. The ratio (7 to 19 in a
7B model) swamps an accuracy of 1, hence mode "share" = img / (img + sys), bounded by 1; "rank", the place of the share
within the group; and `clip`, an upper bound on a token's score. None of these is in the paper.

Shapes: T tokens of the response, L recorded layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from avar_rl.runtime.settings import Positive
from rewards.plugin import reward
from rewards.sample import AttentionSample, Masses

if TYPE_CHECKING:
    from torch import Tensor

Mode = Literal["ratio", "share", "rank"]


@reward(gate="accuracy")
def visual(
    sample: AttentionSample, *, mode: Mode = "ratio", eps: Positive = 1e-6, clip: Positive | None = None
) -> float | None:
    """How much a response attends to the image: the mean of `token_visual_score` over its tokens.

    Args:
        mode: "ratio", "share", or "rank" = the place of the share among the responses to the same question, 0 to 1.
        eps: keeps the quotients finite.
        clip: upper bound of a token's score; None: no bound.

    Returns: None for a question without an image, and for a rank in a group of one.

    Raises:
        ValueError: the response has no masses, or these are not finite.
    """
    if not sample.image_sizes:
        return None
    if mode == "rank":
        shares = [mean_score(masses, mode="share", eps=eps, clip=clip) for masses in sample.group]
        return rank(shares, sample.position)
    if sample.masses is None:
        raise ValueError("the response has no attention masses: nothing was recorded")
    return mean_score(sample.masses, mode=mode, eps=eps, clip=clip)


def token_visual_score(
    image_L: Tensor, system_L: Tensor, *, mode: str = "ratio", eps: float = 1e-6, clip: float | None = None
) -> Tensor:
    """The visual score of each token: its image mass in relation to its system mass, averaged over layers.

    Args:
        image_L: attention masses on the image, averaged over heads, (..., L) with any leading shape, such as (T, L).
        system_L: attention masses on the system turn, in the same shape.
        mode: "ratio" = image / (system + eps), the paper's; "share" = image / (image + system), 0 where both are 0.
        eps: keeps the quotients finite.
        clip: upper bound of a token's score, after the mean over layers.

    Returns: (...), the leading shape.

    Raises:
        ValueError: the shapes differ, or `mode` is another one ("rank" compares responses, not tokens).
    """
    if image_L.shape != system_L.shape:
        raise ValueError(
            f"image masses {tuple(image_L.shape)} and system masses {tuple(system_L.shape)} differ in shape"
        )
    if mode == "ratio":
        score_L = image_L / (system_L + eps)
    elif mode == "share":
        score_L = image_L / (image_L + system_L).clamp_min(eps)
    else:
        raise ValueError(f"visual score mode {mode!r} is unknown; choose ratio or share")
    score = score_L.mean(-1)
    return score if clip is None else score.clamp(max=clip)


def mean_score(masses: Masses, *, mode: str, eps: float, clip: float | None) -> float:
    """The mean of `token_visual_score` over the tokens of one response; `mode`, `eps` and `clip` as there.

    Raises:
        ValueError: the response has no tokens, or a token's score is not finite.
    """
    if masses.image_TL.ndim != 2 or masses.image_TL.numel() == 0:
        raise ValueError(f"a response needs masses of shape (T, L), T > 0; got {tuple(masses.image_TL.shape)}")
    score_T = token_visual_score(masses.image_TL, masses.system_TL, mode=mode, eps=eps, clip=clip)
    if not bool(score_T.isfinite().all()):
        raise ValueError("a token's visual score is not finite: the span masses of the response are broken")
    return float(score_T.double().mean())


def rank(scores: list[float], position: int) -> float | None:
    """The place of `scores[position]` among `scores`, from 0 (lowest) to 1 (highest), equal scores in their middle.

    None where there is nothing to compare with (fewer than two scores).
    """
    if len(scores) < 2:
        return None
    own = scores[position]
    below, level = sum(score < own for score in scores), sum(score == own for score in scores)
    return (below + (level - 1) / 2) / (len(scores) - 1)
