"""The rows of a synthesis: chosen by the recipe from files of samples, streamed in the order of the files."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from avar_rl.runtime.files import parquet_faults
from data_tools.formats.sample import DataSample, read_samples
from data_tools.synthesis.inputs.recipe import Recipe, SampleFile


@dataclass(frozen=True)
class Row:
    """A sample and the name under which it is journalled, `source/id`; `folder`: where its image paths start."""

    name: str
    sample: DataSample
    folder: str


def chosen_ids(name: str, source: SampleFile, seed: int) -> set[str]:
    """Ids of the rows of source `name` that are used; with `rows`, those whose hash with the seed is smallest.

    Raises:
        ValueError: the file is missing, is no file of samples, has an id twice, or has too few rows.
    """
    import pyarrow.parquet as pq

    next(read_samples(source.path), None)  # says what is wrong with the file
    with parquet_faults(source.path), pq.ParquetFile(source.path) as file:  # pq.read_table would import pandas
        ids = file.read(columns=["id"]).column("id").to_pylist()
    if not ids:
        raise ValueError(f"{source.path} (sources.{name}): the file holds no rows")
    id_, times = Counter(ids).most_common(1)[0]
    if times > 1:
        raise ValueError(f"{source.path} (sources.{name}): the id {id_!r} stands there {times} times")
    if source.rows is None:
        return set(ids)
    if source.rows > len(ids):
        raise ValueError(f"sources.{name}.rows is {source.rows}, but {source.path} has only {len(ids)} rows")
    order = sorted(ids, key=lambda id_: hashlib.sha256(f"{seed}/{name}/{id_}".encode()).digest())
    return set(order[: source.rows])


class SelectedRows:
    """The chosen rows of all sources: iterates over them, a small batch in memory at a time; `len` is their number.

    `parts` and `read` do the same in pieces that need not be read in one place.

    Raises:
        ValueError: a file is missing, is no file of samples, has an id twice, or has too few rows.
    """

    def __init__(self, recipe: Recipe):
        self._sources = {name: (s, chosen_ids(name, s, recipe.seed)) for name, s in recipe.sources.items()}

    def __len__(self) -> int:
        return sum(len(ids) for _, ids in self._sources.values())

    def __iter__(self) -> Iterator[Row]:
        for name in self._sources:
            yield from self.read(name)

    def read(self, name: str, row_groups: Sequence[int] | None = None) -> Iterator[Row]:
        """The chosen rows of source `name`, of some row groups of its file only where these are given."""
        source, ids = self._sources[name]
        for sample in read_samples(source.path, row_groups):
            if sample.id in ids:
                yield Row(f"{name}/{sample.id}", sample, str(Path(source.path).parent))

    def parts(self) -> list[tuple[str, int]]:
        """(source, row group) of all files: the pieces that `read` takes."""
        import pyarrow.parquet as pq

        pieces = []
        for name, (source, _) in self._sources.items():
            with parquet_faults(source.path):
                pieces += [(name, group) for group in range(pq.read_metadata(source.path).num_row_groups)]
        return pieces
