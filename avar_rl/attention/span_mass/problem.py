"""What span mass is asked for in every layer, checked: wanted queries, what each of them sees, spans."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

# Shapes: B batch, H query heads, G key-value heads, T tokens, D head dim, S spans, Q queries.


@dataclass(frozen=True)
class Problem:
    """What span mass is asked for, whatever the layer: the tensors below in the shapes of their suffixes, checked.

    An implementation may keep what it derives from them on the instance (as cached properties do): layers share it.
    """

    spans_BST: Tensor
    positions_BQ: Tensor  # clamped to >= 0
    alive_BQ: Tensor  # False for queries of -1 and padding
    first_BQ: Tensor | None  # first visible position of each query; None where that is 0
    valid_BT: Tensor | None
    all_queries: bool

    @classmethod
    def build(
        cls,
        spans: Tensor,
        query_positions: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> Problem:
        """Checks the arguments of `span_mass`, whose names and shapes these are. ValueError: they do not fit."""
        _check(spans, query_positions, cu_seqlens, valid)
        B, _, T = spans.shape
        all_queries = query_positions is None
        if query_positions is None:
            query_positions = torch.arange(T, device=spans.device).expand(B, T)
        alive = query_positions >= 0
        positions = query_positions.clamp(min=0)
        if valid is not None:
            alive = alive & valid.bool().gather(1, positions)
        first = None
        if cu_seqlens is not None:
            borders = cu_seqlens.to(positions)
            first = borders[torch.bucketize(positions, borders[1:-1], right=True)]
        return cls(spans, positions, alive, first, valid, all_queries)

    def check(self, query: Tensor, key: Tensor, lse: Tensor | None) -> None:
        """ValueError: what attention has in a layer does not fit; names and shapes are those of `span_mass`."""
        B, H, T, D = query.shape
        if key.ndim != 4 or key.shape[0] != B or key.shape[2:] != (T, D) or H % key.shape[1]:
            raise ValueError(
                f"key has shape {tuple(key.shape)}, query {tuple(query.shape)}: they must agree but for the heads, and "
                "query heads be a multiple of key heads. Span mass needs the whole sequence in one pass, no key cache."
            )
        if (self.spans_BST.shape[0], self.spans_BST.shape[2]) != (B, T):
            raise ValueError(
                f"spans, {tuple(self.spans_BST.shape)}, must be (B={B}, S, T={T}) for a query {tuple(query.shape)}"
            )
        if lse is not None and lse.shape != (B, H, T):
            raise ValueError(f"lse must have shape (B, H, T) = {(B, H, T)}, not {tuple(lse.shape)}")

    def with_spans(self, spans: slice) -> Problem:
        """The same problem for some of the spans."""
        return replace(self, spans_BST=self.spans_BST[:, spans])

    def take_queries(self, x_BHTD: Tensor) -> Tensor:
        """The wanted queries: (B, H, T, D) → (B, H, Q, D)."""
        if self.all_queries:
            return x_BHTD
        return x_BHTD.gather(2, self._query_index(x_BHTD))

    def put_queries(self, x_BHQD: Tensor, shape_BHTD: torch.Size) -> Tensor:
        """The transpose of `take_queries`, (B, H, Q, D) → (B, H, T, D): zero at positions that are not wanted."""
        if self.all_queries:
            return x_BHQD
        return x_BHQD.new_zeros(shape_BHTD).scatter_add_(2, self._query_index(x_BHQD), x_BHQD)

    def lse_of_queries(self, lse_BHT: Tensor) -> Tensor:
        """The log-sum-exp (B, H, Q) of the wanted queries.

        It is infinite for queries that do not count, so that they weigh nothing: kernels leave anything there, NaN
        included.
        """
        lse_BHQ = self.take_queries(lse_BHT[..., None])[..., 0]
        return lse_BHQ.masked_fill(~self.alive_BQ[:, None], torch.inf)

    def _query_index(self, x_BHxD: Tensor) -> Tensor:
        B, H, _, D = x_BHxD.shape
        return self.positions_BQ[:, None, :, None].expand(B, H, self.positions_BQ.shape[1], D)


def _check(spans, positions, cu_seqlens, valid) -> None:
    if spans.dtype != torch.bool or spans.ndim != 3:
        raise ValueError(f"spans must be bool (B, S, T), not {spans.dtype} {tuple(spans.shape)}")
    B, _, T = spans.shape
    if positions is not None and (positions.dtype != torch.int64 or positions.ndim != 2 or positions.shape[0] != B):
        raise ValueError(f"query_positions must be int64 (B={B}, Q), not {positions.dtype} {tuple(positions.shape)}")
    if cu_seqlens is not None and B != 1:
        raise ValueError(f"a packed batch (cu_seqlens given) has B = 1, not {B}")
    if valid is not None and valid.shape != (B, T):
        raise ValueError(f"valid must have shape (B, T) = {(B, T)}, not {tuple(valid.shape)}")
