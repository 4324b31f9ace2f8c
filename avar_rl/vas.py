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

from avar_rl.attention.roles import Role, role_counts
from avar_rl.guidance import sum_rows

# Shapes: L layers, B batch, S spans, H heads, R rows, N samples (B, or the sequences of a packed batch), T tokens.


@dataclass(frozen=True)
class HeadAttention:
    """Per sample, layer and head, float64 (N, L, H): means over the rows of a sample.

    image_mass_NLH is 0 where `seen_N` (bool) is False: no image, or no row. Everything else is 0 where `measured_N` is
    False: nothing seen, or no system turn.
    """

    vas_NLH: Tensor
    vas_with_sink_NLH: Tensor
    image_mass_NLH: Tensor
    system_mass_NLH: Tensor
    system_mass_with_sink_NLH: Tensor
    seen_N: Tensor
    measured_N: Tensor


@dataclass(frozen=True)
class VisualAttention:
    """Per sample, float64 (N,); 0 where `measured_N` (bool) is False: no image, no system turn, or no user text."""

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


def head_attention(
    mass_LBSHR: Tensor, rows_BR: Tensor, roles_BT: Tensor, *, cu_seqlens: Tensor | None = None
) -> HeadAttention:
    """VAS and its company for every sample, layer and head.

    Args:
        mass_LBSHR: masses of the layers on the spans of `vas_spans`, at `rows_BR`.
        rows_BR: `query_rows(roles, "all_user")`, or other rows.
        roles_BT, cu_seqlens: tell which samples have an image and a system turn, and where packed samples lie.
    """
    if mass_LBSHR.shape[2] != 3:
        raise ValueError(f"VAS needs the masses on the 3 spans of vas_spans, got {mass_LBSHR.shape[2]}")
    image, system, sink = mass_LBSHR.double().unbind(2)
    both = system + sink
    per_row = torch.stack([ratio(image, system), ratio(image, both), image, system, both], dim=2)
    sum_LNMH, rows_N = sum_rows(per_row, rows_BR, cu_seqlens)
    counts_NS = role_counts(roles_BT, [Role.IMAGE, Role.SYSTEM], cu_seqlens=cu_seqlens)
    seen_N = (counts_NS[:, 0] > 0) & (rows_N > 0)
    measured_N = seen_N & (counts_NS[:, 1] > 0)
    mean_NMLH = (sum_LNMH / rows_N.clamp(min=1)[:, None, None]).permute(1, 2, 0, 3)
    vas, vas_with_sink, image, system, both = mean_NMLH.masked_fill(~measured_N[:, None, None, None], 0.0).unbind(1)
    image = mean_NMLH[:, 2].masked_fill(~seen_N[:, None, None], 0.0)
    return HeadAttention(vas, vas_with_sink, image, system, both, seen_N, measured_N)


def visual_attention(
    mass_LBSHR: Tensor, rows_BR: Tensor, roles_BT: Tensor, *, cu_seqlens: Tensor | None = None
) -> VisualAttention:
    """VAS and its company for every sample; arguments as in `head_attention`, masses of all layers."""
    return average_heads(head_attention(mass_LBSHR, rows_BR, roles_BT, cu_seqlens=cu_seqlens))


def average_heads(heads: HeadAttention) -> VisualAttention:
    """Means over layers and heads, of samples that are measured."""
    measured = heads.measured_N
    names = ("vas", "vas_with_sink", "image_mass", "system_mass", "system_mass_with_sink")
    means = [getattr(heads, f"{name}_NLH").mean((1, 2)).masked_fill(~measured, 0.0) for name in names]
    _, _, image, system, both = means
    return VisualAttention(*means, ratio(image, system), ratio(image, both), measured)


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


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """In double precision: sums of huge ratios must stay finite."""
    return numerator.double() / denominator.double().clamp(min=torch.finfo(torch.float32).tiny)
