"""Visual Attention Score (VAS, arXiv 2603.03825, section 2) of every sample, from span masses.

    VAS = 1/(L·H·|U|) Σ_l Σ_h Σ_{q∈U} mass_IMAGE(l, h, q) / mass_SYSTEM(l, h, q),    U = the USER text tokens

A mean of ratios. The ratio is heavy-tailed over heads, grows with the number of image tokens, shrinks with the length
of the system prompt, and is 0 for user text before the image; so image mass, system mass and the ratio of means stand
beside it.

Position 0 attracts attention for its place, not its content (the attention sink). In Qwen's chat markup it is
<|im_start|>, which belongs to no role, so `vas` leaves it out of SYSTEM. The numbers `*_with_sink` count it as part of
the system turn. The image never holds position 0, so its mass has no second reading.

No ε is published: a denominator of exactly 0 (underflow) counts as the smallest normal float32, so a ratio is huge,
never NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from avar_rl.guidance import sum_rows
from avar_rl.spans import Role, role_counts

# Shapes: L layers, B batch, S spans, H heads, R rows, N samples (B, or the sequences of a packed batch), T tokens.


@dataclass(frozen=True)
class VisualAttention:
    """Per sample, float32 (N,); 0 where `measured_N` (bool) is False: no image, no system turn, or no user text."""

    vas_N: Tensor
    vas_with_sink_N: Tensor
    image_mass_N: Tensor
    system_mass_N: Tensor
    system_mass_with_sink_N: Tensor
    ratio_of_means_N: Tensor
    ratio_of_means_with_sink_N: Tensor
    measured_N: Tensor


@dataclass(frozen=True)
class VasSummary:
    """Means over the `n` samples that could be measured; `excluded` had no image, system turn or user text."""

    vas: float
    vas_with_sink: float
    image_mass: float
    system_mass: float
    system_mass_with_sink: float
    ratio_of_means: float
    ratio_of_means_with_sink: float
    n: int
    excluded: int


def vas_spans(roles_BT: Tensor, *, cu_seqlens: Tensor | None = None, valid_BT: Tensor | None = None) -> Tensor:
    """bool (B, 3, T), the spans whose masses `visual_attention` takes: IMAGE; SYSTEM without position 0; position 0.

    Position 0 is the first token of a sequence; under left padding the first token that `valid_BT` does not call
    padding.
    """
    if cu_seqlens is not None:
        first = torch.zeros_like(roles_BT, dtype=torch.bool)
        first[0, cu_seqlens[:-1].long()] = True
    else:
        valid = torch.ones_like(roles_BT, dtype=torch.bool) if valid_BT is None else valid_BT.bool()
        first = valid & (valid.cumsum(1) == 1)
    return torch.stack([roles_BT == Role.IMAGE, (roles_BT == Role.SYSTEM) & ~first, first], dim=1)


def visual_attention(
    mass_LBSHR: Tensor, rows_BR: Tensor, roles_BT: Tensor, *, cu_seqlens: Tensor | None = None
) -> VisualAttention:
    """VAS and its company for every sample.

    Args:
        mass_LBSHR: masses of all layers on the spans of `vas_spans`, at `rows_BR`.
        rows_BR: `query_rows(roles, "all_user")`.
        roles_BT, cu_seqlens: tell which samples have an image and a system turn, and where packed samples lie.
    """
    if mass_LBSHR.shape[2] != 3:
        raise ValueError(f"VAS needs the masses on the 3 spans of vas_spans, got {mass_LBSHR.shape[2]}")
    image, system, sink = mass_LBSHR.unbind(2)
    both = system + sink
    per_row = torch.stack([_ratio(image, system), _ratio(image, both), image, system, both], dim=2)
    sum_LNMH, rows_N = sum_rows(per_row, rows_BR, cu_seqlens)
    counts_NS = role_counts(roles_BT, [Role.IMAGE, Role.SYSTEM], cu_seqlens=cu_seqlens)
    measured_N = (counts_NS > 0).all(1) & (rows_N > 0)
    mean_NM = sum_LNMH.mean((0, 3)) / rows_N.clamp(min=1)[:, None]
    vas, vas_with_sink, image, system, both = mean_NM.masked_fill(~measured_N[:, None], 0.0).unbind(1)
    return VisualAttention(
        vas, vas_with_sink, image, system, both, _ratio(image, system), _ratio(image, both), measured_N
    )


def summarise(samples: Sequence[VisualAttention]) -> VasSummary:
    """Means over every sample that could be measured, over all batches. ValueError where there is none."""
    measured = torch.cat([batch.measured_N for batch in samples]) if samples else torch.zeros(0, dtype=torch.bool)
    n = int(measured.sum())
    if n == 0:
        raise ValueError(
            f"VAS cannot be measured: none of {len(measured)} samples has an image, a system turn and user text"
        )
    names = [field.name.removesuffix("_N") for field in fields(VisualAttention) if field.name != "measured_N"]
    columns = {name: torch.cat([getattr(batch, f"{name}_N") for batch in samples]) for name in names}
    means = {name: column[measured].double().mean().item() for name, column in columns.items()}
    return VasSummary(**means, n=n, excluded=len(measured) - n)


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    return numerator / denominator.clamp(min=torch.finfo(denominator.dtype).tiny)
