"""Report on a folder of evaluated benchmarks: `avar report OUT`. Needs no model, except for --overlay.

Prints the scores beside published ones and writes OUT/benchmarks.md, OUT/NAME.html (a browser of every question) and
OUT/NAME.disagreements.md. --check-train looks for the questions in training data; --export writes the greedy responses
as VLMEvalKit or lmms-eval score them; --overlay draws a model's attention over the image of single questions.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LAYOUTS = ("vlmevalkit", "lmms-eval")


def write_reports(out: Path, results: Mapping[str, Any], names: Sequence[str]) -> list[Path]:
    """Writes the Markdown of an evaluation, and the page and the disagreements of the models `names`.

    Args:
        out: the folder of the evaluation; `results` is the content of its benchmarks.json.

    Raises:
        ValueError: files of a model are missing or damaged.
    """
    from avar_rl.evaluation.benchmarks.reporting.markdown import disagreements, document
    from avar_rl.evaluation.benchmarks.reporting.page import write_page
    from avar_rl.runtime.files import write_whole

    written = [out / "benchmarks.md"]
    write_whole(written[0], document(results))
    for name in names:
        written.append(out / f"{name}.disagreements.md")
        write_whole(written[-1], disagreements(out, name, results["models"][name]["benchmarks"]))
        written.append(write_page(out, name, results))
    return written


def print_scores(results: Mapping[str, Any], names: Sequence[str]) -> None:
    """Prints the scores of the models `names` beside the paper's, a table each; the rest is in the Markdown."""
    from avar_rl.evaluation.benchmarks.reporting.published import published
    from avar_rl.evaluation.benchmarks.reporting.wording import LIMITED, counted, give_or_take, metrics
    from avar_rl.evaluation.benchmarks.scoring.scored import COLUMNS
    from avar_rl.runtime import tables

    cited = [one for one in published() if one.mean is not None]
    screen, limited = tables.console(), False
    for name in names:
        found = results["models"][name]["benchmarks"]
        columns = [column for column in COLUMNS if any(figures["columns"].get(column) for figures in found.values())]
        table = tables.table(
            (
                "benchmark",
                *columns,
                "n",
                "cut",
                "unparsed",
                *(one.name.removeprefix("AVAR").strip(" -") for one in cited),
            ),
            text=("benchmark",),
            title=f"{name}: accuracy in percent ± half its 95 % interval, beside {cited[0].model} and AVAR's paper",
        )
        for benchmark, figures in found.items():
            mark = "*" if figures["limited"] else ""
            limited |= figures["limited"]
            first = [next(iter(metrics(figures, column)), None) for column in columns]
            scores = [give_or_take(one.value, one.interval) + mark if one else "-" for one in first]
            counts = [f"{figures['counts'][key]}{mark}" for key in ("truncated", "unparsed")]
            others = [one.text(benchmark) or "-" for one in cited]
            table.add_row(benchmark, *scores, counted(figures) + mark, *counts, *others)
        screen.print(table)
    if limited:
        screen.print(f"* {LIMITED}: of a part of the benchmark's questions, not comparable with published numbers")


def add_reporting(group: Any) -> None:
    """Adds the options of what may be reported beside scores and pages to a parser or a group of its options."""
    group.add_argument(
        "--check-train", nargs="+", type=Path, metavar="FILE", help="look for the questions in these files"
    )
    group.add_argument("--export", choices=LAYOUTS, help="write the greedy responses in the layout of this tool")
    group.add_argument(
        "--export-text",
        choices=("response", "answer"),
        default="response",
        help="export a response as it is, or its final answer only: after </think>, inside <answer> (default response)",
    )


def report(out: Path, results: Mapping[str, Any], names: Sequence[str], options: argparse.Namespace) -> list[str]:
    """Writes all reports of the models `names` that `options` ask for, and prints the scores and what was written.

    Args:
        out: the folder of the evaluation; `results` is the content of its benchmarks.json.
        options: with what `add_reporting` adds.

    Returns:
        A sentence for each part of an export that could not be written.

    Raises:
        ValueError: files are missing or damaged.
    """
    written, problems = write_reports(out, results, names), []
    if options.check_train:
        from avar_rl.evaluation.benchmarks.reporting.clean_scores import write_contamination

        written += write_contamination(out, results, options.check_train)
    if options.export:
        from avar_rl.evaluation.benchmarks.reporting.export import export

        for name in names:
            files, left_out = export(out, name, options.export, options.export_text)
            written += files
            problems += [f"not exported: {sentence}" for sentence in left_out]
    print_scores(results, names)
    print("\n".join(map(str, written)))
    return problems


def _run(options: argparse.Namespace) -> list[str]:
    from avar_rl.evaluation.benchmarks.reporting.answered import figures_of, read_results
    from avar_rl.evaluation.benchmarks.reporting.contamination import check_files

    results = read_results(options.out)
    names = options.models or list(results["models"])
    for name in names:
        figures_of(results, name, options.out)
    check_files(options.check_train or ())
    if options.overlay:
        from avar_rl.evaluation.benchmarks.reporting.overlay import write_overlays

        for name in names:
            write_overlays(options.out, name, options.overlay)
    return report(options.out, results, names, options)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="avar report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder of an evaluation, with benchmarks.json")
    parser.add_argument("--models", nargs="+", metavar="NAME", help="only these (default: all)")
    add_reporting(parser)
    parser.add_argument(
        "--overlay", nargs="+", metavar="ID", help="draw the attention to the images of these questions"
    )
    options = parser.parse_args(argv)
    try:
        problems = _run(options)
    except (OSError, ValueError) as error:
        print(f"avar report: {error}", file=sys.stderr)
        return 2
    for problem in problems:
        print(f"avar report: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
