"""Span mass in torch operators, for any device: queries in chunks, memory linear in T, nothing kept but O(queries).

With a known log-sum-exp the forward pass scores queries against the keys of the spans only. The backward pass
recomputes each chunk's scores.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from avar_rl.attention.span_mass.problem import Problem

# Shapes: B batch, H query heads, G key-value heads, T tokens, D head dim, S spans, Q queries, K keys of a chunk.

# Scores held at a time. On a CPU a chunk should stay in its last-level cache, on a GPU it should fill the device.
_CHUNK_SCORES = {"cpu": 1 << 20}
_CHUNK_SCORES_ELSEWHERE = 1 << 26


def masses(
    query: Tensor, key: Tensor, problem: Problem, scale: float, lse_BHT: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """The masses (B, H, Q, S) of query (B, H, T, D) and key (B, G, T, D), and the queries' log-sum-exp (B, H, Q) where
    that of all positions is given."""
    query_BHQD, key, spans_BST = _upcast(problem.take_queries(query)) * scale, _upcast(key), problem.spans_BST
    position_K = torch.arange(key.shape[2], device=key.device)
    lse_BHQ = None if lse_BHT is None else problem.lse_of_queries(lse_BHT)
    if lse_BHQ is not None:
        # The normaliser is known, so only keys of a span (in any sequence of the batch) need a score.
        lse_BHQ = lse_BHQ.to(key.dtype)
        position_K = spans_BST.any(1).any(0).nonzero().squeeze(1)
        key, spans_BST = key[:, :, position_K], spans_BST[..., position_K]
    spans_BST = spans_BST.to(key.dtype)
    B, H, Q, _ = query_BHQD.shape
    mass_BHQS = key.new_zeros(B, H, Q, spans_BST.shape[1])
    for queries, keys in _chunks(problem, H, position_K):
        bias = _bias(problem, queries, position_K[keys], key.dtype)
        weight = _weights(query_BHQD[:, :, queries], key[:, :, keys], bias, lse_BHQ, queries)
        mass_BHQS[:, :, queries] = _on_spans(weight, spans_BST[..., keys])
    return mass_BHQS.masked_fill_(~problem.alive_BQ[:, None, :, None], 0.0), lse_BHQ


def gradients(
    grad_BHQS, mass_BHQS, lse_BHQ, query: Tensor, key: Tensor, problem: Problem, scale: float
) -> tuple[Tensor, Tensor]:
    """Gradients of the wanted queries (B, H, Q, D) and of the key (B, G, T, D), from those of the masses (B, H, Q, S).

    With A the attention weight of a query and M_s its mass on span s:  ∂M_s / ∂score_k = A_k · (1[k ∈ s] − M_s).
    """
    query_BHQD, key = _upcast(problem.take_queries(query)) * scale, _upcast(key)
    B, H, _, D = query_BHQD.shape
    G = key.shape[1]
    position_K = torch.arange(key.shape[2], device=key.device)
    spans_BST = problem.spans_BST.to(key.dtype)
    grad_BHQS = grad_BHQS.to(key.dtype) * problem.alive_BQ[:, None, :, None]
    baseline_BHQ1 = (grad_BHQS * mass_BHQS).sum(-1, keepdim=True)
    grad_query, grad_key = torch.zeros_like(query_BHQD), torch.zeros_like(key)
    for queries, keys in _chunks(problem, H, position_K):
        query_part, key_part = query_BHQD[:, :, queries], key[:, :, keys]
        bias = _bias(problem, queries, position_K[keys], key.dtype)
        weight = _weights(query_part, key_part, bias, lse_BHQ, queries)
        q, k = weight.shape[2:]
        on_weight = torch.bmm(grad_BHQS[:, :, queries].reshape(B, H * q, -1), spans_BST[..., keys]).view(B, H, q, k)
        on_score = on_weight.sub_(baseline_BHQ1[:, :, queries]).mul_(weight).view(B, G, -1, k)
        grad_query[:, :, queries] = (on_score @ key_part).view(B, H, q, D)
        grad_key[:, :, keys] += on_score.transpose(2, 3) @ query_part.reshape(B, G, -1, D)
    return grad_query.mul_(scale), grad_key


def _chunks(problem: Problem, heads: int, position_K: Tensor) -> Iterator[tuple[slice, slice]]:
    """Slices of queries, each with the slice of the keys (they stand at `position_K`, ascending) that these may see.

    Queries in ascending order make the slices of keys short; any order is right. Synchronises once.
    """
    B, Q = problem.positions_BQ.shape
    if Q == 0:
        return
    # Positions of -1 must not widen the slice of keys: they count as the last position of their column.
    last_Q = problem.positions_BQ.amax(0)
    first_Q = torch.zeros_like(last_Q)
    if problem.first_BQ is not None:
        first_Q = torch.where(problem.alive_BQ, problem.first_BQ, last_Q).amin(0)
    lows, highs = torch.searchsorted(position_K, torch.stack([first_Q, last_Q + 1])).tolist()
    limit = _CHUNK_SCORES.get(position_K.device.type, _CHUNK_SCORES_ELSEWHERE)
    size = max(1, limit // (B * heads * max(1, position_K.numel())))
    for start in range(0, Q, size):
        queries = slice(start, min(start + size, Q))
        low, high = min(lows[queries]), max(highs[queries])
        if low < high:
            yield queries, slice(low, high)


def _bias(problem: Problem, queries: slice, position_k: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, 1, q, k) to be added to scores: 0 where the query sees the key at `position_k`, else hugely negative.

    An added bias is several times faster than masked_fill on a CPU; half the least float cannot overflow.
    """
    seen = position_k <= problem.positions_BQ[:, queries, None]
    if problem.first_BQ is not None:
        seen &= position_k >= problem.first_BQ[:, queries, None]
    if problem.valid_BT is not None:
        seen &= problem.valid_BT[:, None, position_k].bool()
    bias = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return bias.masked_fill_(~seen, torch.finfo(dtype).min / 2)[:, None]


def _weights(query_BHqD: Tensor, key_BGkD: Tensor, bias_B1qk: Tensor, lse_BHQ: Tensor | None, queries: slice) -> Tensor:
    """Attention weights (B, H, q, k). The query heads of a key head share one matrix product: keys are not repeated.

    Through exp2, as torch's exp is ten times slower on a CPU where its argument is hugely negative.
    """
    B, H, q, D = query_BHqD.shape
    G, k = key_BGkD.shape[1:3]
    scores = (query_BHqD.reshape(B, G, -1, D) @ key_BGkD.transpose(2, 3)).view(B, H, q, k).add_(bias_B1qk)
    if lse_BHQ is None:
        return scores.softmax(-1)
    return scores.sub_(lse_BHQ[:, :, queries, None]).mul_(math.log2(math.e)).exp2_()


def _on_spans(weight_BHqk: Tensor, spans_BSk: Tensor) -> Tensor:
    B, H, q, k = weight_BHqk.shape
    return torch.bmm(weight_BHqk.view(B, H * q, k), spans_BSk.transpose(1, 2)).view(B, H, q, -1)


def _upcast(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
