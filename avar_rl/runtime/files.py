"""Files that are there whole or not at all, and rows of parquet files."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a name beside `path` to write a file or a directory under; at the end of the block it becomes `path`.

    Where the block raises, or the process dies in it, `path` is what it was before. Missing parent folders are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    _remove(partial)
    try:
        yield partial
        if partial.is_dir():
            _remove(path)  # a directory takes the place of an empty one only
        os.replace(partial, path)
    finally:
        _remove(partial)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file whole or not at all; text as UTF-8, with line ends as they are."""
    with replacing(path) as partial:
        partial.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, whole or not at all."""
    write_whole(path, json.dumps(value, indent=2) + "\n")


def file_stamps(path: str) -> dict[str, list[int]]:
    """File name → [bytes, time of change in ns], of a file or of a directory's files; {} for a name on the hub."""
    files = [Path(path)] if Path(path).is_file() else sorted(Path(path).glob("*"))
    return {file.name: [file.stat().st_size, file.stat().st_mtime_ns] for file in files if file.is_file()}


@contextmanager
def parquet_faults(path: str | Path) -> Iterator[None]:
    """Turns what pyarrow raises in the block, on a damaged file or on values that Python lacks, into a ValueError.

    Raises:
        ValueError: names the file and what pyarrow says.
    """
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        if str(error).startswith(f"{path}: "):
            raise  # said already
        what = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path}: not a readable parquet file ({what})") from error


def count_rows(path: str | Path) -> int:
    """The number of rows of a parquet file. ValueError: it is not parquet, or damaged."""
    import pyarrow.parquet as pq

    with parquet_faults(path):
        return pq.read_metadata(path).num_rows


def read_parquet(path: str | Path, columns: Iterable[str] | None = None) -> list[dict[str, Any]]:
    """All rows of a parquet file as dictionaries, of `columns` only where these are given.

    Raises:
        ValueError: the file is missing, is not parquet, or holds no rows.
    """
    import pyarrow.parquet as pq

    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such data file")
    with parquet_faults(path):
        table = pq.read_table(path, columns=None if columns is None else list(columns))
        rows = table.to_pylist()
    if table.num_rows == 0:
        raise ValueError(f"{path}: the data file holds no rows")
    return rows
