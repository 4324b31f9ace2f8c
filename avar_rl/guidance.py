"""The attention-guided objective of the cold start (AGTO, arXiv 2603.03825, stage 2): L = L_LM + α·L_enh + β·L_sup.

    L_enh = −1/|𝓛| Σ_l 1/H Σ_h log( 1/(|Q||K_img|) Σ_{q∈Q} Σ_{k∈K_img} A[l,h,q,k] )
    L_sup = +1/|𝓛| Σ_l 1/H Σ_h log( 1/(|Q||K_sys|) Σ_{q∈Q} Σ_{k∈K_sys} A[l,h,q,k] + ε )

The mean over (q, k) is inside the logarithm, then heads, then layers; the mean over samples is the caller's, who knows
the global batch. Choices where the paper is silent:
- Q is selectable: "user" (user text after the image, the default) or "response".
- A sample without image tokens, or without a query in Q, contributes exactly zero to both terms; one without a system
  turn contributes zero to L_sup. `GuidanceTerms.guided_N` tells which samples count.
- L_sup is driven towards log ε: `floor` clamps the mean over (q, k) from below before the logarithm, so that below it
  there is no gradient. 0 leaves the paper's formula.
- The mean in L_enh has no ε in the paper; it is clamped at the smallest normal float32, which only guards against log
  0.
- 1/|K| shifts a term by a constant; it is kept, so that the numbers are the paper's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from avar_rl.attention.pooling import sum_queries
from avar_rl.attention.roles import Role, role_counts
from avar_rl.runtime.layers import Layers
from avar_rl.runtime.settings import NotNegative, Number, Positive, settings

# Shapes: L layers, B batch, T tokens, S spans (image, system), H heads, Q queries,
# N samples (B, or the sequences of a packed batch).

# The spans whose masses the guided loss needs, in this order.
GUIDED_ROLES = (Role.IMAGE, Role.SYSTEM)


@settings
class GuidanceConfig:
    """The settings of the guided loss; alpha = beta = 0 is plain supervised fine-tuning. ValueError: out of bounds."""

    alpha: NotNegative = 0.15  # weight of L_enh
    beta: NotNegative = 0.15  # weight of L_sup
    queries: Literal["user", "response"] = "user"  # Q: user text after the image, or the response
    layers: Layers | None = None  # 𝓛; None for all layers
    eps: Positive = 1e-6  # ε of L_sup, which keeps its logarithm finite
    floor: Annotated[Number, Field(ge=0, lt=1)] = 0.0  # the least mean weight per (q, k) that L_sup pushes down

    @property
    def enabled(self) -> bool:
        """Whether either term has a weight, so that masses must be recorded."""
        return self.alpha > 0 or self.beta > 0


@dataclass(frozen=True)
class GuidanceTerms:
    """L_enh and L_sup of every sample, float32 (N,) each, both exactly 0 where `guided_N`, bool (N,), is False."""

    enhance_N: Tensor
    suppress_N: Tensor
    guided_N: Tensor


def guidance_terms(
    mass_LBSHQ: Tensor,
    positions_BQ: Tensor,
    roles_BT: Tensor,
    config: GuidanceConfig,
    *,
    cu_seqlens: Tensor | None = None,
) -> GuidanceTerms:
    """L_enh and L_sup of every sample.

    Args:
        mass_LBSHQ: span masses of the layers 𝓛 on the spans `GUIDED_ROLES`, of the queries at `positions_BQ`.
        positions_BQ: int64, the positions in Q, padded with -1: `query_positions(roles, config.queries)`.
        roles_BT: int8, the role of every token, for |K_img| and |K_sys|.
        cu_seqlens: int (N+1), borders of the sequences of a packed batch (then B = 1); None where nothing is packed.

    Returns:
        The terms; their gradient is exactly zero, never NaN, for samples that do not count.

    Raises:
        ValueError: the masses are not those of two spans.
    """
    if mass_LBSHQ.shape[2] != len(GUIDED_ROLES):
        raise ValueError(
            f"guidance needs the masses on {len(GUIDED_ROLES)} spans (image, system), got {mass_LBSHQ.shape[2]}"
        )
    keys_NS = role_counts(roles_BT, GUIDED_ROLES, cu_seqlens=cu_seqlens)
    mass_LNSH, queries_N = sum_queries(mass_LBSHQ, positions_BQ, cu_seqlens)
    guided_N = (keys_NS[:, 0] > 0) & (queries_N > 0)
    suppressed_N = guided_N & (keys_NS[:, 1] > 0)
    pairs_NS1 = (queries_N[:, None] * keys_NS).clamp(min=1)[..., None]
    mean_LNSH = mass_LNSH / pairs_NS1
    tiny = torch.finfo(mean_LNSH.dtype).tiny
    enhance_N = -_mean_log(mean_LNSH[:, :, 0].clamp(min=tiny), guided_N)
    suppress_N = _mean_log(mean_LNSH[:, :, 1].clamp(min=config.floor) + config.eps, suppressed_N)
    return GuidanceTerms(enhance_N, suppress_N, guided_N)


def _mean_log(x_LNH: Tensor, counts_N: Tensor) -> Tensor:
    """Mean over layers and heads of log x; 0 where the sample does not count. The logarithm of such a sample is taken
    of 1, a constant, so that no infinity reaches the backward pass."""
    return torch.where(counts_N[:, None], x_LNH, 1.0).log().mean((0, 2))
