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

from avar_rl.attention.pooling import sum_queries
from avar_rl.attention.roles import Role, has_role, role_counts

# Shapes: L layers, B batch, S spans, H heads, Q queries, N samples (B, or the sequences of a packed batch), T tokens.


@dataclass(frozen=True)
class HeadAttention:
    """VAS and masses of every sample, layer and head, float64 (N, L, H): means over the queries of the sample.

    image_mass_NLH is 0 where `seen_N`, bool (N,), is False: no image, or no query. The others are 0 where `measured_N`,
    bool (N,), is False: not seen, or no system turn.
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
    """VAS and masses of every sample, float64 (N,): means over layers, heads and queries.

    They are 0 where `measured_N`, bool (N,), is False: the sample has no image, no system turn, or no query.
    """

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
    """Means over the `n` samples that could be measured; `excluded` more had no image, system turn or user text."""

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
    """The spans whose masses `visual_attention` takes, bool (B, 3, T): IMAGE; SYSTEM without position 0; position 0.

    Args:
        roles_BT: int8, the role of every token.
        cu_seqlens: int (N+1), borders of the sequences of a packed batch (then B = 1); None where nothing is packed.
        valid_BT: bool, False on padding; None where there is none.

    Position 0 is the first token of a sequence; under left padding the first token that `valid_BT` does not call
    padding.
    """
    if cu_seqlens is not None:
        first = torch.zeros_like(roles_BT, dtype=torch.bool)
        first[0, cu_seqlens[:-1].long()] = True
    else:
        valid = torch.ones_like(roles_BT, dtype=torch.bool) if valid_BT is None else valid_BT.bool()
        first = valid & (valid.cumsum(1) == 1)
    return torch.stack([has_role(roles_BT, Role.IMAGE), has_role(roles_BT, Role.SYSTEM) & ~first, first], dim=1)


def head_attention(
    mass_LBSHQ: Tensor, positions_BQ: Tensor, roles_BT: Tensor, *, cu_seqlens: Tensor | None = None
) -> HeadAttention:
    """VAS and its company for every sample, layer and head.

    Args:
        mass_LBSHQ: masses of the wanted layers on the spans of `vas_spans`, of the queries at `positions_BQ`.
        positions_BQ: int64, padded with -1: `query_positions(roles, "all_user")`, or positions of other queries.
        roles_BT: int8, the role of every token: which samples have an image and a system turn.
        cu_seqlens: int (N+1), borders of the sequences of a packed batch (then B = 1); None where nothing is packed.

    Raises:
        ValueError: the masses are not those of three spans.
    """
    if mass_LBSHQ.shape[2] != 3:
        raise ValueError(f"VAS needs the masses on the 3 spans of vas_spans, got {mass_LBSHQ.shape[2]}")
    image, system, sink = mass_LBSHQ.double().unbind(2)
    both = system + sink
    per_query = torch.stack([ratio(image, system), ratio(image, both), image, system, both], dim=2)
    sum_LNMH, queries_N = sum_queries(per_query, positions_BQ, cu_seqlens)
    counts_NS = role_counts(roles_BT, [Role.IMAGE, Role.SYSTEM], cu_seqlens=cu_seqlens)
    seen_N = (counts_NS[:, 0] > 0) & (queries_N > 0)
    measured_N = seen_N & (counts_NS[:, 1] > 0)
    mean_NMLH = (sum_LNMH / queries_N.clamp(min=1)[:, None, None]).permute(1, 2, 0, 3)
    vas, vas_with_sink, image, system, both = mean_NMLH.masked_fill(~measured_N[:, None, None, None], 0.0).unbind(1)
    image = mean_NMLH[:, 2].masked_fill(~seen_N[:, None, None], 0.0)
    return HeadAttention(vas, vas_with_sink, image, system, both, seen_N, measured_N)


def visual_attention(
    mass_LBSHQ: Tensor, positions_BQ: Tensor, roles_BT: Tensor, *, cu_seqlens: Tensor | None = None
) -> VisualAttention:
    """VAS and its company for every sample, means over all layers and heads given; arguments as in `head_attention`."""
    return average_heads(head_attention(mass_LBSHQ, positions_BQ, roles_BT, cu_seqlens=cu_seqlens))


def average_heads(heads: HeadAttention) -> VisualAttention:
    """Means over layers and heads of the samples that are measured; 0 for the others."""
    measured = heads.measured_N

    def mean(values_NLH: Tensor) -> Tensor:
        return values_NLH.mean((1, 2)).masked_fill(~measured, 0.0)

    image, system, both = mean(heads.image_mass_NLH), mean(heads.system_mass_NLH), mean(heads.system_mass_with_sink_NLH)
    return VisualAttention(
        vas_N=mean(heads.vas_NLH),
        vas_with_sink_N=mean(heads.vas_with_sink_NLH),
        image_mass_N=image,
        system_mass_N=system,
        system_mass_with_sink_N=both,
        ratio_of_means_N=ratio(image, system),
        ratio_of_means_with_sink_N=ratio(image, both),
        measured_N=measured,
    )


def summarise(samples: Sequence[VisualAttention]) -> VasSummary:
    """Means over every sample that could be measured, in all batches together. ValueError where there is none."""
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
    """numerator / denominator, float64, with a denominator of 0 taken as the smallest normal float32.

    Double precision, as sums of such huge ratios must stay finite.
    """
    return numerator.double() / denominator.double().clamp(min=torch.finfo(torch.float32).tiny)
