"""Span masses of plain transformers, from whole attention maps, for comparison: in float32 and in bfloat16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avar_rl.attention.roles import Markup, query_positions, role_spans, token_roles
from avar_rl.guidance import GUIDED_ROLES
from benchmarks.cases import map_masses

# Shapes: L layers, S = 2 spans (image, system), Q queries.


def response_masses(
    folder: Path, rows: list[dict[str, Any]], tokenizer, dtype: torch.dtype, device: str
) -> list[Tensor]:
    """Of each row, float32 (S, L, Q): the masses of its response's tokens, heads averaged, by the model in `folder`."""
    from transformers import Qwen2_5_VLForConditionalGeneration

    loaded: Any = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=dtype, attn_implementation="eager")
    model, markup = loaded.to(device).eval(), Markup.from_tokenizer(tokenizer)
    return [_row_masses(model, row, markup, device) for row in rows]


@torch.no_grad()
def _row_masses(model, row: dict[str, Any], markup: Markup, device: str) -> Tensor:
    ids = row["input_ids"][None].to(device)
    images = {name: value.to(device) for name, value in row["multi_modal_inputs"].items()}
    types = (ids == markup.image_pad).long()
    output = model(input_ids=ids, mm_token_type_ids=types, **images, output_attentions=True, use_cache=False)
    roles = token_roles(ids, markup, response_mask=row["loss_mask"][None].bool().to(device))
    masses_LBSHQ = map_masses(output, role_spans(roles, GUIDED_ROLES), query_positions(roles, "response"))
    return masses_LBSHQ[:, 0].mean(2).transpose(0, 1).float().cpu()
