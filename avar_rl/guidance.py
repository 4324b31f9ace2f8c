"""The attention-guided objective of the cold start (AGTO, arXiv 2603.03825, stage 2): L = L_LM + α·L_enh + β·L_sup.

    L_enh = −1/|𝓛| Σ_l 1/H Σ_h log( 1/(|Q||K_img|) Σ_{q∈Q} Σ_{k∈K_img} A[l,h,q,k] )
    L_sup = +1/|𝓛| Σ_l 1/H Σ_h log( 1/(|Q||K_sys|) Σ_{q∈Q} Σ_{k∈K_sys} A[l,h,q,k] + ε )

The mean over (q, k) is inside the logarithm, then heads, then layers; the mean over samples is the caller's, who knows
the global batch. Choices where the paper is silent:
- Q is selectable: "user" (user text after the image, the default) or "response".
- A sample without image tokens, or without a row in Q, contributes exactly zero to both terms; one without a system
  turn contributes zero to L_sup. `GuidanceTerms.guided_N` tells which samples count.
- L_sup is driven towards log ε: `floor` clamps the mean over (q, k) from below before the logarithm, so that below it
  there is no gradient. 0 leaves the paper's formula.
- The mean in L_enh has no ε in the paper; it is clamped at the smallest normal float32, which only guards against log
  0.
- 1/|K| shifts a term by a constant; it is kept, so that the numbers are the paper's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from avar_rl.attention.roles import Role, role_counts

# Shapes: L layers, B batch, S spans (image, system), H heads, R rows, N samples (B, or the sequences of a packed
# batch).

# The spans whose masses the guided loss needs, in this order.
GUIDED_ROLES = (Role.IMAGE, Role.SYSTEM)


@dataclass(frozen=True)
class GuidanceConfig:
    """The settings of the guided loss; alpha = beta = 0 is plain SFT.

    alpha, beta: weights of L_enh and L_sup (paper: 0.15 each). rows: Q, "user" or "response". layers: 𝓛, None for all.
    eps: ε of L_sup. floor: the least mean attention weight per (q, k) that L_sup still pushes down.
    """

    alpha: float = 0.15
    beta: float = 0.15
    rows: str = "user"
    layers: tuple[int, ...] | None = None
    eps: float = 1e-6
    floor: float = 0.0

    def __post_init__(self) -> None:
        if self.layers is not None:
            object.__setattr__(self, "layers", tuple(self.layers))
        for name in ("alpha", "beta", "floor"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"guidance {name}={getattr(self, name)} must be a number >= 0")
        if not self.eps > 0:
            raise ValueError(f"guidance eps={self.eps} must be > 0: it keeps the logarithm of L_sup finite")
        if not self.floor < 1:
            raise ValueError(f"guidance floor={self.floor} must be below 1: it is a mean attention weight")
        if self.rows not in ("user", "response"):
            raise ValueError(f"guidance rows={self.rows!r} are unknown: choose 'user' or 'response'")
        if self.layers is not None and (not self.layers or min(self.layers) < 0):
            raise ValueError(f"guidance layers={self.layers} must be layer indices >= 0, or null for all layers")

    @property
    def enabled(self) -> bool:
        return self.alpha > 0 or self.beta > 0


@dataclass(frozen=True)
class GuidanceTerms:
    """Per sample, float32 (N,): L_enh and L_sup, both exactly 0 where `guided_N` (bool) is False."""

    enhance_N: Tensor
    suppress_N: Tensor
    guided_N: Tensor


def guidance_terms(
    mass_LBSHR: Tensor,
    rows_BR: Tensor,
    roles_BT: Tensor,
    config: GuidanceConfig,
    *,
    cu_seqlens: Tensor | None = None,
) -> GuidanceTerms:
    """L_enh and L_sup of every sample.

    Args:
        mass_LBSHR: span masses of the layers 𝓛 on the spans `GUIDED_ROLES`, at `rows_BR`.
        rows_BR: int64, Q as positions, padded with -1.
        roles_BT: roles of every token, for |K_img| and |K_sys|.
        cu_seqlens: borders of a packed batch; then N is its number of sequences, else N = B.

    Returns terms whose gradient is exactly zero (never NaN) for samples that do not count.
    """
    if mass_LBSHR.shape[2] != len(GUIDED_ROLES):
        raise ValueError(
            f"guidance needs the masses on {len(GUIDED_ROLES)} spans (image, system), got {mass_LBSHR.shape[2]}"
        )
    keys_NS = role_counts(roles_BT, GUIDED_ROLES, cu_seqlens=cu_seqlens)
    mass_LNSH, rows_N = sum_rows(mass_LBSHR, rows_BR, cu_seqlens)
    guided_N = (keys_NS[:, 0] > 0) & (rows_N > 0)
    suppressed_N = guided_N & (keys_NS[:, 1] > 0)
    pairs_NS1 = (rows_N[:, None] * keys_NS).clamp(min=1)[..., None]
    mean_LNSH = mass_LNSH / pairs_NS1
    tiny = torch.finfo(mean_LNSH.dtype).tiny
    enhance_N = -_mean_log(mean_LNSH[:, :, 0].clamp(min=tiny), guided_N)
    suppress_N = _mean_log(mean_LNSH[:, :, 1].clamp(min=config.floor) + config.eps, suppressed_N)
    return GuidanceTerms(enhance_N, suppress_N, guided_N)


def sum_rows(x_LBSHR: Tensor, rows_BR: Tensor, cu_seqlens: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Sum over the rows of every sample: (L, N, S, H), and the number of those rows, int64 (N,)."""
    alive_BR = rows_BR >= 0
    if cu_seqlens is None:
        return (x_LBSHR * alive_BR[:, None, None, :]).sum(-1), alive_BR.sum(1)
    L, _, S, H, _ = x_LBSHR.shape
    N = cu_seqlens.numel() - 1
    sample_R = torch.bucketize(rows_BR[0], cu_seqlens[1:-1].to(rows_BR), right=True)
    sums_LSHN = x_LBSHR.new_zeros(L, S, H, N).index_add(-1, sample_R, x_LBSHR[:, 0] * alive_BR[0])
    counts_N = torch.zeros(N, dtype=torch.int64, device=rows_BR.device).index_add_(0, sample_R, alive_BR[0].long())
    return sums_LSHN.permute(0, 3, 1, 2), counts_N


def _mean_log(x_LNH: Tensor, counts_N: Tensor) -> Tensor:
    """Mean over layers and heads of log x; 0 where the sample does not count. The logarithm of such a sample is taken
    of 1, a constant, so that no infinity reaches the backward pass."""
    return torch.where(counts_N[:, None], x_LNH, 1.0).log().mean((0, 2))
