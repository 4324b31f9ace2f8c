"""Launches the Triton kernels of span mass. Same routines as `avar_rl.attention.span_mass.chunked`.

A layer's masses are one launch, or two where the log-sum-exp is not known; what layers have in common is computed once
(`_Shared`, kept on the problem).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import triton
from torch import Tensor

from avar_rl.attention.span_mass import triton_kernel
from avar_rl.attention.span_mass.problem import Problem

# Shapes: B batch, H query heads, G key-value heads, T tokens, D head dim, S spans, Q queries, N key blocks, P pairs of
# spans.


@dataclass(frozen=True)
class _Tile:
    """Queries and keys of a tile, warps that compute it, and stages of the pipeline that loads keys."""

    queries: int
    keys: int
    warps: int
    stages: int


# Of half precision, for head dimensions up to 128. The first two were the fastest of ten and of five on an H100 at 16k
# tokens; a warp holds whole rows, so that no sum crosses warps. ptxas spills 120 bytes of the first (sm_90), nothing of
# the others; with 4 warps it would of the backward pass where the head dimension is over 64.
_MASSES, _LOG_SUM_EXP = _Tile(128, 64, 4, 3), _Tile(128, 32, 4, 3)
_BACKWARD, _BACKWARD_NARROW = _Tile(64, 64, 8, 2), _Tile(64, 64, 4, 2)
_FLOAT32, _WIDE = _Tile(32, 32, 4, 2), _Tile(64, 32, 8, 2)  # of float32; of head dimensions over 128


@dataclass(frozen=True)
class _Shared:
    """What the kernels read of a problem, the same for all layers."""

    problem: Problem

    @classmethod
    def of(cls, problem: Problem) -> _Shared:
        kept: dict = vars(problem)
        return kept.setdefault("triton_shared", cls(problem))

    @cached_property
    def inputs(self) -> tuple[Tensor, ...]:
        """int32: the bits of each key (B, T), positions (-1: none) and first keys of the queries (B, Q)."""
        problem = self.problem
        S = problem.spans_BST.shape[1]
        place_S = torch.arange(S, device=problem.spans_BST.device, dtype=torch.int32)
        bits = (problem.spans_BST.int() << place_S[:, None]).sum(1, dtype=torch.int32)
        valid = torch.ones_like(bits) if problem.valid_BT is None else problem.valid_BT.int()
        bits |= valid << triton_kernel.VALID.value
        positions = problem.positions_BQ.masked_fill(~problem.alive_BQ, -1).int().contiguous()
        first = torch.zeros_like(positions) if problem.first_BQ is None else problem.first_BQ.int().contiguous()
        return bits, positions, first

    @cached_property
    def members(self) -> Tensor:
        """float32 (P, B, 2, T): 1 for keys of a pair's two spans that are no padding, else 0; an odd span's partner is
        empty."""
        spans_BST, valid_BT = self.problem.spans_BST, self.problem.valid_BT
        if valid_BT is not None:
            spans_BST = spans_BST & valid_BT.bool()[:, None]
        padded = torch.nn.functional.pad(spans_BST, (0, 0, 0, spans_BST.shape[1] % 2))
        return padded.unflatten(1, (-1, 2)).transpose(0, 1).float().contiguous()

    @cached_property
    def _blocks(self) -> dict[int, tuple[Tensor, Tensor]]:
        return {}

    def span_blocks(self, block: int) -> tuple[Tensor, Tensor]:
        """Of each pair of spans, int32 (P, B, N): its key blocks, those with a key of the pair first, ascending; int32
        (P, B, N + 1): how many of these come before block 0, 1, …, N."""
        if block not in self._blocks:
            spanned_PBT = self.members.any(2)
            padded = torch.nn.functional.pad(spanned_PBT, (0, -spanned_PBT.shape[2] % block))
            spanned_PBN = padded.unflatten(2, (-1, block)).any(3)
            order_PBN = (~spanned_PBN).to(torch.int8).argsort(dim=2, stable=True)
            ranks_PBN = torch.nn.functional.pad(spanned_PBN.cumsum(2), (1, 0))
            self._blocks[block] = order_PBN.int().contiguous(), ranks_PBN.int().contiguous()
        return self._blocks[block]


@dataclass(frozen=True)
class _Layer:
    """Query and key of one layer, and how the kernels run on them."""

    query: Tensor
    key: Tensor
    scale: float

    def sizes(self, tile: _Tile) -> dict:
        """Compile-time constants, `tile` where it suits. Products of float32 are plain multiplications, which take more
        registers; wide heads take more shared memory than small cards have."""
        D = self.query.shape[-1]
        if self.query.dtype == torch.float32:
            tile = _FLOAT32
        elif D > 128:
            tile = _WIDE
        blocks = dict(BLOCK_D=max(16, triton.next_power_of_2(D)), BLOCK_Q=tile.queries, BLOCK_K=tile.keys)
        widen = self.query.device.type == "cpu" and self.query.dtype == torch.bfloat16
        return dict(D=D, **blocks, WIDEN=widen, num_warps=tile.warps, num_stages=tile.stages)

    def numbers(self, Q: int) -> tuple:
        """Strides of query and key, the scale, H, heads per group, T, Q."""
        H, T = self.query.shape[1:3]
        return *self.query.stride(), *self.key.stride(), self.scale, H, H // self.key.shape[1], T, Q


def masses(query: Tensor, key: Tensor, problem: Problem, scale: float, lse_BHT: Tensor | None) -> tuple[Tensor, Tensor]:
    """The masses (B, H, Q, S) and the queries' log-sum-exp (B, H, Q), the latter in units of log 2."""
    shared, layer = _Shared.of(problem), _Layer(query, key, scale)
    B, H = query.shape[:2]
    Q, S = problem.positions_BQ.shape[1], problem.spans_BST.shape[1]
    mass_BHQS = torch.empty(B, H, Q, S, device=query.device)
    lse_BHQ = torch.empty(B, H, Q, device=query.device)
    if mass_BHQS.numel() == 0:
        return mass_BHQS, lse_BHQ.zero_()
    numbers = layer.numbers(Q)
    log_sum_exp: Any = triton_kernel.log_sum_exp  # Triton types a launch as a call of the function itself
    kernel: Any = triton_kernel.masses
    if lse_BHT is None:
        sizes = layer.sizes(_LOG_SUM_EXP)
        log_sum_exp[triton.cdiv(Q, sizes["BLOCK_Q"]), B * H](query, key, *shared.inputs, lse_BHQ, *numbers, **sizes)
    lse, strides = (lse_BHQ, (0, 0, 0)) if lse_BHT is None else (lse_BHT, lse_BHT.stride())
    sizes = layer.sizes(_MASSES)
    _, positions, first = shared.inputs
    kernel[triton.cdiv(Q, sizes["BLOCK_Q"]), B * H, triton.cdiv(S, 2)](
        query, key, shared.members, positions, first, lse, lse_BHQ, mass_BHQS, *shared.span_blocks(sizes["BLOCK_K"]),
        *numbers, *strides, S=S, KNOWN_LSE=lse_BHT is not None, **sizes,
    )  # fmt: skip
    return mass_BHQS, lse_BHQ


def gradients(
    grad_BHQS, mass_BHQS, lse_BHQ, query: Tensor, key: Tensor, problem: Problem, scale: float
) -> tuple[Tensor, Tensor]:
    """Gradients of the wanted queries (B, H, Q, D) in float32 and of the key (B, G, T, D) in its own type."""
    layer = _Layer(query, key, scale)
    (B, H, _, D), Q, S = query.shape, problem.positions_BQ.shape[1], problem.spans_BST.shape[1]
    grad_query = torch.empty(B, H, Q, D, device=query.device)
    grad_key = torch.empty(key.shape, dtype=key.dtype, device=key.device)
    if mass_BHQS.numel() == 0:
        return grad_query, grad_key.zero_()
    sizes, numbers = layer.sizes(_BACKWARD if D > 64 else _BACKWARD_NARROW), layer.numbers(Q)
    given = (query, key, *_Shared.of(problem).inputs, lse_BHQ, grad_BHQS.float().contiguous(), mass_BHQS)
    backward_query: Any = triton_kernel.backward_query
    backward_key: Any = triton_kernel.backward_key
    tiles = triton.cdiv(Q, sizes["BLOCK_Q"]), triton.cdiv(key.shape[2], sizes["BLOCK_K"])
    backward_query[tiles[0], B * H](*given, grad_query, *numbers, S=S, **sizes)
    backward_key[tiles[1], B * key.shape[1]](*given, grad_key, *numbers, S=S, **sizes)
    return grad_query, grad_key
