"""The public operation, and which implementation runs it.

By device: the Triton kernel on CUDA, torch operators in chunks elsewhere (and on CUDA for what the kernel does not
compute: float64, head dimensions above 256). The environment variable AVAR_SPAN_MASS=reference|torch|triton overrides
this; an implementation that cannot run here is then an error.
"""

from __future__ import annotations

import importlib.util
import os

import torch
from torch import Tensor

from avar_rl.attention.span_mass import chunked, reference
from avar_rl.attention.span_mass.autograd import differentiable
from avar_rl.attention.span_mass.problem import Problem

VARIABLE = "AVAR_SPAN_MASS"
IMPLEMENTATIONS = ("reference", "torch", "triton")
SPANS_PER_PASS = 8  # of the Triton kernel


def span_mass(
    query: Tensor,
    key: Tensor,
    spans: Tensor,
    *,
    query_positions: Tensor | None = None,
    scale: float | None = None,
    cu_seqlens: Tensor | None = None,
    lse: Tensor | None = None,
    valid: Tensor | None = None,
) -> Tensor:
    """Causal softmax mass of every query on each span: Σ of its attention weights over the span's visible keys.

    Args:
        query: (B, H, T, D), after rotary embedding.
        key: (B, H_kv, T, D), after rotary embedding; H is a multiple of H_kv (grouped-query attention).
        spans: bool (B, S, T), membership of each key in each span. Spans may overlap.
        query_positions: int64 (B, Q), the positions of the queries wanted, padded with -1; None for all T.
        scale: factor of the scores; None for D**-0.5.
        cu_seqlens: int (N+1), borders of the sequences of a packed batch (then B = 1). A query sees only its own
            sequence.
        lse: (B, H, T), log-sum-exp of the scaled scores over the keys each query sees, where the attention kernel
            already returned it: the forward pass then scores only the keys of the spans. It is taken as a function of
            query and key, so gradients are the same with and without it.
        valid: bool (B, T), False on padding. Padding keys are seen by nobody; padding queries give 0.

    Returns:
        float32 (B, S, H, Q), float64 for float64 input; positions of -1 give 0. Differentiable once in query and key.

    Raises:
        ValueError: shapes that do not fit, or an implementation asked for by AVAR_SPAN_MASS that cannot run here.
    """
    problem = Problem.build(spans, query_positions, cu_seqlens, valid)
    return solve(problem, query, key, scale=scale, lse=lse)


def solve(
    problem: Problem, query: Tensor, key: Tensor, *, scale: float | None = None, lse: Tensor | None = None
) -> Tensor:
    """`span_mass` of one layer; arguments of these names are its. What layers have in common, `problem`, is built once.

    ValueError: shapes that do not fit, or an implementation asked for by AVAR_SPAN_MASS that cannot run here.
    """
    problem.check(query, key, lse)
    factor: float = query.shape[-1] ** -0.5 if scale is None else scale
    lse = None if lse is None else lse.detach()  # a function of query and key, whose gradient is accounted for
    name = implementation(query)
    if name == "reference":
        return reference.span_mass(query, key, problem, factor)
    if name == "torch":
        return differentiable(chunked, query, key, problem, factor, lse)
    from avar_rl.attention.span_mass import triton_launch

    S = problem.spans_BST.shape[1]
    if S <= SPANS_PER_PASS:
        return differentiable(triton_launch, query, key, problem, factor, lse)
    passes = [slice(start, start + SPANS_PER_PASS) for start in range(0, S, SPANS_PER_PASS)]
    parts = [differentiable(triton_launch, query, key, problem.with_spans(part), factor, lse) for part in passes]
    return torch.cat(parts, dim=1)


def implementation(query: Tensor) -> str:
    """Which implementation runs for `query`: "reference", "torch" or "triton". ValueError: the one asked for cannot."""
    asked = os.environ.get(VARIABLE, "")
    if asked and asked not in IMPLEMENTATIONS:
        raise ValueError(f"{VARIABLE}={asked!r} is unknown: choose one of {', '.join(IMPLEMENTATIONS)}, or unset it")
    obstacle = _triton_obstacle(query)
    if asked == "triton" and obstacle:
        raise ValueError(f"{VARIABLE}=triton, but {obstacle}. Unset it, or choose 'torch'")
    return asked or ("torch" if obstacle or query.device.type == "cpu" else "triton")


def _triton_obstacle(query: Tensor) -> str | None:
    """Why the Triton kernel cannot run on `query`; None where it can."""
    if query.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"the kernel computes float32, bfloat16 and float16, not {query.dtype}"
    if query.shape[-1] > 256:
        return f"the kernel takes head dimensions up to 256, not {query.shape[-1]}"
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if query.device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return f"the tensors are on {query.device.type!r}, which needs Triton's interpreter (TRITON_INTERPRET=1)"
    return None
