"""Mean and spread over runs of the miniature: `python -m benchmarks.seeds outputs/tiny_0 outputs/tiny_1 …`.

Reads RUN/evaluation/*.json of each run. Spread is the sample standard deviation; VAS and masses as in `avar_rl.vas`.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

STAGES = ("base", "plain_sft", "sft", "grpo")
FIGURES = ("accuracy", "accuracy_sampled", "format", "vas", "image_mass", "system_mass")


def read(runs: Sequence[Path]) -> dict[str, list[dict]]:
    """Stage -> its figures in every run, for stages that all runs have. ValueError: sft or grpo is missing."""
    results: dict[str, list[dict]] = {}
    for stage in STAGES:
        paths = [run / "evaluation" / f"{stage}.json" for run in runs]
        absent = [path for path in paths if not path.is_file()]
        if absent and stage in ("sft", "grpo"):
            raise ValueError(f"{absent[0]} is missing: run benchmarks/tiny_seeds.sh for this seed first")
        if not absent:
            results[stage] = [json.loads(path.read_text()) for path in paths]
    return results


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="output directories of avar_tiny.sh, one a seed")
    options = parser.parse_args(argv)
    try:
        results = read(options.runs)
    except ValueError as error:
        print(f"seeds: {error}", file=sys.stderr)
        return 2
    print("| model | " + " | ".join(FIGURES) + " |\n|" + "---|" * (len(FIGURES) + 1))
    for stage, figures in results.items():
        columns = [[run[name] for run in figures] for name in FIGURES]
        print(f"| {stage} | " + " | ".join(_cell(column) for column in columns) + " |")
    for name in ("accuracy", "accuracy_sampled"):
        gains = [100 * (g[name] - s[name]) for g, s in zip(results["grpo"], results["sft"], strict=True)]
        print(f"grpo - sft, {name}, points: " + ", ".join(f"{gain:+.1f}" for gain in gains))
    return 0


def _cell(values: Sequence[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.4g} ± {spread:.2g}"


if __name__ == "__main__":
    sys.exit(main())
