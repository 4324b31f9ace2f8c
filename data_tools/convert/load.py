"""Rows of a source, streamed: from the hub, from a folder, or from a local file.

All but single parquet files goes through `datasets`, whose reader may hold up to a parquet shard in memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_tools.convert.sources.source import Row, Source
from data_tools.formats.rows import parquet_rows

FILE_LOADERS = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".arrow": "arrow"}
SHOWN = 120  # characters of a first row in a message


@dataclass(frozen=True)
class SourceRows:
    """The rows of one split in order; image paths in them are relative to `folder`."""

    rows: Iterator[Row]
    folder: Path


def open_rows(source: Source, data: str, split: str) -> SourceRows:
    """The rows of one split of `data`: a file (whose only split it is), a folder as `datasets` reads it, or a hub name.

    Raises:
        ValueError: nothing there, an unknown kind of file, no rows, or missing columns (names them, shows a row).
    """
    path = Path(data)
    if path.suffix in FILE_LOADERS and not path.is_file():
        raise ValueError(f"{data}: no such data file")
    if path.is_file() and path.suffix not in FILE_LOADERS:
        raise ValueError(f"{data}: unknown kind of file; known are {', '.join(FILE_LOADERS)}")
    if path.is_file() and path.stat().st_size == 0:
        raise ValueError(f"{data}: the file is empty")
    own = source.read(path) if path.suffix == ".json" else None
    rows = _checked(_streamed(source, data, split) if own is None else iter(own), data)
    try:
        first = next(rows)
    except StopIteration:
        raise ValueError(f"{data}: the data set holds no rows") from None
    missing = [name for name in source.columns if name not in first]
    if missing:
        raise ValueError(
            f"{data}: no column {', '.join(missing)}; it has {', '.join(first)}. {source.name} needs"
            f" {', '.join(source.columns)}; the first row is {_shown(first)}"
        )
    return SourceRows(
        itertools.chain([first], rows), path if path.is_dir() else path.parent if path.is_file() else Path()
    )


def _streamed(source: Source, data: str, split: str) -> Iterator[Row]:
    import datasets

    path = Path(data)
    if path.suffix == ".parquet":
        yield from parquet_rows(path)  # as `datasets` would give it undecoded, but in constant memory
        return
    if path.is_file():
        where: dict[str, Any] = {"path": FILE_LOADERS[path.suffix], "data_files": data, "split": "train"}
    else:
        where = {"path": data, "name": source.config if data == source.hub else None, "split": split}
    rows = datasets.load_dataset(**where, streaming=True)
    if rows.features is None:  # a JSON list: it is read whole in any case, and only so are mixed types decoded
        rows = datasets.load_dataset(**where)
    yield from _undecoded(rows)


def _undecoded(rows):
    """Image columns as {bytes, path}: decoding and encoding again would cost time and quality."""
    import datasets

    for name, feature in rows.features.items():
        if isinstance(feature, datasets.Image):
            rows = rows.cast_column(name, datasets.Image(decode=False))
        elif isinstance(feature, datasets.List) and isinstance(feature.feature, datasets.Image):
            rows = rows.cast_column(name, datasets.List(datasets.Image(decode=False)))
    return rows


def _checked(rows: Iterator[Row], data: str) -> Iterator[Row]:
    """`rows`; what `datasets` raises, at the start or later, as one sentence."""
    import pyarrow as pa
    from datasets.exceptions import DatasetsError

    faults = (OSError, ValueError, TypeError, pa.ArrowException, DatasetsError)
    try:
        yield from rows
    except faults as error:
        text = " ".join(str(error).split())
        raise ValueError(f"{data}: cannot load it ({type(error).__name__}: {text})") from error


def _shown(row: Row) -> str:
    parts = []
    for name, value in row.items():
        text = f"{len(value)} bytes" if isinstance(value, bytes) else repr(value)
        parts.append(f"{name} = {text[:SHOWN]}{'…' if len(text) > SHOWN else ''}")
    return "; ".join(parts)
