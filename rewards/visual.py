"""The visual-anchoring reward (VARS, arXiv 2603.03825, stage 3), from the span masses of the response tokens.

    r_visual = 0 if the answer is wrong, else 1/|T| sum_t 1/|L| sum_l [ img_l,t / (sys_l,t + eps) ]

img and sys are the attention mass of token t in layer l on the image and on the system turn, heads averaged first; T is
the response. The raw ratio (7 to 19 in a 7B model) swamps an accuracy of 1, hence mode "share" = img / (img + sys),
bounded by 1, and `clip`, an upper bound on a token's score. Neither is in the paper.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

MODES = ("ratio", "share")


def token_visual_score(
    image_L: Tensor, system_L: Tensor, *, mode: str = "ratio", eps: float = 1e-6, clip: float | None = None
) -> Tensor:
    """Score of each token: mean over layers (dimension 0) of how much image mass there is per system mass.

    Args:
        image_L, system_L: attention masses averaged over heads, (L, ...) with any trailing shape, such as (L, B, T).
        mode: "ratio" = image / (system + eps), the paper's; "share" = image / (image + system), 0 where both are 0.
        eps: keeps the quotients finite.
        clip: upper bound of a token's score, after the mean over layers.

    Returns: (...), the trailing shape.
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
        raise ValueError(f"visual reward mode {mode!r} is unknown; choose one of {', '.join(MODES)}")
    score = score_L.mean(0)
    return score if clip is None else score.clamp(max=clip)


def visual_reward(score_T: Tensor, *, correct: bool) -> float:
    """Mean token score over the response, gated: 0.0 where the answer is wrong.

    Args:
        score_T: (T,) `token_visual_score` of the response tokens alone (no prompt, no padding).
        correct: whether the answer is right.

    Raises:
        ValueError: a correct response without tokens, or with a score that is not finite.
    """
    if not correct:
        return 0.0
    if score_T.ndim != 1 or score_T.numel() == 0:
        raise ValueError(f"a correct response needs token scores of shape (T,), T > 0; got {tuple(score_T.shape)}")
    if not bool(score_T.isfinite().all()):
        raise ValueError("a token's visual score is not finite: the span masses of the response are broken")
    return float(score_T.float().mean())
