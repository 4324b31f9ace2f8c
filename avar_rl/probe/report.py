"""Attention of samples → figures with bootstrap intervals, by model, layer and head → JSON, table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from avar_rl.runtime import tables
from avar_rl.runtime.bootstrap import bootstrap
from avar_rl.vas import HeadAttention, ratio

# Shapes: N samples, L layers, H heads, M any figures of a sample.

WIDE, PANORAMIC = 10.0, 15.0  # the paper's bands of VAS, for 7B models


def band(vas: float) -> str:
    """The name that arXiv 2603.03825, section 2, has for a VAS: narrow below 10, panoramic above 15, else wide."""
    return "narrow" if vas < WIDE else "wide" if vas <= PANORAMIC else "panoramic"


@dataclass(frozen=True)
class Figure:
    """One measure, such as VAS, over `n` samples: of the whole model, of its layers (L,) and of its heads (L, H).

    Each is a mean with its bootstrap interval (low, high), which is None for fewer than two samples.
    """

    n: int
    mean: float
    interval: tuple[float, float] | None
    mean_L: Tensor
    interval_L: tuple[Tensor, Tensor] | None
    mean_LH: Tensor
    interval_LH: tuple[Tensor, Tensor] | None


def figures(heads: HeadAttention) -> dict[str, Figure | None]:
    """Every measure by name; None where no sample has it: no image or, for all but image mass, no system turn."""
    image, system, both = heads.image_mass_NLH, heads.system_mass_NLH, heads.system_mass_with_sink_NLH
    keep = heads.measured_N
    return {
        "vas": _figure(heads.vas_NLH, keep),
        "vas_with_sink": _figure(heads.vas_with_sink_NLH, keep),
        "image_mass": _figure(image, heads.seen_N),
        "system_mass": _figure(system, keep),
        "system_mass_with_sink": _figure(both, keep),
        "ratio_of_means": _figure(image, keep, over=system),
        "ratio_of_means_with_sink": _figure(image, keep, over=both),
    }


def _figure(values_NLH: Tensor, keep_N: Tensor, over: Tensor | None = None) -> Figure | None:
    """With `over`, the ratio of the two means of a sample, taken after averaging over layers and heads."""
    values, n = values_NLH[keep_N], int(keep_N.sum())
    if n == 0:
        return None

    def level(x_NLH: Tensor, dims: tuple[int, ...]) -> Tensor:
        return x_NLH.mean(dims) if dims else x_NLH

    per_sample = [
        level(values, dims) if over is None else ratio(level(values, dims), level(over[keep_N], dims))
        for dims in ((1, 2), (2,), ())
    ]
    (all_N, layers_NL, heads_NLH) = per_sample
    flat_NM = torch.cat([all_N[:, None], layers_NL, heads_NLH.flatten(1)], 1)
    shape = heads_NLH.shape[1:]
    mean, mean_L, mean_LH = _split(flat_NM.mean(0), shape)
    if n == 1:
        return Figure(n, mean.item(), None, mean_L, None, mean_LH, None)
    low, high = (_split(torch.from_numpy(bound), shape) for bound in bootstrap(flat_NM.numpy()))
    interval = low[0].item(), high[0].item()
    return Figure(n, mean.item(), interval, mean_L, (low[1], high[1]), mean_LH, (low[2], high[2]))


def _split(flat_M: Tensor, shape: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    L = shape[0]
    return flat_M[0], flat_M[1 : 1 + L], flat_M[1 + L :].view(*shape)


def counts(heads: HeadAttention) -> dict[str, int]:
    """How many samples there are, how many were measured, and what the others lack."""
    seen, measured = int(heads.seen_N.sum()), int(heads.measured_N.sum())
    N = len(heads.seen_N)
    return {
        "samples": N,
        "measured": measured,
        "without_image_or_queries": N - seen,
        "without_system_turn": seen - measured,
    }


def to_json(heads: HeadAttention, found: dict[str, Figure | None], layers: Sequence[int], ids: Sequence[str]) -> dict:
    """Everything that was found, ready for JSON; None (null) for what could not be measured.

    Args:
        layers: indices of the layers in `heads`.
        ids: of the samples in `heads`.
    """
    vas = found["vas"]
    return {
        "samples": counts(heads),
        "layers": list(layers),
        "band": None if vas is None else band(vas.mean),
        "figures": {name: None if figure is None else _figure_json(figure) for name, figure in found.items()},
        "per_sample": [_sample_json(heads, place, name) for place, name in enumerate(ids)],
    }


def _figure_json(figure: Figure) -> dict[str, Any]:
    def bounds(pair):
        return None if pair is None else [x if isinstance(x, float) else x.tolist() for x in pair]

    return {
        "n": figure.n,
        "mean": figure.mean,
        "interval": bounds(figure.interval),
        "per_layer": {"mean": figure.mean_L.tolist(), "interval": bounds(figure.interval_L)},
        "per_head": {"mean": figure.mean_LH.tolist(), "interval": bounds(figure.interval_LH)},
    }


def _sample_json(heads: HeadAttention, place: int, name: str) -> dict[str, Any]:
    def mean(column: str, there: Tensor) -> float | None:
        return getattr(heads, f"{column}_NLH")[place].mean().item() if there[place] else None

    found = {"image_mass": mean("image_mass", heads.seen_N)}
    names = ("vas", "vas_with_sink", "system_mass", "system_mass_with_sink")
    return {"id": name} | found | {column: mean(column, heads.measured_N) for column in names}


def print_tables(heads: HeadAttention, found: dict[str, Figure | None], layers: Sequence[int]) -> None:
    """Prints the figures of the model, then of its layers; `layers` are the indices of those that were measured."""
    screen = tables.console()
    table = tables.table(
        ("measure", "mean", "95 % interval", "samples"), text=("measure",), title="mean over samples, layers and heads"
    )
    for name, figure in found.items():
        cells = ("-", "-", "0") if figure is None else (f"{figure.mean:.4g}", _shown(figure.interval), str(figure.n))
        table.add_row(name.replace("_", " "), *cells)
    screen.print(table)
    shown = {name: figure for name in ("vas", "image_mass", "system_mass") if (figure := found[name]) is not None}
    together = _layer_table(shown, layers)
    wanted = screen.measure(together, options=screen.options.update(max_width=1000)).maximum
    fits = wanted <= screen.width
    for table in [together] if fits else [_layer_table({name: shown[name]}, layers) for name in shown]:
        screen.print(table)
    screen.print(", ".join(f"{name.replace('_', ' ')}: {number}" for name, number in counts(heads).items()))
    if "vas" in shown:
        mean = shown["vas"].mean
        screen.print(f"VAS {mean:.4g}: {band(mean)} (narrow < 10, wide 10-15, panoramic > 15)")


def _layer_table(shown: Mapping[str, Figure], layers: Sequence[int]):
    table = tables.table(
        ["layer", *(name.replace("_", " ") for name in shown)], title="by layer, with 95 % intervals of the mean"
    )
    for place, layer in enumerate(layers):
        table.add_row(str(layer), *(_layer_cell(figure, place) for figure in shown.values()))
    return table


def _layer_cell(figure: Figure, place: int) -> str:
    low_high = None
    if figure.interval_L is not None:
        low_high = figure.interval_L[0][place].item(), figure.interval_L[1][place].item()
    return f"{figure.mean_L[place].item():.4g} {_shown(low_high)}"


def _shown(interval: tuple[float, float] | None) -> str:
    return "-" if interval is None else f"{interval[0]:.4g} .. {interval[1]:.4g}"
