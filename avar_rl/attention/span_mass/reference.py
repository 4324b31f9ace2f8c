"""Span mass by its definition, through the whole attention map: slow, quadratic in memory, differentiable by autograd.

The other implementations are tested against it; it computes in float64 for float64 input, else in float32.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from avar_rl.attention.span_mass.problem import Problem

# Shapes: B batch, H query heads, T tokens, D head dim, S spans, R rows.


def span_mass(query: Tensor, key: Tensor, problem: Problem) -> Tensor:
    """(B, S, H, R); arguments as in `avar_rl.attention.span_mass.span_mass`. A given log-sum-exp is not used."""
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    key_BHTD = key.to(dtype).repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    scores_BHRT = problem.take_rows(query).to(dtype) @ key_BHTD.transpose(2, 3) * problem.scale
    seen_BRT = _seen(problem, key.shape[2])
    weight_BHRT = scores_BHRT.masked_fill(~seen_BRT[:, None], -math.inf).softmax(-1)
    weight_BHRT = weight_BHRT.masked_fill(~seen_BRT[:, None], 0.0)  # also where a row sees nothing and softmax is NaN
    return torch.einsum("bhrk,bsk->bshr", weight_BHRT, problem.spans_BST.to(dtype))


def _seen(problem: Problem, tokens: int) -> Tensor:
    """bool (B, R, T): which keys each row sees. Rows of -1 and of padding see their own position, and count for 0."""
    position_T = torch.arange(tokens, device=problem.rows_BR.device)
    seen_BRT = (position_T <= problem.rows_BR[..., None]) & problem.alive_BR[..., None]
    if problem.first_BR is not None:
        seen_BRT = seen_BRT & (position_T >= problem.first_BR[..., None])
    if problem.valid_BT is not None:
        seen_BRT = seen_BRT & problem.valid_BT[:, None].bool()
    return seen_BRT
