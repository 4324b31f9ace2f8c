"""Benchmarks on the command line of `avar evaluate`: models answer, what is stored is scored, reports are written."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from avar_rl.evaluation.benchmarks.reporting.report import add_reporting
from avar_rl.evaluation.benchmarks.scoring.score import add_judge

if TYPE_CHECKING:
    from avar_rl.evaluation.answering.generate import GenerationSettings
    from avar_rl.evaluation.benchmarks.asking.run import Asking

OPTIONS = ("benchmark_data", "prompts", "system_prompt", "min_pixels", "max_pixels", "replicas", "vas")
OPTIONS += ("judge", "judge_model", "check_train", "export")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of benchmarks to the parser of `avar evaluate`."""
    group = parser.add_argument_group("with --benchmarks")
    group.add_argument(
        "--benchmark-data",
        action="append",
        metavar="PLACE",
        help="a folder of local copies, or NAME=PLACE or NAME/PART=PLACE with a file, folder or hub name; may be given "
        "several times (default: each benchmark's own on the hub)",
    )
    group.add_argument("--prompts", help="official, ours, think, or a text file (default official)")
    group.add_argument("--system-prompt", metavar="TEXT", help="a system turn (default: what the chat template writes)")
    group.add_argument("--min-pixels", type=int, metavar="N", help="smallest image, in pixels (default: the model's)")
    group.add_argument("--max-pixels", type=int, metavar="N", help="largest image, in pixels (default: the model's)")
    group.add_argument(
        "--replicas",
        type=int,
        metavar="N",
        help="engines side by side through Ray, on this machine or on the cluster that RAY_ADDRESS names (default 1)",
    )
    group.add_argument("--vas", action="store_true", help="measure the visual attention of the prompts, too")
    add_reporting(group)
    add_judge(parser)


def asking_of(models: Mapping[str, str], options: argparse.Namespace, settings: GenerationSettings) -> Asking:
    """What the options say of how models, by name, are asked benchmarks. ValueError: bad input."""
    from avar_rl.evaluation.benchmarks.asking.asked import Preparation, data_places
    from avar_rl.evaluation.benchmarks.asking.prompting import load_prompts
    from avar_rl.evaluation.benchmarks.asking.run import INTERVENED, Asking
    from avar_rl.evaluation.benchmarks.benchmark import chosen
    from avar_rl.evaluation.benchmarks.reporting.contamination import check_files
    from avar_rl.runtime.settings import Count, parse

    if options.system_prompt is not None and not options.system_prompt.strip():
        raise ValueError("--system-prompt is empty; give a text, or leave the option out")
    if taken := [name for name in models if options.intervene and name + INTERVENED in models]:
        raise ValueError(f"{taken[0]}{INTERVENED} is the name of {taken[0]}'s second answers; choose another")
    benchmarks = chosen(options.benchmarks.split(","))
    check_files(options.check_train or ())
    return Asking(
        benchmarks=benchmarks,
        prompts={one.name: load_prompts(options.prompts, one) for one in benchmarks},
        settings=settings,
        preparation=Preparation(data_places(options.benchmark_data, benchmarks), options.limit, options.system_prompt),
        least=options.min_pixels,
        most=options.max_pixels,
        replicas=parse(Count, options.replicas, "replicas"),
        vas=options.vas,
        vas_batch=options.vas_batch_size,
    )


def evaluate_benchmarks(models: Mapping[str, str], options: argparse.Namespace, settings: GenerationSettings) -> int:
    """Has every model answer the benchmarks, scores what is stored and reports.

    Returns:
        The exit status: 1 where something could not be scored or exported.

    Raises:
        ValueError: bad input.
    """
    from avar_rl.evaluation.benchmarks.asking.run import ask
    from avar_rl.evaluation.benchmarks.asking.telling import settings_line
    from avar_rl.evaluation.benchmarks.reporting.report import report
    from avar_rl.evaluation.benchmarks.scoring.score import judge_of, score_models

    asking, judge = asking_of(models, options, settings), judge_of(options)
    names = [one for name, model in models.items() for one in ask(name, model, asking, options.out, options.intervene)]
    results, problems = score_models(options.out, names, judge)
    problems += report(options.out, results, names, options)
    for name in names:
        origins = {one: found["origin"] for one, found in results["models"][name]["benchmarks"].items()}
        print(settings_line(name, origins))
    if options.intervene:
        _print_interventions(models, options.out)
    for problem in problems:
        print(f"avar evaluate: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _print_interventions(models: Mapping[str, str], out: Path) -> None:
    from avar_rl.evaluation.benchmarks.asking.run import INTERVENED
    from avar_rl.evaluation.benchmarks.reporting.compare import compare_sides, print_comparison, side

    for name in models:
        without, with_it = side(out, name), side(out, name + INTERVENED)
        print_comparison(without, with_it, compare_sides(without, with_it))
