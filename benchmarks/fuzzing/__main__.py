"""Fuzzes grading, extraction, converters, markup and replies with Atheris for some minutes of processor time.

Needs `pip install atheris` (Python 3.11). The targets take turns of a minute, by their weights; corpora, findings (the
input, and its traceback) and the time spent are kept in --work, so that a run goes on where the last one ended. A
finding is an exception that the code does not document, or a call of over 20 seconds.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.fuzzing.targets import DATA, TARGETS

TURN = 60  # seconds of a target's turn
SLOW = 20  # seconds after which a call counts as a hang
WORDS = (
    r"\frac{ \sqrt{ \boxed{ \text{ ^\circ \infty \cup \begin{pmatrix} <think> </think> <answer> </answer> 选 度 答案 ①"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command. Returns 0; 1 where something was found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzzing", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="of processor time, all runs in --work together")
    parser.add_argument("--work", type=Path, default=Path("outputs/fuzzing"), help="a folder for what is kept")
    parser.add_argument("--only", choices=TARGETS, action="append", help="these targets (default: all)")
    parser.add_argument("--turn", choices=TARGETS, help=argparse.SUPPRESS)  # a turn's own process
    args = parser.parse_args(argv)
    args.work = args.work.resolve()
    if args.turn:
        return _fuzz(args.turn, args.work)
    names = args.only or list(TARGETS)
    spent = _read(args.work)
    while sum(spent.values()) < 60 * args.minutes:
        name = min(names, key=lambda target: spent.get(target, 0) / TARGETS[target].weight)
        before = _children()
        _turn(name, args.work)
        spent[name] = spent.get(name, 0) + _children() - before
        (args.work / "spent.json").write_text(json.dumps(spent))
    findings = sorted(path for path in (args.work / "findings").glob("*/*") if path.suffix != ".txt")
    for name in names:
        print(f"{name}: {spent.get(name, 0) / 60:.1f} minutes, {_calls(args.work, name):,} calls")
    print(f"{sum(spent.values()) / 60:.1f} minutes of processor time, {len(findings)} findings")
    print("\n".join(map(str, findings)))
    return int(bool(findings))


def _read(work: Path) -> dict[str, float]:
    work.mkdir(parents=True, exist_ok=True)
    kept = work / "spent.json"
    return json.loads(kept.read_text()) if kept.is_file() else {}


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _turn(name: str, work: Path) -> None:
    """One target for `TURN` seconds in a process of its own, with what it says in a log."""
    command = [sys.executable, "-m", "benchmarks.fuzzing", "--turn", name, "--work", str(work)]
    with (work / f"{name}.log").open("a") as log:
        mark = log.tell()
        status = subprocess.run(command, stdout=log, stderr=log, timeout=20 * TURN).returncode
    if status:
        said = (work / f"{name}.log").read_text(errors="replace")[mark:]
        (work / "findings" / name / f"{hashlib.sha256(said.encode()).hexdigest()[:8]}.txt").write_text(said)


def _calls(work: Path, name: str) -> int:
    """The calls of all turns, as the log counts them."""
    counts = [line.split()[1] for line in (work / f"{name}.log").open(errors="replace") if line.startswith("Done ")]
    return sum(map(int, counts))


def _fuzz(name: str, work: Path) -> int:
    atheris: Any = importlib.import_module("atheris")  # not a dependency of the project's
    with atheris.instrument_imports(include=["rewards", "data_tools", "avar_rl"]):
        import data_tools.convert.pipeline  # noqa: F401
        import rewards.grading.grader  # noqa: F401

    target, corpus, findings = TARGETS[name], work / "corpus" / name, work / "findings" / name
    if not corpus.is_dir():
        corpus.mkdir(parents=True)
        for number, seed in enumerate(target.seeds()):
            (corpus / f"seed_{number}").write_bytes(seed)
    findings.mkdir(parents=True, exist_ok=True)
    words = work / "words.txt"
    words.write_text("".join(f'"{_quoted(word)}"\n' for word in WORDS.split()))
    limits = [
        f"-max_total_time={TURN}",
        f"-timeout={SLOW}",
        f"-report_slow_units={SLOW}",
        "-max_len=4096",
        "-rss_limit_mb=4096",
        "-print_final_stats=1",
    ]
    atheris.Setup(["fuzz", *limits, f"-dict={words}", f"-artifact_prefix={findings}/", str(corpus)], target.call)
    os.chdir(DATA)  # whatever a text names as a path, it is not in the caller's folder
    atheris.Fuzz()
    return 0


def _quoted(word: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word.encode())


if __name__ == "__main__":
    sys.exit(main())
