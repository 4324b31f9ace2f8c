"""A micro-batch as the model sees it: padded, or packed with `use_remove_padding`.

Shapes: B rows of the input (1 when packed), N sequences of the micro-batch (B = N unless packed), T tokens, Q queries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from avar_rl.attention.regions import region_mask
from avar_rl.attention.roles import Markup, Role, query_positions, role_counts, token_roles

EVIDENCE = "evidence"  # column: five numbers a box (`avar_rl.attention.regions.evidence_boxes`), flat


@dataclass
class Layout:
    """One micro-batch with the role of each token and the positions of the queries that are recorded.

    cu_seqlens: (N+1,) when packed; (N+2,) where verl filled the packed batch up; None when padded.
    offsets: (N+1,) jagged offsets of the micro-batch.
    lengths: (N,) of the responses; in SFT, of the whole sequences.
    """

    input_ids_BT: Tensor
    valid_BT: Tensor
    cu_seqlens: Tensor | None
    offsets: Tensor
    lengths: list[int]
    roles_BT: Tensor
    positions_BQ: Tensor


@dataclass(frozen=True)
class ImageGrids:
    """Where image tokens lie in their images: `image_grid_thw` of the model's inputs, int (I, 3), None without images;
    merge_size: patches along the side of a token."""

    image_grid_thw: Tensor | None
    merge_size: int


def layout_of(
    micro_batch: TensorDict,
    ids_BT: Tensor,
    attention_mask: Tensor | None,
    pad_size: int,
    markup: Markup,
    queries: str,
    grids: ImageGrids | None = None,
) -> Layout:
    """The layout of a micro-batch.

    Args:
        ids_BT: the very input ids of the model.
        attention_mask: (B, T) of the model; None when packed.
        pad_size: the tokens that verl filled a packed batch up with.
        queries: whose attention is recorded, as in `query_positions`.
        grids: image tokens in the rows' evidence boxes (column EVIDENCE) are REGION; None: none are.

    Raises:
        ValueError: a sequence with a response has no system turn, or boxes do not fit the images.
    """
    offsets = _offsets(micro_batch, "input_ids")
    cu_seqlens, valid_BT = visible(ids_BT, attention_mask, offsets, pad_size)
    response_BT = torch.zeros_like(valid_BT)
    response_BT[valid_BT] = response_tokens(micro_batch, offsets)
    masks = dict(attention_mask=valid_BT, cu_seqlens=cu_seqlens, response_mask=response_BT)
    region_BT = None
    if grids is not None:
        boxes = [row.view(-1, 5) for row in rows_of(micro_batch[EVIDENCE])]
        region_BT = region_mask(ids_BT, markup, boxes, grids.image_grid_thw, grids.merge_size, **masks)
    roles_BT = token_roles(ids_BT, markup, **masks, region_mask=region_BT)
    require_system(roles_BT, cu_seqlens)
    positions_BQ = query_positions(roles_BT, queries, cu_seqlens=cu_seqlens)
    lengths = _offsets(micro_batch, "response_mask") if "response_mask" in micro_batch.keys() else offsets
    return Layout(ids_BT, valid_BT, cu_seqlens, offsets, lengths.diff().tolist(), roles_BT, positions_BQ)


def visible(
    ids_BT: Tensor, attention_mask: Tensor | None, offsets: Tensor, pad_size: int
) -> tuple[Tensor | None, Tensor]:
    """Borders of a packed batch (None if padded) and which tokens are no padding. Where verl filled a packed batch up
    (Ulysses, pad_to_length), the filling at its end is a sequence of its own."""
    if attention_mask is not None:
        return None, attention_mask.bool()
    cu_seqlens = offsets.to(torch.int32)
    if pad_size:
        cu_seqlens = torch.cat([cu_seqlens, cu_seqlens[-1:] + pad_size])
    return cu_seqlens, (torch.arange(ids_BT.shape[1], device=ids_BT.device) < offsets[-1])[None]


def require_system(roles_BT: Tensor, cu_seqlens: Tensor | None) -> None:
    """Every sequence with a response has a system turn. verl's filler rows (padding_utils.py:139) have neither."""
    counts_NS = role_counts(roles_BT, [Role.SYSTEM, Role.RESPONSE], cu_seqlens=cu_seqlens)
    without = ((counts_NS[:, 0] == 0) & (counts_NS[:, 1] > 0)).nonzero()[:, 0].tolist()
    if without:
        raise ValueError(
            f"rows {without} of a micro-batch have no SYSTEM token, which span masses are measured against: "
            "the chat template must write a system turn, as Qwen's does by default"
        )


def response_tokens(micro_batch: TensorDict, offsets: Tensor) -> Tensor:
    """Flat bool (offsets[-1],): the response tokens, by verl's own masks (SFT: loss_mask; GRPO: response_mask)."""
    if "response_mask" not in micro_batch.keys():
        return _values(micro_batch, "loss_mask").bool()
    mask, lengths = _values(micro_batch, "response_mask"), _offsets(micro_batch, "response_mask").diff()
    flat = torch.zeros(int(offsets[-1]), dtype=torch.bool, device=mask.device)
    starts = offsets[1:] - lengths  # responses are the tails of their sequences
    first = lengths.cumsum(0) - lengths
    index = torch.arange(len(mask), device=flat.device) - first.repeat_interleave(lengths)
    flat[index + starts.repeat_interleave(lengths)] = mask.bool()
    return flat


def rows_of(column: Any) -> list[Tensor]:
    """The rows of a nested column, or of one whose rows are all of one length."""
    if not column.is_nested:
        return list(column)
    return list(column.values().split(column.offsets().diff().tolist()))


def _values(batch: TensorDict, name: str) -> Tensor:
    """The values of a nested column, row after row."""
    column: Any = batch[name]
    return column.values()


def _offsets(batch: TensorDict, name: str) -> Tensor:
    """The (N+1,) offsets at which the rows of a nested column begin and end."""
    column: Any = batch[name]
    return column.offsets()
