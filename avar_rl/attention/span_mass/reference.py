"""Span mass by its definition, through the whole attention map: slow, quadratic in memory, differentiable by autograd.

The other implementations are tested against it; it computes in float64 for float64 input, else in float32.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from avar_rl.attention.span_mass.problem import Problem

# Shapes: B batch, H query heads, T tokens, D head dim, S spans, Q queries.


def span_mass(query: Tensor, key: Tensor, problem: Problem, scale: float) -> Tensor:
    """The masses (B, S, H, Q) of query (B, H, T, D) and key (B, G, T, D)."""
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    key_BHTD = key.to(dtype).repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    scores_BHQT = problem.take_queries(query).to(dtype) @ key_BHTD.transpose(2, 3) * scale
    seen_BQT = _seen(problem, key.shape[2])
    weight_BHQT = scores_BHQT.masked_fill(~seen_BQT[:, None], -math.inf).softmax(-1)
    weight_BHQT = weight_BHQT.masked_fill(~seen_BQT[:, None], 0.0)  # also where a query sees nothing and softmax is NaN
    return torch.einsum("bhqk,bsk->bshq", weight_BHQT, problem.spans_BST.to(dtype))


def _seen(problem: Problem, tokens: int) -> Tensor:
    """bool (B, Q, T): which keys each query sees. Positions of -1 and of padding see nothing."""
    position_T = torch.arange(tokens, device=problem.positions_BQ.device)
    seen_BQT = (position_T <= problem.positions_BQ[..., None]) & problem.alive_BQ[..., None]
    if problem.first_BQ is not None:
        seen_BQT = seen_BQT & (position_T >= problem.first_BQ[..., None])
    if problem.valid_BT is not None:
        seen_BQT = seen_BQT & problem.valid_BT[:, None].bool()
    return seen_BQT
