"""Pictures of a measurement: heat maps layer × head, a sample's attention over its image, attention and dependence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from avar_rl.probe.dependence import MASSES, Correlation, Dependence, Estimate
from avar_rl.probe.report import Figure
from avar_rl.runtime.plots import file_pyplot, save_figure

TITLES = {"vas": "VAS", "image_mass": "image mass", "system_mass": "system mass"}


def heat_maps(found: dict[str, Figure | None], layers: Sequence[int], path: Path) -> None:
    """Draws VAS, image mass and system mass, layer × head, as one PNG at `path`.

    `layers` are the indices of the measured layers. VAS is on a logarithmic scale, as its ratio is heavy-tailed.
    """
    from matplotlib.colors import LogNorm

    pyplot = file_pyplot()
    shown = [(name, measure) for name in TITLES if (measure := found[name]) is not None]
    figure, axes = pyplot.subplots(1, len(shown), figsize=(4.5 * len(shown), 4), squeeze=False, layout="constrained")
    for axis, (name, measure) in zip(axes[0], shown, strict=True):
        values = measure.mean_LH.numpy()
        logarithmic = name == "vas" and (values > 0).all() and values.max() > values.min()
        image = axis.imshow(values, aspect="auto", norm=LogNorm() if logarithmic else None)
        axis.set(title=f"{TITLES[name]} (mean {measure.mean:.3g})", xlabel="head", ylabel="layer")
        axis.set_yticks(range(len(layers)), [str(layer) for layer in layers], fontsize=7)
        figure.colorbar(image, ax=axis)
    save_figure(figure, path)


def overlay(picture, attention_hw: Tensor, title: str, path: Path) -> None:
    """Draws `picture`, a PIL image, beside itself under the attention to each of its tokens, (h, w), as PNG."""
    from PIL import Image

    pyplot = file_pyplot()
    grid = Image.fromarray(attention_hw.float().numpy()).resize(picture.size, Image.Resampling.BICUBIC)
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 4.5), layout="constrained")
    axes[0].imshow(picture)
    axes[1].imshow(picture.convert("L"), cmap="gray")
    shade = axes[1].imshow(np.asarray(grid), cmap="inferno", alpha=0.6)
    figure.colorbar(shade, ax=axes[1], label="attention per image token")
    for axis in axes:
        axis.axis("off")
    figure.suptitle(title)
    save_figure(figure, path)


def scatter(found: Dependence, layers: Sequence[int], path: Path) -> None:
    """Draws what a blind pass found as one PNG of four parts.

    Tokens: image mass of the token, and of the query before it, against dependence, one point each. Samples: VAS
    against mean dependence, where there is VAS. Layers: the correlation of image mass with dependence over tokens, with
    its 95 % interval.
    """
    pyplot, points = file_pyplot(), found.points
    figure, axes = pyplot.subplots(2, 2, figsize=(11, 9), layout="constrained")
    for axis, (name, title) in zip(axes[0], MASSES.items(), strict=True):
        axis.axhline(0, color="grey", linewidth=0.8)
        axis.scatter(points.masses_KL[name].mean(1), points.dependence_K, s=6, alpha=0.35, linewidths=0)
        axis.set(title=_title("tokens", found.masses[name]), xlabel=f"{title}, mean over layers and heads")
    _samples(axes[1, 0], found)
    for axis in axes.flat[:3]:
        axis.set_ylabel("log p(clean) - log p(blind), nats")
    by_layer = axes[1, 1]
    by_layer.axhline(0, color="grey", linewidth=0.8)
    for name, title in MASSES.items():
        _line(by_layer, layers, [layer.pearson for layer in found.masses_L[name]], title)
    by_layer.set(title="layers", xlabel="layer", ylabel="Pearson's correlation with dependence, over tokens")
    by_layer.xaxis.get_major_locator().set_params(integer=True)
    by_layer.legend()
    figure.suptitle("causal visual dependence of response tokens, and their attention")
    save_figure(figure, path)


def _samples(axis, found: Dependence) -> None:
    points = found.points
    if found.vas is None:
        axis.text(0.5, 0.5, "no sample has a system turn, so none has VAS", ha="center", transform=axis.transAxes)
        return
    axis.axhline(0, color="grey", linewidth=0.8)
    axis.scatter(points.vas_N, points.dependence_N, s=14, alpha=0.6, linewidths=0)
    axis.set(title=_title("samples", found.vas), xlabel="VAS of the response")
    if points.vas_N.max() > 10 * points.vas_N.min() > 0:
        axis.set_xscale("log")


def _title(what: str, correlation: Correlation) -> str:
    shown = [
        f"{name} {'-' if estimate is None else f'{estimate.value:.2f}'}"
        for name, estimate in (("Pearson", correlation.pearson), ("Spearman", correlation.spearman))
    ]
    return f"{what}: {', '.join(shown)}"


def _line(axis, layers: Sequence[int], estimates: Sequence[Estimate | None], label: str) -> None:
    """A line of estimates over layers in a band of their intervals; gaps where one does not exist."""
    values = [np.nan if one is None else one.value for one in estimates]
    bounds = [(np.nan, np.nan) if one is None or one.interval is None else one.interval for one in estimates]
    (drawn,) = axis.plot(layers, values, marker="o", markersize=3, label=label)
    axis.fill_between(layers, *zip(*bounds, strict=True), color=drawn.get_color(), alpha=0.2, linewidth=0)
