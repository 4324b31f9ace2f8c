"""A micro-batch as the model sees it: padded, or packed with `use_remove_padding`.

Shapes: B rows of the input (1 when packed), N sequences of the micro-batch (B = N unless packed), T tokens, Q queries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from avar_rl.attention.roles import Markup, Role, query_positions, role_counts, token_roles


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


def layout_of(
    micro_batch: TensorDict, ids_BT: Tensor, attention_mask: Tensor | None, pad_size: int, markup: Markup, queries: str
) -> Layout:
    """The layout of a micro-batch.

    Args:
        ids_BT: the very input ids of the model.
        attention_mask: (B, T) of the model; None when packed.
        pad_size: the tokens that verl filled a packed batch up with.
        queries: whose attention is recorded, as in `query_positions`.

    Raises:
        ValueError: a sequence with a response has no system turn.
    """
    offsets = _offsets(micro_batch, "input_ids")
    cu_seqlens, valid_BT = visible(ids_BT, attention_mask, offsets, pad_size)
    response_BT = torch.zeros_like(valid_BT)
    response_BT[valid_BT] = response_tokens(micro_batch, offsets)
    roles_BT = token_roles(ids_BT, markup, attention_mask=valid_BT, cu_seqlens=cu_seqlens, response_mask=response_BT)
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


def _values(batch: TensorDict, name: str) -> Tensor:
    """The values of a nested column, row after row."""
    column: Any = batch[name]
    return column.values()


def _offsets(batch: TensorDict, name: str) -> Tensor:
    """The (N+1,) offsets at which the rows of a nested column begin and end."""
    column: Any = batch[name]
    return column.offsets()
