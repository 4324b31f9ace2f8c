"""Span mass in torch operators, for any device: rows in chunks, memory linear in T, nothing kept but O(rows).

With a known log-sum-exp the forward pass scores rows against the keys of the spans only. The backward pass recomputes
each chunk's scores.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from avar_rl.attention.span_mass.problem import Problem

# Shapes: B batch, H query heads, G key-value heads, T tokens, D head dim, S spans, R rows, K keys of a chunk.

# Scores held at a time. On a CPU a chunk should stay in its last-level cache, on a GPU it should fill the device.
_CHUNK_SCORES = {"cpu": 1 << 20}
_CHUNK_SCORES_ELSEWHERE = 1 << 26


def masses(query: Tensor, key: Tensor, problem: Problem) -> tuple[Tensor, Tensor | None]:
    """The masses (B, H, R, S), and the rows' log-sum-exp (B, H, R) where it is known."""
    query_BHRD, key, spans_BST = _upcast(problem.take_rows(query)) * problem.scale, _upcast(key), problem.spans_BST
    position_K = torch.arange(key.shape[2], device=key.device)
    lse_BHR = problem.lse_rows()
    if lse_BHR is not None:
        # The normaliser is known, so only keys of a span (in any batch row) need a score.
        lse_BHR = lse_BHR.to(key.dtype)
        position_K = spans_BST.any(1).any(0).nonzero().squeeze(1)
        key, spans_BST = key[:, :, position_K], spans_BST[..., position_K]
    spans_BST = spans_BST.to(key.dtype)
    B, H, R, _ = query_BHRD.shape
    mass_BHRS = key.new_zeros(B, H, R, spans_BST.shape[1])
    for rows, keys in _chunks(problem, H, position_K):
        bias = _bias(problem, rows, position_K[keys], key.dtype)
        weight = _weights(query_BHRD[:, :, rows], key[:, :, keys], bias, lse_BHR, rows)
        mass_BHRS[:, :, rows] = _on_spans(weight, spans_BST[..., keys])
    return mass_BHRS.masked_fill_(~problem.alive_BR[:, None, :, None], 0.0), lse_BHR


def gradients(grad_BHRS, mass_BHRS, lse_BHR, query: Tensor, key: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
    """Gradients of the query rows (B, H, R, D) and of the key (B, G, T, D).

    With A the attention weight of a row and M_s its mass on span s:  ∂M_s / ∂score_k = A_k · (1[k ∈ s] − M_s).
    """
    query_BHRD, key = _upcast(problem.take_rows(query)) * problem.scale, _upcast(key)
    B, H, _, D = query_BHRD.shape
    G = key.shape[1]
    position_K = torch.arange(key.shape[2], device=key.device)
    spans_BST = problem.spans_BST.to(key.dtype)
    grad_BHRS = grad_BHRS.to(key.dtype) * problem.alive_BR[:, None, :, None]
    baseline_BHR1 = (grad_BHRS * mass_BHRS).sum(-1, keepdim=True)
    grad_query, grad_key = torch.zeros_like(query_BHRD), torch.zeros_like(key)
    for rows, keys in _chunks(problem, H, position_K):
        query_rows, key_part = query_BHRD[:, :, rows], key[:, :, keys]
        bias = _bias(problem, rows, position_K[keys], key.dtype)
        weight = _weights(query_rows, key_part, bias, lse_BHR, rows)
        r, k = weight.shape[2:]
        on_weight = torch.bmm(grad_BHRS[:, :, rows].reshape(B, H * r, -1), spans_BST[..., keys]).view(B, H, r, k)
        on_score = on_weight.sub_(baseline_BHR1[:, :, rows]).mul_(weight).view(B, G, -1, k)
        grad_query[:, :, rows] = (on_score @ key_part).view(B, H, r, D)
        grad_key[:, :, keys] += on_score.transpose(2, 3) @ query_rows.reshape(B, G, -1, D)
    return grad_query.mul_(problem.scale), grad_key


def _chunks(problem: Problem, heads: int, position_K: Tensor) -> Iterator[tuple[slice, slice]]:
    """Slices of rows, each with the slice of the keys (which stand at `position_K`, ascending) that its rows may see.

    Rows in ascending order make the slices of keys short; any order is right. Synchronises once.
    """
    B, R = problem.rows_BR.shape
    if R == 0:
        return
    # Rows of -1 must not widen the slice of keys: they count as looking at the last row of their column only.
    last_R = problem.rows_BR.amax(0)
    first_R = torch.zeros_like(last_R)
    if problem.first_BR is not None:
        first_R = torch.where(problem.alive_BR, problem.first_BR, last_R).amin(0)
    lows, highs = torch.searchsorted(position_K, torch.stack([first_R, last_R + 1])).tolist()
    limit = _CHUNK_SCORES.get(position_K.device.type, _CHUNK_SCORES_ELSEWHERE)
    size = max(1, limit // (B * heads * max(1, position_K.numel())))
    for start in range(0, R, size):
        rows = slice(start, min(start + size, R))
        low, high = min(lows[rows]), max(highs[rows])
        if low < high:
            yield rows, slice(low, high)


def _bias(problem: Problem, rows: slice, position_k: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, 1, r, k) to be added to scores: 0 where the row sees the key at `position_k`, else hugely negative.

    An added bias is several times faster than masked_fill on a CPU; half the least float cannot overflow.
    """
    seen = position_k <= problem.rows_BR[:, rows, None]
    if problem.first_BR is not None:
        seen &= position_k >= problem.first_BR[:, rows, None]
    if problem.valid_BT is not None:
        seen &= problem.valid_BT[:, None, position_k].bool()
    bias = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return bias.masked_fill_(~seen, torch.finfo(dtype).min / 2)[:, None]


def _weights(query_BHrD: Tensor, key_BGkD: Tensor, bias_B1rk: Tensor, lse_BHR: Tensor | None, rows: slice) -> Tensor:
    """Attention weights (B, H, r, k). All query heads of one key head are rows of one product: keys are not repeated.

    Through exp2, as torch's exp is ten times slower on a CPU where its argument is hugely negative.
    """
    B, H, r, D = query_BHrD.shape
    G, k = key_BGkD.shape[1:3]
    scores = (query_BHrD.reshape(B, G, -1, D) @ key_BGkD.transpose(2, 3)).view(B, H, r, k).add_(bias_B1rk)
    if lse_BHR is None:
        return scores.softmax(-1)
    return scores.sub_(lse_BHR[:, :, rows, None]).mul_(math.log2(math.e)).exp2_()


def _on_spans(weight_BHrk: Tensor, spans_BSk: Tensor) -> Tensor:
    B, H, r, k = weight_BHrk.shape
    return torch.bmm(weight_BHrk.view(B, H * r, k), spans_BSk.transpose(1, 2)).view(B, H, r, -1)


def _upcast(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
