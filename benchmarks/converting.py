"""What converting costs, printed from one run: `python -m benchmarks.converting [--rows 10000] [--workers 2]`.

Makes parquet files in Geometry3K's schema (one image a row) and converts each in a process of its own:
  drawings    PNG, 400 x 300, lines on white: as geometry data has it
  photos      JPEG, 512 x 384, full of colour
Neither needs re-encoding: every image is decoded as a check, hashed, compared, and passed through.
Memory is the peak resident set of the converting process, at a tenth of the rows and at all of them.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

DISTINCT = 500  # images; rows differ in their question, so none is a duplicate
CHILD = """
import json, resource, sys, time
from pathlib import Path
from data_tools.convert.run import Options, run
from data_tools.convert.sources import find
import datasets, pyarrow, rewards.shipped.accuracy  # imports are not what is measured
data, out, workers = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
start, cpu = time.perf_counter(), time.process_time()
report = run(find("geometry3k"), out, [data], None, Options(workers=workers))
print(json.dumps({"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu,
    "written": report.splits[0].written, "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""


def drawing(rng: random.Random) -> bytes:
    """A PNG of lines and labels on white, 400 x 300 pixels."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (400, 300), "white")
    draw = ImageDraw.Draw(image)
    corners = [(rng.randint(10, 390), rng.randint(10, 290)) for _ in range(5)]
    draw.line([*corners, corners[0]], fill="black", width=2)
    for corner in corners:
        draw.text(corner, str(rng.randint(1, 99)), fill="black", font_size=18)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def photo(rng: random.Random) -> bytes:
    """A JPEG full of colour, 512 x 384 pixels."""
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(rng.randrange(2**32)).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((512, 384), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95)
    return file.getvalue()


def write(path: Path, rows: int, image: Callable[[random.Random], bytes], seed: int) -> float:
    """Writes a parquet file of `rows` rows in the schema of Geometry3K; returns the mean size of an image in kB."""
    import pyarrow as pa

    from data_tools.formats.rows import BatchWriter

    images = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    schema = pa.schema([("images", images), ("problem", pa.string()), ("answer", pa.string())])
    rng, size = random.Random(seed), 0
    distinct = [image(rng) for _ in range(min(rows, DISTINCT))]
    with BatchWriter(path, schema, as_row=dict) as writer:
        for index in range(rows):
            data = distinct[index % len(distinct)]
            size += len(data)
            entry = [{"bytes": data, "path": None}]
            writer.add({"images": entry, "problem": f"<image>Find x, number {index}.", "answer": str(index % 97)})
    return size / rows / 1000


def measure(data: Path, folder: Path, workers: int) -> dict[str, float]:
    """Converts the file `data` in a process of its own: seconds, seconds of processor time, rows written, peak MiB."""
    command = [sys.executable, "-c", CHILD, str(data), str(folder / "out"), str(workers)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    start = perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"the conversion failed after {perf_counter() - start:.0f} s:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(f"{os.cpu_count()} cores, {args.workers} workers, seed {args.seed}")
    for name, image in (("drawings", drawing), ("photos", photo)):
        for rows in (args.rows // 10, args.rows):
            with tempfile.TemporaryDirectory() as folder:
                data = Path(folder) / "data.parquet"
                size = write(data, rows, image, args.seed)
                found = measure(data, Path(folder), args.workers)
            print(
                f"{name:<9} {rows:>6} rows of {size:5.1f} kB: {rows / found['seconds']:6.0f} rows/s"
                f" ({1000 * found['cpu'] / rows:.2f} ms of processor time a row), peak memory {found['mib']:.0f} MiB,"
                f" {found['written']} written"
            )


if __name__ == "__main__":
    main()
