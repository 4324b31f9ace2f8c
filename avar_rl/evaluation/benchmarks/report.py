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
    from avar_rl.evaluation.benchmarks.markdown import disagreements, document
    from avar_rl.evaluation.benchmarks.page import write_page
    from avar_rl.runtime.files import write_whole

    written = [out / "benchmarks.md"]
    write_whole(written[0], document(results))
    for name in names:
        written.append(out / f"{name}.disagreements.md")
        write_whole(written[-1], disagreements(out, name, results["models"][name]["benchmarks"]))
        written.append(write_page(out, name, results))
    return written


def print_scores(results: Mapping[str, Any]) -> None:
    """Prints the scores of every model and benchmark beside the paper's, one line each."""
    from avar_rl.evaluation.benchmarks.benchmark import find
    from avar_rl.evaluation.benchmarks.published import published
    from avar_rl.evaluation.benchmarks.wording import LIMITED, between, counted, metrics, percent
    from avar_rl.runtime import tables

    cited = [one for one in published() if one.mean is not None]  # the rest is in the Markdown
    columns = [
        column
        for column in ("official", "ours", "judge")
        if any(figures["columns"].get(column) for _, _, figures in _lines(results))
    ]
    table = tables.table(
        ("benchmark", "model", *columns, "n", "cut off", "unparsed", *(one.name for one in cited)),
        text=("benchmark", "model"),
        title="accuracy in percent [95 % interval] by the benchmark's own rules and by the project's grader",
    )
    for model, benchmark, figures in _lines(results):
        mark = "*" if figures["limited"] else ""
        scores = []
        for column in columns:
            metric = next(iter(metrics(figures, column)), None)
            scores.append("-" if metric is None else f"{percent(metric.value)}{mark} {between(metric.interval)}".strip())
        counts = [f"{figures['counts'][key]}{mark}" for key in ("truncated", "unparsed")]
        others = [one.text(benchmark) or "-" for one in cited]
        named = tables.cut(find(benchmark).title), tables.cut(model)
        table.add_row(*named, *scores, counted(figures) + mark, *counts, *others)
    screen = tables.console()
    screen.print(table)
    if any(figures["limited"] for _, _, figures in _lines(results)):
        screen.print(f"* {LIMITED}: of a part of the benchmark's questions, not comparable with published numbers")


def _lines(results: Mapping[str, Any]) -> list[tuple[str, str, Mapping[str, Any]]]:
    models = results["models"]
    return [(name, benchmark, found) for name in models for benchmark, found in models[name]["benchmarks"].items()]


def report(options: argparse.Namespace) -> None:
    """What the command does. ValueError: files are missing or damaged, an unknown model, question or layout."""
    from avar_rl.evaluation.benchmarks.answered import figures_of, read_results

    results = read_results(options.out)
    names = options.models or list(results["models"])
    for name in names:
        figures_of(results, name, options.out)
    if options.overlay:
        from avar_rl.evaluation.benchmarks.overlay import write_overlays

        for name in names:
            write_overlays(options.out, name, options.overlay)
    written: list[Path] = []
    if options.check_train:
        from avar_rl.evaluation.benchmarks.contamination import write_contamination

        written.append(write_contamination(options.out, results, options.check_train))
    written += write_reports(options.out, results, names)
    if options.export:
        from avar_rl.evaluation.benchmarks.export import export

        written += [path for name in names for path in export(options.out, name, options.export, options.export_text)]
    print_scores(results)
    print("\n".join(map(str, written)))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="avar report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder of an evaluation, with benchmarks.json")
    parser.add_argument("--models", nargs="+", metavar="NAME", help="only these (default: all)")
    parser.add_argument("--check-train", nargs="+", type=Path, metavar="FILE", help="training files (parquet)")
    parser.add_argument("--export", choices=LAYOUTS, help="write the greedy responses in the layout of this tool")
    parser.add_argument(
        "--export-text",
        choices=("response", "answer"),
        default="response",
        help="write a response as it is, or its final answer only: after </think>, inside <answer> (default response)",
    )
    parser.add_argument("--overlay", nargs="+", metavar="ID", help="draw the attention to the images of these questions")
    options = parser.parse_args(argv)
    try:
        report(options)
    except (OSError, ValueError) as error:
        print(f"avar report: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
