"""Two pictures of a measurement: heat maps layer × head, and one sample's attention laid over its image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

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
