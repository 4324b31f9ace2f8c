"""Evidence boxes of a micro-batch's rows → which of its image tokens are REGION.

Shapes: B rows of the input (1 when packed), T tokens.
"""

from __future__ import annotations

from typing import Any

from tensordict import TensorDict
from torch import Tensor

from avar_rl.attention.regions import region_mask
from avar_rl.attention.roles import Markup, Role
from avar_rl.verl_plugin.forward.layout import Layout

EVIDENCE = "evidence"  # column: five numbers a box (`avar_rl.attention.regions.evidence_boxes`), flat


def mark_regions(
    layout: Layout, micro_batch: TensorDict, markup: Markup, image_grid_thw: Tensor | None, merge_size: int
) -> None:
    """Gives the image tokens in evidence boxes the role REGION, in `layout.roles_BT`.

    Args:
        image_grid_thw: the model's own, of all images of the micro-batch; None without any.
        merge_size: patches along the side of an image token.
    """
    region_BT = region_mask(
        layout.input_ids_BT,
        markup,
        [row.view(-1, 5) for row in rows_of(micro_batch[EVIDENCE])],
        image_grid_thw,
        merge_size,
        attention_mask=layout.valid_BT,
        cu_seqlens=layout.cu_seqlens,
        response_mask=layout.roles_BT == Role.RESPONSE,
    )
    layout.roles_BT.masked_fill_(region_BT, Role.REGION)


def rows_of(column: Any) -> list[Tensor]:
    """The rows of a nested column, or of one whose rows are all of one length."""
    if not column.is_nested:
        return list(column)
    return list(column.values().split(column.offsets().diff().tolist()))
