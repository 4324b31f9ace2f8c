"""The checked arguments of span mass, apart from query and key: which rows, which keys each row sees, the spans."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

# Shapes: B batch, H query heads, G key-value heads, T tokens, D head dim, S spans, R rows.


@dataclass(frozen=True)
class Problem:
    spans_BST: Tensor
    rows_BR: Tensor  # clamped to >= 0
    alive_BR: Tensor  # False for rows of -1 and padding
    first_BR: Tensor | None  # first visible position of each row; None where that is 0
    valid_BT: Tensor | None
    lse_BHT: Tensor | None
    all_rows: bool
    scale: float

    @classmethod
    def build(cls, query, key, spans, rows, scale, cu_seqlens, lse, valid) -> Problem:
        """ValueError: shapes or types that do not fit. Arguments as in `span_mass`."""
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
        lse = None if lse is None else lse.detach()  # a function of query and key, whose gradient is accounted for
        return cls(spans, rows, alive, first, valid, lse, all_rows, D**-0.5 if scale is None else scale)

    def with_spans(self, spans: slice) -> Problem:
        return replace(self, spans_BST=self.spans_BST[:, spans])

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

    def lse_rows(self) -> Tensor | None:
        """(B, H, R), where the log-sum-exp is known; infinite for rows that do not count, so that they weigh nothing.

        Kernels leave anything there, NaN included.
        """
        if self.lse_BHT is None:
            return None
        lse_BHR = self.take_rows(self.lse_BHT[..., None])[..., 0]
        return lse_BHR.masked_fill(~self.alive_BR[:, None], torch.inf)

    def _row_index(self, x_BHxD: Tensor) -> Tensor:
        B, H, _, D = x_BHxD.shape
        return self.rows_BR[:, None, :, None].expand(B, H, self.rows_BR.shape[1], D)


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
