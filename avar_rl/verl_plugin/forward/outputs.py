"""What was recorded in a forward pass → nested (jagged) outputs, which verl carries back to the trainer.

Shapes: B rows of the input (1 when packed), N sequences of the micro-batch (B = N unless packed), T tokens, S spans
(IMAGE, SYSTEM), H heads, L layers, Q queries.
"""

from __future__ import annotations

import torch
from torch import Tensor

from avar_rl.guidance import GuidanceConfig, guidance_terms
from avar_rl.verl_plugin.forward.layout import Layout
from avar_rl.verl_plugin.forward.request import MASS_COLUMNS


def mass_outputs(masses_LBSHQ: Tensor, layout: Layout) -> dict[str, Tensor]:
    """Image and system mass (and that on the evidence boxes, where it was recorded) of each token of the response,
    heads averaged; 0 where the policy did not write it.

    Nested with T * L values a row (all layers of a token side by side): verl carries rows of one dimension best.
    """
    of_spans = masses_LBSHQ.mean(dim=3).unbind(dim=2)
    return {name: _per_token(mass_LBQ, layout) for name, mass_LBQ in zip(MASS_COLUMNS, of_spans, strict=False)}


def _per_token(value_LBQ: Tensor, layout: Layout) -> Tensor:
    layers = len(value_LBQ)
    dense_BTL = torch.zeros((*layout.input_ids_BT.shape, layers), dtype=torch.float32, device=value_LBQ.device)
    recorded_BQ = layout.positions_BQ >= 0
    batch_index = torch.arange(len(dense_BTL), device=dense_BTL.device)[:, None].expand_as(layout.positions_BQ)
    value_BQL = value_LBQ.permute(1, 2, 0).float()
    dense_BTL[batch_index[recorded_BQ], layout.positions_BQ[recorded_BQ]] = value_BQL[recorded_BQ]
    flat_XL, ends = dense_BTL[layout.valid_BT], layout.offsets[1:].tolist()
    responses = [flat_XL[end - n : end] for end, n in zip(ends, layout.lengths, strict=True)]
    offsets = torch.tensor([0, *layout.lengths], device=flat_XL.device).cumsum(0) * layers
    return torch.nested.nested_tensor_from_jagged(torch.cat(responses).flatten(), offsets)


def guidance_outputs(masses_LBSHQ: Tensor, layout: Layout, config: GuidanceConfig) -> dict[str, Tensor]:
    """L_enh and L_sup of each sequence (see `avar_rl.guidance`), 0 without an image.

    Nested, with one value in each row, as verl wants.
    """
    terms = guidance_terms(masses_LBSHQ, layout.positions_BQ, layout.roles_BT, config, cu_seqlens=layout.cu_seqlens)
    sequences = len(layout.offsets) - 1  # without the filling
    offsets = torch.arange(sequences + 1, device=terms.enhance_N.device)
    return {
        "guidance_enhance": torch.nested.nested_tensor_from_jagged(terms.enhance_N[:sequences], offsets),
        "guidance_suppress": torch.nested.nested_tensor_from_jagged(terms.suppress_N[:sequences], offsets),
    }
