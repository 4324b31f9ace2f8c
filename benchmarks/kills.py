"""Does an evaluation that is killed again and again say what one left alone says? `python -m benchmarks.kills`.

Makes the untrained miniature and small files in the schemas of the seven benchmarks, evaluates them once in peace and
once under ten times `kill -9`, each when a number of responses drawn by chance is there. Prints what each start left;
exit status 1 where a response or a score differs in the end.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avar_rl.evaluation.benchmarks.asking.records import read_records
from avar_rl.evaluation.benchmarks.benchmark import ALL, chosen
from data_tools.miniature.benchmarks import write_benchmarks

SEVEN = [one.name for one in chosen([ALL])]
TOKENS = 16  # of a response: the untrained miniature does not stop by itself


def make_world(folder: Path, rows: int) -> None:
    """The miniature in `folder`/base, and the benchmarks' files in `folder`/copies."""
    from data_tools.miniature import data, model

    data.main(["--out", str(folder / "data"), "--pretrain-rows", "200", "--sft-rows", "400", "--rl-rows", "64"])
    model.main(["--out", str(folder / "base"), "--data", str(folder / "data")])
    write_benchmarks(folder / "copies", rows)


def command(world: Path, out: Path, rows: int) -> list[str]:
    """The evaluation of the miniature, one greedy and one sampled response to each question."""
    words = [sys.executable, "-m", "avar_rl.evaluation", f"base={world / 'base'}", "--benchmarks", ALL]
    words += ["--benchmark-data", str(world / "copies"), "--limit", str(rows), "--samples", "1", "--batch", "4"]
    return [*words, "--max-new-tokens", str(TOKENS), "--out", str(out)]


def responses(out: Path) -> int:
    """Whole lines of responses that are on the disk."""
    return sum(path.read_bytes().count(b"\n") for path in (out / "base").glob("*.responses.jsonl"))


def start(words: Sequence[str], out: Path, until: int | None) -> float:
    """Runs the command to its end, or kills it when `until` responses are there. Returns the seconds that it lived.

    Raises:
        RuntimeError: it failed, or ended before it could be killed.
    """
    begun = time.perf_counter()
    with (out.parent / f"{out.name}.log").open("ab") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, env={**os.environ, "HF_HUB_OFFLINE": "1"})
        while process.poll() is None and (until is None or responses(out) < until):
            time.sleep(0.01)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        status = process.wait()
    if status != (0 if until is None else -signal.SIGKILL):
        raise RuntimeError(f"status {status}; {out.parent / f'{out.name}.log'} has what it said")
    return time.perf_counter() - begun


def left(out: Path) -> dict[str, Any]:
    """The responses and the scores of an evaluation, in an order that does not depend on when they came."""
    said = {name: sorted(map(json.dumps, read_records(out / "base", name))) for name in SEVEN}
    figures = json.loads((out / "benchmarks.json").read_text())["models"]["base"]["benchmarks"]
    return {"responses": said, "scores": {name: figures[name]["columns"] for name in SEVEN}}


def run(folder: Path, kills: int, rows: int, seed: int) -> bool:
    """Whether both evaluations leave the same; prints each start."""
    make_world(folder, rows)
    whole, killed = folder / "whole", folder / "killed"
    print(f"left alone: {start(command(folder, whole, rows), whole, None):.0f} s, {responses(whole)} responses")
    rng, total, words = random.Random(seed), responses(whole), command(folder, killed, rows)
    places = sorted(rng.sample(range(1, total), kills))
    for number, place in enumerate(places, 1):
        seconds = start(words, killed, max(place, responses(killed) + 1))
        print(f"kill {number}: after {seconds:.0f} s, {responses(killed)} of {total} responses", flush=True)
    print(f"last start: {start(words, killed, None):.0f} s, {responses(killed)} responses")
    expected, found = left(whole), left(killed)
    for what in expected:
        print(f"{what}: {'the same' if expected[what] == found[what] else 'DIFFERENT'}")
    return expected == found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--rows", type=int, default=24, help="questions of each table (default 24)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where everything is left (default: a temporary one)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        same = run(options.folder or Path(temporary), options.kills, options.rows, options.seed)
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
