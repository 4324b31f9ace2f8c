"""Launches the Triton kernels of span mass. Same routines as `avar_rl.attention.span_mass.chunked`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import triton
from torch import Tensor

from avar_rl.attention.span_mass import triton_kernel
from avar_rl.attention.span_mass.problem import Problem

# Shapes: B batch, H query heads, G key-value heads, T tokens, D head dim, S spans, Q queries, N key blocks.


@dataclass(frozen=True)
class _Launch:
    """Tensors and sizes that all kernels share."""

    query: Tensor
    key: Tensor
    problem: Problem

    @property
    def block(self) -> int:
        """Queries and keys of a tile. With these and the warps below ptxas spills hardly a register in half precision
        (sm_90); products of float32 are plain multiplications, which take more."""
        return 32 if self.query.dtype == torch.float32 else 64

    @property
    def sizes(self) -> dict:
        """Compile-time constants."""
        D = self.query.shape[-1]
        blocks = dict(BLOCK_D=max(16, triton.next_power_of_2(D)), BLOCK_Q=self.block, BLOCK_K=self.block)
        warps = 8 if self.block == 64 and D > 64 else 4
        widen = self.query.device.type == "cpu" and self.query.dtype == torch.bfloat16
        return dict(S=self.problem.spans_BST.shape[1], D=D, **blocks, WIDEN=widen, num_warps=warps, num_stages=2)

    @cached_property
    def inputs(self) -> tuple[Tensor, ...]:
        """Query, key, and as int32: the bits of each key (B, T), positions and first keys of the queries (B, Q)."""
        problem = self.problem
        B, S, T = problem.spans_BST.shape
        place_S = torch.arange(S, device=self.key.device, dtype=torch.int32)
        bits = (problem.spans_BST.int() << place_S[:, None]).sum(1, dtype=torch.int32)
        valid = torch.ones(B, T, dtype=torch.bool, device=bits.device) if problem.valid_BT is None else problem.valid_BT
        bits |= valid.int() << triton_kernel.VALID.value
        positions = problem.positions_BQ.masked_fill(~problem.alive_BQ, -1).int().contiguous()
        first = torch.zeros_like(positions) if problem.first_BQ is None else problem.first_BQ.int().contiguous()
        return self.query, self.key, bits, positions, first

    @property
    def numbers(self) -> tuple:
        """Strides of query and key, the scale, H, heads per group, T, Q."""
        H, T = self.query.shape[1:3]
        group, Q = H // self.key.shape[1], self.problem.positions_BQ.shape[1]
        return *self.query.stride(), *self.key.stride(), self.problem.scale, H, group, T, Q

    def span_blocks(self) -> tuple[Tensor, Tensor]:
        """int32 (B, N): the key blocks with a key of any span, first; int32 (B,): how many those are."""
        spanned_BT = self.problem.spans_BST.any(1)
        missing = -spanned_BT.shape[1] % self.block
        block_BN = torch.nn.functional.pad(spanned_BT, (0, missing)).unflatten(1, (-1, self.block)).any(-1)
        order_BN = (~block_BN).to(torch.int8).argsort(dim=1, stable=True)
        return order_BN.int().contiguous(), block_BN.sum(1, dtype=torch.int32)


def masses(query: Tensor, key: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
    """The masses (B, H, Q, S) and the queries' log-sum-exp (B, H, Q), the latter in units of log 2."""
    launch = _Launch(query, key, problem)
    B, H = query.shape[:2]
    Q, S = problem.positions_BQ.shape[1], problem.spans_BST.shape[1]
    mass_BHQS = torch.zeros(B, H, Q, S, device=query.device)
    lse_BHQ = problem.lse_of_queries()
    known = lse_BHQ is not None
    if known:
        lse_BHQ = (lse_BHQ.float() * triton_kernel.LOG2E.value).contiguous()
    else:
        lse_BHQ = torch.empty(B, H, Q, device=query.device)
    if mass_BHQS.numel() == 0:
        return mass_BHQS, lse_BHQ.zero_()
    blocks, counts = launch.span_blocks() if known else (lse_BHQ, lse_BHQ)  # not read where the softmax is computed
    numbers = list(launch.numbers)
    numbers[8] *= triton_kernel.LOG2E.value
    grid = (triton.cdiv(Q, launch.block), B * H)
    forward: Any = triton_kernel.forward  # Triton types a launch as a call of the function itself
    forward[grid](
        *launch.inputs, lse_BHQ, mass_BHQS, blocks, counts, *numbers,
        COLUMNS=triton.next_power_of_2(S), KNOWN_LSE=known, **launch.sizes,
    )  # fmt: skip
    return mass_BHQS, lse_BHQ


def gradients(grad_BHQS, mass_BHQS, lse_BHQ, query: Tensor, key: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
    """Gradients of the wanted queries (B, H, Q, D) in float32 and of the key (B, G, T, D) in its own type."""
    launch = _Launch(query, key, problem)
    (B, H, _, D), Q = query.shape, problem.positions_BQ.shape[1]
    grad_query = torch.zeros(B, H, Q, D, device=query.device)
    grad_key = torch.zeros(key.shape, dtype=key.dtype, device=key.device)
    if mass_BHQS.numel() == 0:
        return grad_query, grad_key
    grad_BHQS = grad_BHQS.float().contiguous()
    baseline_BHQ = (grad_BHQS * mass_BHQS).sum(-1)
    given = (*launch.inputs, lse_BHQ, grad_BHQS, baseline_BHQ)
    queries, keys = triton.cdiv(Q, launch.block), triton.cdiv(key.shape[2], launch.block)
    backward_query: Any = triton_kernel.backward_query
    backward_key: Any = triton_kernel.backward_key
    backward_query[queries, B * H](*given, grad_query, *launch.numbers, **launch.sizes)
    backward_key[keys, B * key.shape[1]](*given, grad_key, *launch.numbers, **launch.sizes)
    return grad_query, grad_key
