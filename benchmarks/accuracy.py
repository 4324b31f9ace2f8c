"""Span mass held against float64 as flash attention's own tests do it: no further off than twice plain torch's error.

error(ours) <= 2 * error(plain torch in the same type) + what rounding the result itself costs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from avar_rl.attention.span_mass import span_mass

# Shapes: B batch, H query heads, G key heads, T tokens, D head dim, S spans, Q queries.

PARTS = ("mass", "dq", "dk")  # of a result: the masses, the gradients of query and key


@dataclass(frozen=True)
class Error:
    """What of, the largest error, and the largest that is allowed."""

    what: str
    found: float
    allowed: float


def ours(query: Tensor, key: Tensor, spans: Tensor, weight: Tensor | float, **kwargs) -> tuple[Tensor, Tensor, Tensor]:
    """Masses (B, S, H, Q), and the gradients of query and key of their sum weighted by `weight`.

    Further arguments are `span_mass`'s; the implementation is the one that it chooses.
    """
    query, key = query.detach().requires_grad_(), key.detach().requires_grad_()
    masses = span_mass(query, key, spans, **kwargs)
    dq, dk = torch.autograd.grad((masses * weight).sum(), (query, key))
    return masses.detach(), dq, dk


def plain(
    query: Tensor,
    key: Tensor,
    spans: Tensor,
    weight: Tensor | float,
    *,
    query_positions: Tensor,
    valid: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The same in the inputs' own type, through the whole map and autograd."""
    query, key = query.detach().requires_grad_(), key.detach().requires_grad_()
    (B, H, T, D), G = query.shape, key.shape[1]
    visible = _visible(query, valid, cu_seqlens)
    if valid is not None:
        visible = visible & valid[..., None]
    scores = query @ key.repeat_interleave(H // G, 1).transpose(2, 3) * (D**-0.5 if scale is None else scale)
    index = query_positions.clamp(min=0)
    scores = scores.gather(2, index[:, None, :, None].expand(B, H, -1, T))
    visible = (visible.gather(1, index[..., None].expand(B, -1, T)) & (query_positions >= 0)[..., None])[:, None]
    probability = scores.masked_fill(~visible, torch.finfo(scores.dtype).min).softmax(-1) * visible
    masses = torch.einsum("bhqk,bsk->bshq", probability, spans.to(probability.dtype))
    dq, dk = torch.autograd.grad((masses * weight).sum(), (query, key))
    return masses.detach(), dq, dk


def errors(results: tuple[Tensor, ...], query: Tensor, key: Tensor, spans: Tensor, weight: Tensor, **kwargs):
    """How far `results`, of `ours` with these arguments, are from float64: an `Error` for each of `PARTS`."""
    kwargs.pop("lse", None)
    exact = plain(query.double(), key.double(), spans, weight.double(), **kwargs)
    torchs = plain(query, key, spans, weight, **kwargs)
    found = []
    for what, got, other, truth in zip(PARTS, results, torchs, exact, strict=True):
        floor = 1e-6 + torch.finfo(got.dtype).eps / 2 * truth.abs().max()  # of rounding the result itself
        allowed = 2 * (other - truth).abs().max() + floor
        found.append(Error(what, float((got - truth).abs().max()), float(allowed)))
    return found


def log_sum_exp(query: Tensor, key: Tensor, *, valid: Tensor | None = None, cu_seqlens: Tensor | None = None) -> Tensor:
    """Of the scaled scores of each query over what it sees, (B, H, T) in their type; NaN where it sees nothing."""
    H, D = query.shape[1], query.shape[3]
    scores = query @ key.repeat_interleave(H // key.shape[1], 1).transpose(2, 3) * D**-0.5
    lse = scores.masked_fill(~_visible(query, valid, cu_seqlens)[:, None], -torch.inf).logsumexp(-1)
    return lse.masked_fill(lse == -torch.inf, torch.nan)


def _visible(query: Tensor, valid: Tensor | None, cu_seqlens: Tensor | None) -> Tensor:
    """bool (B, T, T): which keys each query sees."""
    B, T = query.shape[0], query.shape[2]
    at = torch.arange(T, device=query.device)
    visible = (at <= at[:, None]).expand(B, -1, -1)
    if cu_seqlens is not None:
        sequence = torch.bucketize(at, cu_seqlens[1:-1], right=True)
        visible = visible & (sequence[:, None] == sequence)
    return visible if valid is None else visible & valid[:, None]
