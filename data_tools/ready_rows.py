"""Files of RL rows that are ready, as a source of training rows: split, chosen by `data_tools.choice`, written anew.

Every column and key of the rows is kept; `extra_info.index` and `extra_info.split` become those of the new files.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from avar_rl.runtime.files import parquet_faults
from data_tools.choice import Choice, RowFacts, Split
from data_tools.formats.rows import RL_COLUMNS, batch_rows, has_columns, parquet_rows, row_writer
from data_tools.pass_rates import row_pass_rate

if TYPE_CHECKING:
    from rich.table import Table

FILES = {"train": "rl_train", "val": "rl_val", "test": "test"}  # split → name of its file


def is_rl_file(path: str | Path) -> bool:
    """Whether `path` is a parquet file with the columns of RL rows."""
    return has_columns(path, RL_COLUMNS)


class ReadyRows:
    """The rows of several files of RL rows, by their place from 0; their files are in memory as Arrow holds them.

    facts: what each row is chosen by.
    """

    def __init__(self, paths: Sequence[str]):
        """Raises ValueError: a file is damaged or given twice, or a row has no usable source or pass rate."""
        import pyarrow.parquet as pq

        self.facts: list[RowFacts] = []
        self._tables = []
        self._where: list[tuple[int, int]] = []  # of each place: the number of its table, and the row in it
        if len({Path(path).resolve() for path in paths}) < len(paths):
            raise ValueError(f"a file is given twice: {', '.join(paths)}")
        for number, path in enumerate(paths):
            with parquet_faults(path):
                self._tables.append(pq.read_table(path))
            named = [name for name in ("data_source", "extra_info") if name in self._tables[-1].column_names]
            for index, row in enumerate(parquet_rows(path, named)):
                self.facts.append(_facts(row, f"{path}, row {index}"))
                self._where.append((number, index))

    def row(self, place: int) -> dict[str, Any]:
        """The row at a place, all of it."""
        table, index = self._where[place]
        [batch] = self._tables[table].slice(index, 1).to_batches()
        [row] = batch_rows(batch)
        return row


def _facts(row: dict[str, Any], where: str) -> RowFacts:
    source, extra = row["data_source"], row.get("extra_info")
    if not isinstance(source, str):
        raise ValueError(f"{where}: `data_source` is {source!r}; it must be a text")
    if not isinstance(extra, dict | None):
        raise ValueError(f"{where}: `extra_info` is a {type(extra).__name__}; it must be a mapping")
    try:
        return RowFacts(source, row_pass_rate(extra))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def prepare_ready(paths: Sequence[str], out: Path, split: Split, choice: Choice) -> None:
    """Writes the splits of the rows of `paths` under `out`, with the training rows that `choice` takes; prints what.

    Raises:
        ValueError: bad rows, a choice that they cannot fulfil, or an `out` whose files are among `paths`.
    """
    for name in FILES.values():
        if any(Path(path).resolve() == (out / f"{name}.parquet").resolve() for path in paths):
            raise ValueError(f"{out}/{name}.parquet is a source; choose another folder for what is made of it")
    rows = ReadyRows(paths)
    held: dict[str, list[int]] = {}
    for place, name in enumerate(split.names(len(rows.facts))):
        held.setdefault(name, []).append(place)
    train = held["train"]
    places = held | {"train": choice.places(rows.facts, train, split.seed)}
    for name, chosen in places.items():
        with row_writer("rl", out / f"{FILES[name]}.parquet", like=paths) as writer:
            for place in chosen:
                row = rows.row(place)
                extra = (row.get("extra_info") or {}) | {"index": writer.rows, "split": FILES[name]}
                writer.add(row | {"extra_info": extra})
    _report(rows.facts, train, places, choice)


def _report(facts: Sequence[RowFacts], train: Sequence[int], places: dict[str, list[int]], choice: Choice) -> None:
    from avar_rl.runtime.tables import console

    chosen = places["train"]
    console().print(_sources_table(facts, train, chosen, choice))
    for name, held in sorted(places.items()):
        print(f"  {FILES[name]:<10} {len(held):>8} rows")
    if len(chosen) > len(set(chosen)):
        print(f"{len(chosen) - len(set(chosen))} of the training rows repeat another")
    if choice.curriculum:
        print("from easy to hard: train with data.shuffle=false, or verl draws an order of its own")


def _sources_table(facts: Sequence[RowFacts], train: Sequence[int], chosen: Sequence[int], choice: Choice) -> Table:
    from avar_rl.runtime.tables import cut, table

    found = table(
        ("source", "training rows", "not measured", "out of range", "chosen", "share", "pass rate"),
        text=("source",),
        title="training rows by source; pass rate: mean of those chosen",
    )
    there, taken = _by_source(facts, train), _by_source(facts, chosen)
    for source, rows in sorted(there.items()):
        unknown = sum(row.pass_rate is None for row in rows)
        out = sum(row.pass_rate is not None and not choice.keeps(row) for row in rows)
        rates = [row.pass_rate for row in taken[source] if row.pass_rate is not None]
        mean = f"{fmean(rates):.3f}" if rates else "-"
        counts = map(str, (len(rows), unknown, out, len(taken[source])))
        found.add_row(cut(source), *counts, f"{len(taken[source]) / len(chosen):.1%}", mean)
    return found


def _by_source(facts: Sequence[RowFacts], places: Sequence[int]) -> dict[str, list[RowFacts]]:
    found: dict[str, list[RowFacts]] = defaultdict(list)
    for place in places:
        found[facts[place].source].append(facts[place])
    return found
