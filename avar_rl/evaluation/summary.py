"""All stages of a run in one file and one table: `python -m avar_rl.evaluation.summary outputs/NAME`.

Reads RUN/evaluation/*.json (of `avar_rl.evaluation`), RUN/stages/* (first line: seconds) and RUN/logs/*.used.jsonl,
writes RUN/summary.json: {"stages": [{"name", "accuracy", ...}], "seconds": {stage: s}, "processor_seconds": {stage: s},
"versions": {package: version}}. Where GRPO has logged steps, RUN/training.json is {curve: mean over the last quarter of
them}.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

ORDER = ("base", "sft", "grpo")  # of the recipes; other names follow, sorted


def read_stages(folder: Path) -> list[dict[str, Any]]:
    """The figures of every evaluated model, in the order of training. ValueError: none, or a file is no such result."""
    from avar_rl.evaluation.result import STAGE_KEYS

    files = sorted(folder.glob("*.json"), key=lambda path: (path.stem not in ORDER, _place(path.stem), path.stem))
    if not files:
        raise ValueError(f"{folder} holds no results; run `avar evaluate` first")
    stages = []
    for path in files:
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: not JSON ({error})") from error
        missing = [key for key in STAGE_KEYS if not isinstance(result, dict) or key not in result]
        if missing:
            raise ValueError(f"{path} lacks {', '.join(missing)}: it was not written by avar_rl.evaluation")
        stages.append({key: result[key] for key in STAGE_KEYS})
    return stages


def _place(name: str) -> int:
    return ORDER.index(name) if name in ORDER else 0


def read_seconds(folder: Path) -> dict[str, float]:
    """Seconds that every finished stage took, in the order in which they finished; {} where the folder is missing."""
    files = [path for path in folder.glob("*") if path.is_file() and path.suffix != ".new"]
    files.sort(key=lambda path: path.stat().st_mtime_ns)
    return {path.name: float(path.read_text().split("\n", 1)[0]) for path in files}


def read_used(folder: Path) -> dict[str, tuple[float, float]]:
    """Stage → seconds and processor seconds that all its starts took together, of those that were not killed."""
    used = {}
    for path in sorted(folder.glob("*.used.jsonl")):
        starts = [json.loads(line) for line in path.read_text().splitlines()]
        seconds, processor = (sum(start[key] for start in starts) for key in ("seconds", "processor_seconds"))
        used[path.name.removesuffix(".used.jsonl")] = round(seconds, 2), round(processor, 2)
    return used


def read_training(log: Path) -> dict[str, float]:
    """Curve → its mean over the last quarter of the steps that a training has logged."""
    steps = [json.loads(line)["data"] for line in log.read_text(encoding="utf-8").splitlines()]
    last = steps[-max(1, len(steps) // 4) :]
    values: dict[str, list[float]] = {}
    for step in last:
        for curve, value in step.items():
            values.setdefault(curve, []).append(float(value))
    return {curve: fmean(there) for curve, there in values.items()}


def summarise(run: Path) -> dict[str, Any]:
    """Writes `run`/summary.json and returns what is in it. ValueError: no results, or a file that is none."""
    from avar_rl.runtime.files import write_json
    from avar_rl.runtime.versions import stack_versions

    summary = {
        "stages": read_stages(run / "evaluation"),
        "seconds": read_seconds(run / "stages"),
        "processor_seconds": {name: processor for name, (_, processor) in read_used(run / "logs").items()},
        "versions": stack_versions(),
    }
    write_json(run / "summary.json", summary)
    if (logged := run / "logs" / "grpo.metrics.jsonl").is_file():
        write_json(run / "training.json", read_training(logged))
    return summary


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="output directory of a recipe")
    options = parser.parse_args(argv)
    try:
        summary = summarise(options.run)
    except (OSError, ValueError) as error:
        print(f"avar summary: {error}", file=sys.stderr)
        return 2
    from avar_rl.evaluation.result import print_table

    print_table(summary["stages"])
    if summary["seconds"]:
        parts = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in summary["seconds"].items())
        processor = sum(summary["processor_seconds"].values()) / 60
        together = f"{sum(summary['seconds'].values()) / 60:.1f} minutes, {processor:.1f} of processor time"
        print(f"time: {parts}; together {together}")
    print(options.run / "summary.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
