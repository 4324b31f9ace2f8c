"""Make small files in the schemas of the seven benchmarks: `python -m data_tools.miniature.benchmarks --out DIR`.

They ask about scenes of the miniature world, as parquet, JSON and VLMEvalKit's TSV, with the traps of the real ones
among the first rows (`data_tools.miniature.benchmark_rows`). They have not the official number of questions, so they
are read with a limit only, and what comes of them is marked as limited.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avar_rl.runtime.files import replacing, write_whole
from data_tools.miniature.benchmark_rows import TABLES

MIN_ROWS = 8  # the traps of a table
SUFFIXES = {"mathverse": ".json", "mmstar": ".tsv", "hallusionbench": ".tsv"}  # of the others: parquet


def write_benchmarks(out: Path, rows: int = 24, seed: int = 0) -> list[Path]:
    """Writes a file of `rows` questions for each table to the folder `out`; returns their paths. Equal seeds give equal
    files.

    Raises:
        ValueError: too few rows for the traps.
    """
    if rows < MIN_ROWS:
        raise ValueError(f"rows are {rows}; it takes at least {MIN_ROWS} for all traps")
    paths = []
    for name, table in TABLES.items():
        # both settings of MMMU-Pro are drawn from one generator's seed, so that they ask the same
        found = table(random.Random(f"{seed}/{name.removesuffix('_standard').removesuffix('_vision')}"), rows)
        paths.append(out / f"{name}{SUFFIXES.get(name, '.parquet')}")
        _write(found, paths[-1])
    return paths


def _write(rows: list[dict[str, Any]], path: Path) -> None:
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        with replacing(path) as partial:
            pq.write_table(pa.Table.from_pylist(rows), partial)
    elif path.suffix == ".json":
        for number, row in enumerate(rows):
            image = f"images/{path.stem}/{number}.png"
            write_whole(path.parent / image, row["image"])
            row["image"] = image
        write_whole(path, json.dumps(rows, indent=1))
    else:
        with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m data_tools.miniature.benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the files")
    parser.add_argument("--rows", type=int, default=24, help="questions of each table (default 24)")
    parser.add_argument("--seed", type=int, default=0, help="equal seeds give equal files (default 0)")
    args = parser.parse_args(argv)
    try:
        for path in write_benchmarks(args.out, args.rows, args.seed):
            print(path)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
