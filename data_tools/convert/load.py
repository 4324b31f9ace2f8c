"""Rows of a source, streamed: from the hub, from a folder, or from a local file.

Parquet, JSON and TSV files are read here: each row as it is, whatever type its neighbours have (Arrow takes a column's
type from the first block of a file), and a row that cannot be read leaves the others as they are. All else goes through
`datasets`, whose reader may hold up to a parquet shard in memory.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data_tools.convert.sources.source import Row, Source, Unreadable
from data_tools.convert.tsv import tsv_rows
from data_tools.formats.rows import batch_rows, parquet_batches

FILE_LOADERS = (".parquet", ".json", ".jsonl", ".arrow", ".tsv")
SHOWN = 120  # characters of a first row in a message
FIRST_ROWS = 1000  # in one of which a needed column must be


@dataclass(frozen=True)
class SourceRows:
    """The rows of one split in order; image paths in them are relative to `folder`."""

    rows: Iterator[Row | Unreadable]
    folder: Path


def open_rows(source: Source, data: str, split: str, only: Sequence[str] | None = None) -> SourceRows:
    """The rows of one split of `data`: a file (whose only split it is), a folder as `datasets` reads it, or a hub name.

    Offline (HF_HUB_OFFLINE) a hub name stands for what of it is in the hub's cache.
    With `only`, other columns than these need not be in the rows: they are left in a parquet file.

    Raises:
        ValueError: nothing there, an unknown kind of file, no rows, or missing columns (names them, shows a row).
    """
    data = _cached(data)
    path = Path(data)
    if path.suffix in FILE_LOADERS and not path.is_file():
        raise ValueError(f"{data}: no such data file")
    if path.is_file() and path.suffix not in FILE_LOADERS:
        raise ValueError(f"{data}: unknown kind of file; known are {', '.join(FILE_LOADERS)}")
    if path.is_file() and path.stat().st_size == 0:
        raise ValueError(f"{data}: the file is empty")
    folder = path if path.is_dir() else path.parent if path.is_file() else Path()
    rows = _of_split(source, _checked(_streamed(source, data, split, only), data), split)
    return SourceRows(_with_columns(source, rows, data), folder)


def _cached(data: str) -> str:
    """`data`, or the folder in the hub's cache of a hub name that cannot be asked for. (`datasets` streams from the hub
    only.)"""
    from huggingface_hub import constants, errors, snapshot_download

    if Path(data).exists() or not constants.HF_HUB_OFFLINE:
        return data
    try:
        return snapshot_download(data, repo_type="dataset", local_files_only=True)
    except (errors.HFValidationError, errors.LocalEntryNotFoundError):
        return data  # no hub name, or nothing in the cache: what reads it says so


def settled(source: Source, data: str, split: str) -> Source:
    """The source that drafts the rows of this split: `source` itself, unless the split must be read for it first."""
    if source.survey is None:
        return source
    open_rows(source, data, split)  # a missing column is named before the pass, beside all that there are
    rows = open_rows(replace(source, columns=source.surveyed), data, split, source.surveyed).rows
    return source.survey(row for row in rows if not isinstance(row, Unreadable))


def _of_split(source: Source, rows: Iterator[Row | Unreadable], split: str) -> Iterator[Row | Unreadable]:
    return (row for row in rows if isinstance(row, Unreadable) or source.holds(row, split))


def _with_columns(source: Source, rows: Iterator[Row | Unreadable], data: str) -> Iterator[Row | Unreadable]:
    """`rows`, each with all columns of the source, None where it lacks one that others have."""
    head: list[Row | Unreadable] = []
    missing, first = set(source.columns), None
    for row in itertools.islice(rows, FIRST_ROWS):
        head.append(row)
        if not isinstance(row, Unreadable):
            missing, first = missing - set(row), first or row
            if not missing:
                break
    if first is None:
        fault = f" that can be read: {head[0].text}" if head and isinstance(head[0], Unreadable) else ""
        raise ValueError(f"{data}: the data set holds no rows{fault}")
    if missing:
        names = ", ".join(name for name in source.columns if name in missing)
        raise ValueError(
            f"{data}: no column {names}; it has {', '.join(first)}. {source.name} needs"
            f" {', '.join(source.columns)}; the first row is {_shown(first)}"
        )
    empty = dict.fromkeys(source.columns)
    return (row if isinstance(row, Unreadable) else {**empty, **row} for row in itertools.chain(head, rows))


def _streamed(source: Source, data: str, split: str, only: Sequence[str] | None) -> Iterator[Row | Unreadable]:
    path = Path(data)
    if path.suffix == ".parquet":
        yield from _parquet(path, only)
    elif path.suffix in (".json", ".jsonl"):
        own = source.read(path) if path.suffix == ".json" else None
        yield from _json(path) if own is None else own
    elif path.suffix == ".tsv":
        yield from _tsv(source, path)
    elif shards := _shards(source, path, split):
        for shard in shards:
            yield from _parquet(shard, only)
    else:
        yield from _by_datasets(source, data, split)


def _parquet(path: Path, only: Sequence[str] | None) -> Iterator[Row | Unreadable]:
    """The rows of a parquet file, undecoded and in constant memory."""
    for batch in parquet_batches(path, only):
        try:
            yield from batch_rows(batch)
        except (ValueError, OverflowError):  # text that is no UTF-8, a time beyond Python's: one of the rows
            for place in range(batch.num_rows):
                try:
                    yield from batch_rows(batch.slice(place, 1))
                except (ValueError, OverflowError) as error:
                    yield Unreadable(f"the row cannot be read ({error})")


def _json(path: Path) -> Iterator[Row | Unreadable]:
    """The rows of a JSON file that is a list, which is read whole, or of one with an object a line."""
    with path.open("rb") as file:
        start = file.read(1000).removeprefix(b"\xef\xbb\xbf").lstrip()
    if path.suffix == ".json" and start.startswith(b"["):
        content = json.loads(path.read_bytes())
        for row in content:
            yield row if isinstance(row, dict) else Unreadable(f"it is a {type(row).__name__}, no object")
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _line(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line, number)


def _line(line: bytes, number: int) -> Row | Unreadable:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Unreadable(f"line {number} is no JSON ({error})")
    return row if isinstance(row, dict) else Unreadable(f"line {number} is a {type(row).__name__}, no object")


def _tsv(source: Source, path: Path) -> Iterator[Row | Unreadable]:
    """The rows of one of VLMEvalKit's files, in the columns of the source."""
    if source.tsv is None:
        raise ValueError(f"{source.name} has no TSV layout; give parquet or JSON")
    for row in tsv_rows(path):
        try:
            yield row if isinstance(row, Unreadable) else source.tsv(row)
        except ValueError as error:
            yield Unreadable(str(error))


def _shards(source: Source, folder: Path, split: str) -> list[Path]:
    """The parquet files SPLIT.parquet or SPLIT-*.parquet in a folder without a README, those of the source's
    configurations in their order. (`datasets` takes dev-*.parquet for files of validation, too, unless a README says
    what they are.)"""
    if not folder.is_dir() or (folder / "README.md").is_file():
        return []
    configs = [folder / config for config in source.configs if (folder / config).is_dir()]
    roots = configs if configs and len(configs) == len(source.configs) else [folder]
    files = (file for root in roots for file in sorted(root.rglob("*.parquet")))
    return [file for file in files if file.stem == split or file.name.startswith(f"{split}-")]


def _by_datasets(source: Source, data: str, split: str) -> Iterator[Row]:
    import datasets

    for where in _tables(source, data, split):
        rows = datasets.load_dataset(**where, streaming=True)
        if rows.features is None:  # a JSON list: it is read whole in any case, and only so are mixed types decoded
            rows = datasets.load_dataset(**where)
        yield from _undecoded(rows)


def _tables(source: Source, data: str, split: str) -> list[dict[str, Any]]:
    """The arguments of `datasets.load_dataset` for each table with rows of the split, in order: of an arrow file, of
    every configuration of the source on the hub or in a copy of it, or of any other folder or hub name."""
    import datasets

    path = Path(data)
    if path.is_file():
        return [{"path": "arrow", "data_files": data, "split": "train"}]
    names: Sequence[str | None] = source.configs if data == source.hub else ()
    if source.configs and path.is_dir() and set(source.configs) <= set(datasets.get_dataset_config_names(data)):
        names = source.configs
    names = names or (None,)
    return [{"path": data, "name": name, "split": split} for name in names]


def _undecoded(rows):
    """Image columns as {bytes, path}: decoding and encoding again would cost time and quality."""
    import datasets

    for name, feature in rows.features.items():
        if isinstance(feature, datasets.Image):
            rows = rows.cast_column(name, datasets.Image(decode=False))
        elif isinstance(feature, datasets.List) and isinstance(feature.feature, datasets.Image):
            rows = rows.cast_column(name, datasets.List(datasets.Image(decode=False)))
    return rows


def _checked(rows: Iterator[Row | Unreadable], data: str) -> Iterator[Row | Unreadable]:
    """`rows`; what `datasets` raises, at the start or later, as one sentence."""
    import pyarrow as pa
    from datasets.exceptions import DatasetsError

    faults = (OSError, ValueError, TypeError, RecursionError, MemoryError, pa.ArrowException, DatasetsError)
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
