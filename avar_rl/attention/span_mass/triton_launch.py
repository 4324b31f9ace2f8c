"""Launches the Triton kernels of span mass. Same routines as `avar_rl.attention.span_mass.chunked`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import triton
from torch import Tensor

from avar_rl.attention.span_mass import triton_kernel
from avar_rl.attention.span_mass.problem import Problem

# Shapes: B batch, H query heads, G key-value heads, T tokens, D head dim, S spans, R rows, N key blocks.


@dataclass(frozen=True)
class _Launch:
    """Tensors and sizes that all kernels share."""

    query: Tensor
    key: Tensor
    problem: Problem

    @property
    def block(self) -> int:
        """Rows and keys of a tile. With these and the warps below ptxas spills hardly a register in half precision
        (sm_90); products of float32 are plain multiplications, which take more."""
        return 32 if self.query.dtype == torch.float32 else 64

    @property
    def sizes(self) -> dict:
        """Compile-time constants."""
        D = self.query.shape[-1]
        blocks = dict(BLOCK_D=max(16, triton.next_power_of_2(D)), BLOCK_R=self.block, BLOCK_K=self.block)
        warps = 8 if self.block == 64 and D > 64 else 4
        widen = self.query.device.type == "cpu" and self.query.dtype == torch.bfloat16
        return dict(S=self.problem.spans_BST.shape[1], D=D, **blocks, WIDEN=widen, num_warps=warps, num_stages=2)

    @cached_property
    def inputs(self) -> tuple[Tensor, ...]:
        """Query, key, and as int32: the bits of each key (B, T), positions and first keys of the rows (B, R)."""
        problem = self.problem
        B, S, T = problem.spans_BST.shape
        place_S = torch.arange(S, device=self.key.device, dtype=torch.int32)
        bits = (problem.spans_BST.int() << place_S[:, None]).sum(1, dtype=torch.int32)
        valid = torch.ones(B, T, dtype=torch.bool, device=bits.device) if problem.valid_BT is None else problem.valid_BT
        bits |= valid.int() << triton_kernel.VALID.value
        rows = problem.rows_BR.masked_fill(~problem.alive_BR, -1).int().contiguous()
        first = torch.zeros_like(rows) if problem.first_BR is None else problem.first_BR.int().contiguous()
        return self.query, self.key, bits, rows, first

    @property
    def numbers(self) -> tuple:
        """Strides of query and key, the scale, H, heads a group, T, R."""
        H, T = self.query.shape[1:3]
        group, R = H // self.key.shape[1], self.problem.rows_BR.shape[1]
        return *self.query.stride(), *self.key.stride(), self.problem.scale, H, group, T, R

    def span_blocks(self) -> tuple[Tensor, Tensor]:
        """int32 (B, N): the key blocks with a key of any span, first; int32 (B,): how many those are."""
        spanned_BT = self.problem.spans_BST.any(1)
        missing = -spanned_BT.shape[1] % self.block
        block_BN = torch.nn.functional.pad(spanned_BT, (0, missing)).unflatten(1, (-1, self.block)).any(-1)
        order_BN = (~block_BN).to(torch.int8).argsort(dim=1, stable=True)
        return order_BN.int().contiguous(), block_BN.sum(1, dtype=torch.int32)


def masses(query: Tensor, key: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
    """The masses (B, H, R, S) and the rows' log-sum-exp (B, H, R), in units of log 2."""
    launch = _Launch(query, key, problem)
    B, H = query.shape[:2]
    R, S = problem.rows_BR.shape[1], problem.spans_BST.shape[1]
    mass_BHRS = torch.zeros(B, H, R, S, device=query.device)
    lse_BHR = problem.lse_rows()
    known = lse_BHR is not None
    if known:
        lse_BHR = (lse_BHR.float() * triton_kernel.LOG2E.value).contiguous()
    else:
        lse_BHR = torch.empty(B, H, R, device=query.device)
    if mass_BHRS.numel() == 0:
        return mass_BHRS, lse_BHR.zero_()
    blocks, counts = launch.span_blocks() if known else (lse_BHR, lse_BHR)  # not read where the softmax is computed
    numbers = list(launch.numbers)
    numbers[8] *= triton_kernel.LOG2E.value
    grid = (triton.cdiv(R, launch.block), B * H)
    triton_kernel.forward[grid](
        *launch.inputs, lse_BHR, mass_BHRS, blocks, counts, *numbers,
        COLUMNS=triton.next_power_of_2(S), KNOWN_LSE=known, **launch.sizes,
    )  # fmt: skip
    return mass_BHRS, lse_BHR


def gradients(grad_BHRS, mass_BHRS, lse_BHR, query: Tensor, key: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
    """Gradients of the query rows (B, H, R, D) in float32 and of the key (B, G, T, D)."""
    launch = _Launch(query, key, problem)
    (B, H, _, D), R = query.shape, problem.rows_BR.shape[1]
    grad_query = torch.zeros(B, H, R, D, device=query.device)
    grad_key = torch.zeros(key.shape, dtype=key.dtype, device=key.device)
    if mass_BHRS.numel() == 0:
        return grad_query, grad_key
    grad_BHRS = grad_BHRS.float().contiguous()
    baseline_BHR = (grad_BHRS * mass_BHRS).sum(-1)
    given = (*launch.inputs, lse_BHR, grad_BHRS, baseline_BHR)
    rows, keys = triton.cdiv(R, launch.block), triton.cdiv(key.shape[2], launch.block)
    triton_kernel.backward_query[rows, B * H](*given, grad_query, *launch.numbers, **launch.sizes)
    triton_kernel.backward_key[keys, B * key.shape[1]](*given, grad_key, *launch.numbers, **launch.sizes)
    return grad_query, grad_key
