"""The readable torch implementation of span mass; it runs on any device and defines the right answer.

    mass[b, s, h, r] = Σ_{k ∈ span s, k visible from q} softmax_k(scale · query[b, h, q] · key[b, h, k]),   q = rows[b,
    r]

Forward and backward go over the rows in chunks and keep at most `_CHUNK_SCORES` scores at a time, so memory is linear
in T; the backward pass recomputes each chunk's scores.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Shapes: B batch, H query heads, G key-value heads, T tokens, D head dim, S spans, R rows, K keys of a chunk.

# Scores held at a time. On a CPU a chunk should stay in its last-level cache, on a GPU it should fill the device.
_CHUNK_SCORES = {"cpu": 1 << 20}
_CHUNK_SCORES_ELSEWHERE = 1 << 26


def span_mass(
    query: Tensor,
    key: Tensor,
    spans: Tensor,
    *,
    rows: Tensor | None = None,
    scale: float | None = None,
    cu_seqlens: Tensor | None = None,
    lse: Tensor | None = None,
    valid: Tensor | None = None,
) -> Tensor:
    """Causal softmax mass of every query row on each span.

    Args:
        query: (B, H, T, D), key: (B, H_kv, T, D), after rotary embedding; H is a multiple of H_kv (grouped queries).
        spans: bool (B, S, T), membership of each key in each span. Spans may overlap.
        rows: int64 (B, R), the query positions wanted, padded with -1; None for all T.
        scale: factor of the scores; None for D**-0.5.
        cu_seqlens: int (N+1), borders of the sequences of a packed batch (then B = 1). A row sees only its own
        sequence. lse: (B, H, T), log-sum-exp of the scaled scores over the keys each query sees, where the attention
            kernel already returned it: the forward pass then scores only the keys of the spans. It is taken as a
            function of query and key, so gradients are the same with and without it.
        valid: bool (B, T), False on padding. Padding keys are seen by nobody; padding query rows give 0.

    Returns: float32 (B, S, H, R) (float64 for float64 input); rows of -1 give 0. Differentiable once in query and key.
    """
    problem = _Problem.build(query, key, spans, rows, scale, cu_seqlens, lse, valid)
    return _SpanMass.apply(query, key, problem)


@dataclass(frozen=True)
class _Problem:
    """Everything but query and key, checked: which rows, which keys each row sees, and the spans."""

    spans_BST: Tensor
    rows_BR: Tensor  # clamped to >= 0
    alive_BR: Tensor  # False for rows of -1 and padding
    first_BR: Tensor | None  # first visible position of each row; None where that is 0
    valid_BT: Tensor | None
    lse_BHT: Tensor | None
    all_rows: bool
    scale: float

    @classmethod
    def build(cls, query, key, spans, rows, scale, cu_seqlens, lse, valid) -> _Problem:
        _check(query, key, spans, rows, cu_seqlens, lse, valid)
        B, _, T, D = query.shape
        all_rows = rows is None
        if all_rows:
            rows = torch.arange(T, device=query.device).expand(B, T)
        alive = rows >= 0
        rows = rows.clamp(min=0)
        if valid is not None:
            alive = alive & valid.bool().gather(1, rows)
        first = None
        if cu_seqlens is not None:
            borders = cu_seqlens.to(rows)
            first = borders[torch.bucketize(rows, borders[1:-1], right=True)]
        return cls(spans, rows, alive, first, valid, lse, all_rows, D**-0.5 if scale is None else scale)

    def take_rows(self, x_BHTD: Tensor) -> Tensor:
        """(B, H, T, D) → (B, H, R, D)."""
        if self.all_rows:
            return x_BHTD
        return x_BHTD.gather(2, self._row_index(x_BHTD))

    def put_rows(self, x_BHRD: Tensor, shape_BHTD: torch.Size) -> Tensor:
        """The transpose of take_rows: (B, H, R, D) → (B, H, T, D)."""
        if self.all_rows:
            return x_BHRD
        return x_BHRD.new_zeros(shape_BHTD).scatter_add_(2, self._row_index(x_BHRD), x_BHRD)

    def _row_index(self, x_BHxD: Tensor) -> Tensor:
        B, H, _, D = x_BHxD.shape
        return self.rows_BR[:, None, :, None].expand(B, H, self.rows_BR.shape[1], D)

    def chunks(self, heads: int, position_K: Tensor) -> Iterator[tuple[slice, slice]]:
        """Slices of rows, each with the slice of the keys (which stand at `position_K`, ascending) that its rows may
        see.

        Rows in ascending order make the slices of keys short; any order is right. Synchronises once.
        """
        B, R = self.rows_BR.shape
        if R == 0:
            return
        # Rows of -1 must not widen the slice of keys: they count as looking at the last row of their column only.
        last_R = self.rows_BR.amax(0)
        first_R = torch.zeros_like(last_R)
        if self.first_BR is not None:
            first_R = torch.where(self.alive_BR, self.first_BR, last_R).amin(0)
        bounds = torch.searchsorted(position_K, torch.stack([first_R, last_R + 1]))
        lows, highs = bounds.tolist()
        limit = _CHUNK_SCORES.get(position_K.device.type, _CHUNK_SCORES_ELSEWHERE)
        size = max(1, limit // (B * heads * max(1, position_K.numel())))
        for start in range(0, R, size):
            rows = slice(start, min(start + size, R))
            low, high = min(lows[rows]), max(highs[rows])
            if low < high:
                yield rows, slice(low, high)

    def bias(self, rows: slice, position_k: Tensor, dtype: torch.dtype) -> Tensor:
        """(B, 1, r, k) to be added to scores: 0 where the row sees the key at `position_k`, else hugely negative.

        An added bias is several times faster than masked_fill on a CPU; half the least float cannot overflow.
        """
        seen = position_k <= self.rows_BR[:, rows, None]
        if self.first_BR is not None:
            seen &= position_k >= self.first_BR[:, rows, None]
        if self.valid_BT is not None:
            seen &= self.valid_BT[:, None, position_k].bool()
        return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, torch.finfo(dtype).min / 2)[
            :, None
        ]


def _check(query, key, spans, rows, cu_seqlens, lse, valid) -> None:
    B, H, T, D = query.shape
    if key.ndim != 4 or key.shape[0] != B or key.shape[2:] != (T, D) or H % key.shape[1]:
        raise ValueError(
            f"key has shape {tuple(key.shape)}, query {tuple(query.shape)}: they must agree but for the heads, and "
            "query heads be a multiple of key heads. Span mass needs the whole sequence in one pass, no key cache."
        )
    if spans.dtype != torch.bool or spans.ndim != 3 or (spans.shape[0], spans.shape[2]) != (B, T):
        raise ValueError(f"spans must be bool (B={B}, S, T={T}), not {spans.dtype} {tuple(spans.shape)}")
    if rows is not None and (rows.dtype != torch.int64 or rows.ndim != 2 or rows.shape[0] != B):
        raise ValueError(f"rows must be int64 (B={B}, R), not {rows.dtype} {tuple(rows.shape)}")
    if cu_seqlens is not None and B != 1:
        raise ValueError(f"a packed batch (cu_seqlens given) has B = 1, not {B}")
    if lse is not None and lse.shape != (B, H, T):
        raise ValueError(f"lse must have shape (B, H, T) = {(B, H, T)}, not {tuple(lse.shape)}")
    if valid is not None and valid.shape != (B, T):
        raise ValueError(f"valid must have shape (B, T) = {(B, T)}, not {tuple(valid.shape)}")


class _SpanMass(torch.autograd.Function):
    """Query rows and key are held on `ctx` itself rather than through `save_for_backward`, on purpose: saved tensors go
    through the hooks of activation checkpointing, which would have to replay the recording during recomputation. Held
    here they cost (R · H + T · H_kv) · D numbers a layer, and checkpointing does not know of the recording at all."""

    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, problem: _Problem) -> Tensor:
        query_BHRD = problem.take_rows(query)
        with torch.autocast(query.device.type, enabled=False):
            mass_BHRS = _masses(query_BHRD, key, problem)
        if any(ctx.needs_input_grad):
            ctx.problem, ctx.query_BHRD, ctx.key, ctx.mass_BHRS = problem, query_BHRD, key, mass_BHRS.detach()
            ctx.query_shape, ctx.query_dtype = query.shape, query.dtype
        return mass_BHRS.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_BSHR: Tensor):
        with torch.autocast(grad_BSHR.device.type, enabled=False):
            grad_query_BHRD, grad_key = _gradients(
                grad_BSHR.permute(0, 2, 3, 1), ctx.mass_BHRS, ctx.query_BHRD, ctx.key, ctx.problem
            )
        grad_query = ctx.problem.put_rows(grad_query_BHRD.to(ctx.query_dtype), ctx.query_shape)
        return grad_query, grad_key.to(ctx.key.dtype), None


def _masses(query_BHRD: Tensor, key: Tensor, problem: _Problem) -> Tensor:
    """(B, H, R, S)."""
    query_BHRD, key, spans_BST = _upcast(query_BHRD) * problem.scale, _upcast(key), problem.spans_BST
    position_K = torch.arange(key.shape[2], device=key.device)
    lse_BHR1 = None
    if problem.lse_BHT is not None:
        # The normaliser is known, so only keys of a span (in any batch row) need a score.
        position_K = spans_BST.any(1).any(0).nonzero().squeeze(1)
        key, spans_BST = key[:, :, position_K], spans_BST[..., position_K]
        lse_BHR1 = problem.take_rows(problem.lse_BHT[..., None]).to(key.dtype)
    spans_BST = spans_BST.to(key.dtype)
    B, H, R, _ = query_BHRD.shape
    mass_BHRS = key.new_zeros(B, H, R, spans_BST.shape[1])
    for rows, keys in problem.chunks(H, position_K):
        scores = _scores(query_BHRD[:, :, rows], key[:, :, keys], problem.bias(rows, position_K[keys], key.dtype))
        weight = scores.softmax(-1) if lse_BHR1 is None else _exp(scores.sub_(lse_BHR1[:, :, rows]))
        mass_BHRS[:, :, rows] = _on_spans(weight, spans_BST[..., keys])
    return mass_BHRS.masked_fill_(~problem.alive_BR[:, None, :, None], 0.0)


def _gradients(grad_BHRS: Tensor, mass_BHRS: Tensor, query_BHRD: Tensor, key: Tensor, problem: _Problem):
    """With A the attention weight of a row and M_s its mass on span s:  ∂M_s / ∂score_k = A_k · (1[k ∈ s] − M_s)."""
    query_BHRD, key = _upcast(query_BHRD) * problem.scale, _upcast(key)
    B, H, _, D = query_BHRD.shape
    G = key.shape[1]
    position_K = torch.arange(key.shape[2], device=key.device)
    spans_BST = problem.spans_BST.to(key.dtype)
    grad_BHRS = grad_BHRS.to(key.dtype) * problem.alive_BR[:, None, :, None]
    baseline_BHR1 = (grad_BHRS * mass_BHRS).sum(-1, keepdim=True)
    grad_query, grad_key = torch.zeros_like(query_BHRD), torch.zeros_like(key)
    for rows, keys in problem.chunks(H, position_K):
        query_rows, key_part = query_BHRD[:, :, rows], key[:, :, keys]
        weight = _scores(query_rows, key_part, problem.bias(rows, position_K[keys], key.dtype)).softmax(-1)
        r, k = weight.shape[2:]
        on_weight = torch.bmm(grad_BHRS[:, :, rows].reshape(B, H * r, -1), spans_BST[..., keys]).view(B, H, r, k)
        on_score = on_weight.sub_(baseline_BHR1[:, :, rows]).mul_(weight).view(B, G, -1, k)
        grad_query[:, :, rows] = (on_score @ key_part).view(B, H, r, D)
        grad_key[:, :, keys] += on_score.transpose(2, 3) @ query_rows.reshape(B, G, -1, D)
    return grad_query.mul_(problem.scale), grad_key


def _scores(query_BHrD: Tensor, key_BGkD: Tensor, bias_B1rk: Tensor) -> Tensor:
    """(B, H, r, k). All query heads of one key head are rows of one product, so keys are never repeated."""
    B, H, r, D = query_BHrD.shape
    G, k = key_BGkD.shape[1:3]
    scores = query_BHrD.reshape(B, G, -1, D) @ key_BGkD.transpose(2, 3)
    return scores.view(B, H, r, k).add_(bias_B1rk)


def _on_spans(weight_BHrk: Tensor, spans_BSk: Tensor) -> Tensor:
    B, H, r, k = weight_BHrk.shape
    return torch.bmm(weight_BHrk.view(B, H * r, k), spans_BSk.transpose(1, 2)).view(B, H, r, -1)


def _exp(x: Tensor) -> Tensor:
    """In place. Through exp2, as torch's exp is ten times slower on a CPU where its argument is hugely negative."""
    return x.mul_(math.log2(math.e)).exp2_()


def _upcast(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
