"""Evidence boxes → image tokens: which tokens of a batch are REGION (`avar_rl.attention.roles`).

The processor cuts an image of H x W pixels, resized, into a grid of t x h x w patches (`image_grid_thw`, t = 1) and
merges m x m of them into a token (`merge_size`), row by row. So token k of an image is the cell in row k // (w/m) and
column k % (w/m) of a grid of h/m x w/m equal cells. Resizing keeps fractions of the image, so boxes travel as such. A
token is in the region where its cell and a box have more than nothing in common: an edge in common is nothing, and the
smallest box has a token.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from avar_rl.attention.roles import Markup, prompt_ids, sequence_ids
from avar_rl.runtime.evidence import Evidence, box_fractions

# Shapes: B batch, T tokens, N sequences (B, or those of a packed batch), X boxes, I images, P image tokens of a batch.

NO_BOX = -1  # stands for the index of an image in the one box of a sequence without boxes


def evidence_boxes(evidence: Evidence, sizes: Sequence[tuple[int, int]]) -> Tensor:
    """The boxes of a data row as `region_mask` takes them, float32 (X, 5), X > 0.

    Args:
        evidence: pixel boxes of each image (`avar_rl.runtime.evidence`).
        sizes: (width, height) of each image in pixels, at the size that the boxes are about.

    Returns:
        Image index, x0, y0, x1, y1 of each box as fractions of its image; one box of index NO_BOX where there is none,
        so that a column of rows has no empty entry.

    Raises:
        EvidenceError: a box does not fit its image.
    """
    boxes = list(box_fractions(evidence, sizes)) or [(NO_BOX, 0.0, 0.0, 0.0, 0.0)]
    return torch.tensor(boxes, dtype=torch.float32)


def region_mask(
    input_ids: Tensor,
    markup: Markup,
    boxes: Sequence[Tensor],
    image_grid_thw: Tensor | None,
    merge_size: int,
    *,
    attention_mask: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    response_mask: Tensor | None = None,
) -> Tensor:
    """Which tokens lie in an evidence box: bool (B, T), for `token_roles(region_mask=…)`. Synchronises with the device.

    Args:
        input_ids: int64 (B, T); `markup`, `attention_mask`, `cu_seqlens` and `response_mask` as in `token_roles`.
        boxes: float (X, 5) for each sequence, as `evidence_boxes` makes them: the image's index within the sequence,
            then fractions of that image. Sequences after the last of them (verl's filling) have no boxes.
        image_grid_thw: int (I, 3), the processor's grid of patches of every image of the batch, in the order of their
            tokens; None where the batch has no image. Videos, which have a grid of their own, are never in a region.
        merge_size: patches along the side of a token: `processor.image_processor.merge_size`.

    Raises:
        ValueError: the image tokens are not those of the grids, or a box names an image that its sequence lacks.
    """
    ids = prompt_ids(input_ids, attention_mask=attention_mask, response_mask=response_mask)
    pads_BT = ids == markup.image_pad
    box_X5, sequence_X = _stacked(boxes, input_ids.device)
    region_BT = torch.zeros_like(pads_BT)
    if not len(box_X5):
        return region_BT
    if image_grid_thw is None or not len(image_grid_thw):
        raise ValueError(f"there are {len(box_X5)} evidence boxes, but the batch has no image")
    merged_I2 = image_grid_thw[:, 1:] // merge_size
    tokens_I = image_grid_thw[:, 0] * merged_I2.prod(1)
    sequence_P = sequence_ids(ids, cu_seqlens)[pads_BT]
    if int(tokens_I.sum()) != len(sequence_P):
        raise ValueError(
            f"the batch has {len(sequence_P)} image tokens, but its grids {image_grid_thw.tolist()} make "
            f"{int(tokens_I.sum())} (merge_size {merge_size})"
        )
    starts_I = tokens_I.cumsum(0) - tokens_I
    image_X = _image_of_box(box_X5[:, 0].long(), sequence_X, sequence_P[starts_I])
    region_BT[pads_BT] = _in_a_box(box_X5[:, 1:], image_X, tokens_I, starts_I, merged_I2)
    return region_BT


def _stacked(boxes: Sequence[Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    """All real boxes of a batch, (X, 5), and the sequence of each, int64 (X,)."""
    if not boxes:
        return torch.zeros(0, 5, device=device), torch.zeros(0, dtype=torch.int64, device=device)
    box_X5 = torch.cat(list(boxes)).to(device)
    counts_N = torch.tensor([len(boxes_X5) for boxes_X5 in boxes], device=device)
    sequence_X = torch.arange(len(boxes), device=device).repeat_interleave(counts_N)
    real_X = box_X5[:, 0] >= 0
    return box_X5[real_X], sequence_X[real_X]


def _image_of_box(index_X: Tensor, sequence_X: Tensor, sequence_I: Tensor) -> Tensor:
    """Which image of the batch each box is about, int64 (X,), from the index within its sequence.

    ValueError: the sequence has no such image.
    """
    image_X = torch.searchsorted(sequence_I, sequence_X) + index_X
    there_X = image_X < len(sequence_I)
    there_X &= sequence_I[image_X.clamp(max=len(sequence_I) - 1)] == sequence_X
    if not bool(there_X.all()):
        lost = int((~there_X).nonzero()[0])
        raise ValueError(
            f"an evidence box is about image {int(index_X[lost])} of sequence {int(sequence_X[lost])}, which has none"
        )
    return image_X


def _in_a_box(box_X4: Tensor, image_X: Tensor, tokens_I: Tensor, starts_I: Tensor, merged_I2: Tensor) -> Tensor:
    """bool (P,): the cell of an image token and a box of its image overlap.

    Sides of cells are quotients in the boxes' own precision: a box that ends where a cell does compares as equal.
    """
    image_P = torch.arange(len(tokens_I), device=tokens_I.device).repeat_interleave(tokens_I)
    height_P, width_P = merged_I2[image_P].unbind(1)
    cell_P = (torch.arange(len(image_P), device=image_P.device) - starts_I[image_P]) % (height_P * width_P)
    row_P, column_P = cell_P // width_P, cell_P % width_P
    x0_X1, y0_X1, x1_X1, y1_X1 = box_X4[:, :, None].unbind(1)

    def quotient(numerator: Tensor, denominator: Tensor) -> Tensor:
        return numerator.to(box_X4.dtype) / denominator.to(box_X4.dtype)

    inside_XP = image_X[:, None] == image_P
    inside_XP &= (x0_X1 < quotient(column_P + 1, width_P)) & (x1_X1 > quotient(column_P, width_P))
    inside_XP &= (y0_X1 < quotient(row_P + 1, height_P)) & (y1_X1 > quotient(row_P, height_P))
    return inside_XP.any(0)
