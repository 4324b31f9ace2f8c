"""Pictures drawn with matplotlib into files, without a display."""

from __future__ import annotations

from pathlib import Path


def file_pyplot():
    """Matplotlib's pyplot, which draws into files."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def save_figure(figure, path: Path, description: str | None = None) -> None:
    """Writes a figure as PNG, and forgets it. Missing parent folders are made.

    description: kept in the file, where `described` finds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = None if description is None else {"Description": description, "Software": None}
    figure.savefig(path, dpi=130, format="png", metadata=kept)
    file_pyplot().close(figure)


def described(path: Path) -> str | None:
    """The description that a PNG was saved with; None without one, or where the file is missing or damaged."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            return picture.info.get("Description")
    except (FileNotFoundError, UnidentifiedImageError):
        return None
