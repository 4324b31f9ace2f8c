"""Span mass as one differentiable operation over a forward and a backward routine that recompute scores.

The backward pass needs query and key, which attention keeps for its own backward anyway, and O(queries) numbers. Inside
a checkpointed region whose recomputation replays the operation (module `replay`) query and key are saved the usual way,
so that checkpointing drops and recomputes them. Under any other checkpointing the recomputation does not know of the
recording; there query and key are held past it.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from avar_rl.attention.span_mass.problem import Problem

# Shapes: B batch, H query heads, T tokens, D head dim, S spans, Q queries.

# "hold": query and key stay on the node. "save": they are saved tensors. "replay": a recomputation saves them again.
_KEEPING: ContextVar[str] = ContextVar("avar_span_mass_keeping", default="hold")


@contextmanager
def keeping(how: str):
    """Operations run inside the block keep query and key as `how` says: "hold", "save" or "replay" (see `_KEEPING`)."""
    token = _KEEPING.set(how)
    try:
        yield
    finally:
        _KEEPING.reset(token)


def differentiable(
    routine: ModuleType, query: Tensor, key: Tensor, problem: Problem, scale: float, lse: Tensor | None
) -> Tensor:
    """The masses, float (B, S, H, Q), of the checked `problem`, differentiable once in query and key.

    `routine` is a module with `masses` and `gradients`: `avar_rl.attention.span_mass.chunked` or `triton_launch`.
    """
    if torch.is_grad_enabled() and (query.requires_grad or key.requires_grad):
        return _SpanMass.apply(query, key, problem, scale, lse, routine)
    return _masses(routine, query, key, problem, scale, lse)[0].permute(0, 3, 1, 2)


def _masses(routine: ModuleType, query: Tensor, key: Tensor, problem: Problem, scale: float, lse: Tensor | None):
    with torch.autocast(query.device.type, enabled=False):
        return routine.masses(query, key, problem, scale, lse)


class _SpanMass(torch.autograd.Function):
    """The backward pass scores again instead of keeping scores."""

    @staticmethod
    def forward(ctx, query, key, problem, scale, lse, routine) -> Tensor:
        how = _KEEPING.get()
        if how == "replay":  # only what it saves is wanted
            ctx.save_for_backward(query, key)
            (B, H, _, _), Q, S = query.shape, problem.positions_BQ.shape[1], problem.spans_BST.shape[1]
            return query.new_empty(B, S, H, Q, dtype=torch.promote_types(query.dtype, torch.float32))
        mass_BHQS, ctx.lse_BHQ = _masses(routine, query, key, problem, scale, lse)
        ctx.problem, ctx.scale, ctx.routine, ctx.mass_BHQS = problem, scale, routine, mass_BHQS.detach()
        ctx.held = None if how == "save" else (query.detach(), key.detach())
        if how == "save":
            ctx.save_for_backward(query, key)
        return mass_BHQS.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_BSHQ: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator is untyped
        query, key = ctx.held or ctx.saved_tensors
        with torch.autocast(grad_BSHQ.device.type, enabled=False):
            grad_query_BHQD, grad_key = ctx.routine.gradients(
                grad_BSHQ.permute(0, 2, 3, 1), ctx.mass_BHQS, ctx.lse_BHQ, query, key, ctx.problem, ctx.scale
            )
        grad_query = ctx.problem.put_queries(grad_query_BHQD.to(query.dtype), query.shape)
        return grad_query, grad_key.to(key.dtype), None, None, None, None
