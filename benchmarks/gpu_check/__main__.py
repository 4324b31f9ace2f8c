"""Is the GPU path right on this card, and what does it cost: six parts, a JSON file, a table.

Needs a CUDA device, torch, Triton and what requirements/gpu_check.txt lists; no vLLM, Ray, wandb or datasets. Each part
is a process of its own with a time limit and writes what it finds into the file at once, so that a run that is broken
off keeps what it has; a part that fails is recorded with its error, and the next one runs.
Exit status: 0 where every part ran and no goal was missed, 1 otherwise, 2 after a mistake of the user.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.gpu_check import results, tables
from benchmarks.gpu_check.parts import NO_DEVICE, PARTS, ROOT, run_apart, run_here
from benchmarks.gpu_check.results import Setting


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring for what it returns."""
    args = _parser().parse_args(argv)
    try:
        if args.table:
            print(tables.markdown(results.read(args.table)))
            return 0
        if not args.out:
            raise ValueError("--out FILE.json names the file of results (or --table FILE.json, to print one)")
        chosen = _chosen(args.parts)
        _check_out(args.out)
    except ValueError as error:
        print(f"gpu_check: {error}", file=sys.stderr)
        return 2
    out, device = args.out.resolve(), "cpu" if args.miniature else "cuda"
    if args.part:
        part = next(part for part in PARTS if part.number == args.part)
        return run_here(part, out, Setting(device, args.work))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # through `finally`, so that no part stays behind
    with tempfile.TemporaryDirectory(prefix="gpu_check.") as work:
        return _run(chosen, out, Setting(device, Path(work)), args.limits)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    titles = "; ".join(f"{part.number} {part.title}" for part in PARTS)
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="results; parts that do not run now stay in it")
    parser.add_argument("--miniature", action="store_true", help="every part in a small shape on the CPU")
    parser.add_argument("--parts", metavar="1,2,…", help=f"only these: {titles}")
    parser.add_argument("--limits", type=float, default=1.0, metavar="X", help="all time limits times X (default 1)")
    parser.add_argument("--table", type=Path, metavar="FILE.json", help="print results as Markdown, and run nothing")
    parser.add_argument("--part", choices=[part.number for part in PARTS], help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    return parser


def _chosen(wanted: str | None) -> list:
    known = {part.number: part for part in PARTS}
    numbers = list(known) if wanted is None else [number.strip() for number in wanted.split(",")]
    unknown = [number for number in numbers if number not in known]
    if unknown:
        raise ValueError(f"--parts {wanted}: there is no part {unknown[0]!r}; choose from {','.join(known)}")
    return [known[number] for number in numbers]


def _check_out(out: Path) -> None:
    """Found out now, not after minutes of a card's time."""
    if not out.resolve().parent.is_dir():
        raise ValueError(f"--out {out}: there is no folder {out.resolve().parent}")
    if out.exists():
        results.read(out)


def _run(chosen: list, out: Path, setting: Setting, factor: float) -> int:
    found = results.read(out) if out.exists() else results.empty()
    for part in chosen:
        begun = datetime.now(UTC).isoformat(timespec="seconds")
        about = {"title": part.title, "miniature": setting.miniature, "commit": _commit(), "begun": begun}
        results.begin(found, part.number, **about)
        results.write(out, found)
        print(f"part {part.number}: {part.title} (at most {part.seconds * factor:g} s)", flush=True)
        if run_apart(part, out, setting, factor) == NO_DEVICE:
            print(f"gpu_check: {results.read(out)['parts'][part.number]['error']}", file=sys.stderr)
            return 2
        found = results.read(out)
        print(tables.line(found["parts"][part.number]), flush=True)
    tables.show(found)
    return 0 if results.complete(found) else 1


def _commit() -> str:
    done = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40"], capture_output=True, text=True
    )
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
