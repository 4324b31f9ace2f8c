"""Pictures drawn with matplotlib into files, without a display."""

from __future__ import annotations

from pathlib import Path


def file_pyplot():
    """Matplotlib's pyplot, which draws into files."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def save_figure(figure, path: Path) -> None:
    """Writes a figure as PNG, and forgets it. Missing parent folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, format="png")
    file_pyplot().close(figure)
