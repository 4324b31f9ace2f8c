"""Sums over the queries of each sample, in padded and in packed batches."""

from __future__ import annotations

import torch
from torch import Tensor

# Shapes: L layers, B batch, S quantities, H heads, Q queries, N samples (B, or the sequences of a packed batch).


def sum_queries(x_LBSHQ: Tensor, positions_BQ: Tensor, cu_seqlens: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Sums numbers that every query has, such as span masses, over the queries of each sample.

    Args:
        x_LBSHQ: the numbers; what stands at positions of -1 must be finite and is left out.
        positions_BQ: int64, the positions of the queries, padded with -1, as `roles.query_positions` gives them.
        cu_seqlens: int (N+1), borders of the sequences of a packed batch (then B = 1); None where nothing is packed.

    Returns:
        The sums (L, N, S, H), and how many queries each sample has, int64 (N,).
    """
    alive_BQ = positions_BQ >= 0
    if cu_seqlens is None:
        return (x_LBSHQ * alive_BQ[:, None, None, :]).sum(-1), alive_BQ.sum(1)
    L, _, S, H, _ = x_LBSHQ.shape
    N = cu_seqlens.numel() - 1
    sample_Q = torch.bucketize(positions_BQ[0], cu_seqlens[1:-1].to(positions_BQ), right=True)
    sums_LSHN = x_LBSHQ.new_zeros(L, S, H, N).index_add(-1, sample_Q, x_LBSHQ[:, 0] * alive_BQ[0])
    counts_N = torch.zeros(N, dtype=torch.int64, device=positions_BQ.device).index_add_(0, sample_Q, alive_BQ[0].long())
    return sums_LSHN.permute(0, 3, 1, 2), counts_N
