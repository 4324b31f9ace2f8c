"""VLMEvalKit's TSV files: a question a row, with its pictures as base64 in a cell of up to many megabytes.

Columns: index, image (base64, a list of base64, or the index of another row that has the same picture) or image_path (a
path or a list of them, relative to the file), question, answer and more.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from data_tools.convert.sources.source import Row, Unreadable
from data_tools.convert.sources.values import list_value

MAX_CELL = 1 << 30  # characters
MAX_REFERENCE = 64  # characters: a longer cell is a picture itself


def tsv_rows(path: Path) -> Iterator[Row | Unreadable]:
    """The rows, an empty cell as "", in which `image` is one picture or a list of them. A row at a time is in memory,
    beside the pictures that other rows refer to.

    Raises:
        ValueError: no column index, or the file is no text in UTF-8.
    """
    shared = _shared(path)
    for row in _cells(path):
        if isinstance(row, Unreadable):
            yield row
            continue
        image = row.get("image", "")
        if 0 < len(image) <= MAX_REFERENCE:
            if image not in shared:
                yield Unreadable(f"row {row['index']}: column image refers to row {image}, which has no picture")
                continue
            image = shared[image]
        pictures = _pictures(image) or list_value(row.get("image_path"), "image_path")
        yield {**row, "image": pictures[0] if len(pictures) == 1 else pictures}


def _cells(path: Path) -> Iterator[dict[str, str] | Unreadable]:
    csv.field_size_limit(MAX_CELL)  # the default of 128 KiB is under a picture's size; it is one for the process
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, delimiter="\t")
        header = next(rows, [])
        if "index" not in header:
            raise ValueError(f"no column index; it has {', '.join(header)[:500]}")
        while True:
            try:
                cells = next(rows, None)
            except csv.Error as error:
                raise ValueError(f"line {rows.line_num} is no row of a TSV file ({error})") from error
            if cells is None:
                return
            if len(cells) == len(header):
                yield dict(zip(header, cells, strict=True))
            else:
                yield Unreadable(f"line {rows.line_num} ends a row of {len(cells)} cells, not {len(header)}")


def _shared(path: Path) -> dict[str, str]:
    """The pictures of the rows, by their index, that others refer to."""

    def images() -> Iterator[tuple[str, str]]:
        return ((row["index"], row.get("image", "")) for row in _cells(path) if not isinstance(row, Unreadable))

    wanted = {image for _, image in images() if 0 < len(image) <= MAX_REFERENCE}
    if not wanted:
        return {}
    return {index: image for index, image in images() if index in wanted and len(image) > MAX_REFERENCE}


def _pictures(cell: str) -> list[str]:
    """The base64 texts in a cell, which has no comma or quote but those of a list."""
    if cell.startswith("[") and cell.endswith("]"):
        return [entry.strip().strip("'\"") for entry in cell[1:-1].split(",") if entry.strip()]
    return [cell] if cell else []
