"""Compare two models or settings on the same questions of benchmarks: `avar compare A B [--models X Y]`.

A and B are folders of evaluations (or their benchmarks.json), also the same one twice with two of its models. Prints,
for each benchmark and metric, both scores, their difference with its paired 95 % interval, and whether that is within
noise; writes the differences as a plot with --plot, and everything as JSON with --json.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avar_rl.evaluation.benchmarks.scoring.scored import ScoredSet

SHOWN = 6  # settings that differ, in a line


@dataclass(frozen=True)
class Side:
    """One model of an evaluation: its folder, its name, and benchmark → figures."""

    folder: Path
    name: str
    figures: Mapping[str, Mapping[str, Any]]

    def scored(self, benchmark: str) -> ScoredSet:
        """Its scored responses. ValueError: files are missing, damaged or of another benchmark."""
        from avar_rl.evaluation.benchmarks.benchmark import find
        from avar_rl.evaluation.benchmarks.reporting.answered import read_questions, read_scored
        from avar_rl.evaluation.benchmarks.scoring.scored import scored_set

        questions = read_questions(self.folder, self.name, benchmark)
        return scored_set(find(benchmark), questions, read_scored(self.folder, self.name, benchmark))


def side(path: Path, name: str | None) -> Side:
    """A model of the evaluation at `path`, its only one where `name` is None.

    Raises:
        ValueError: no results there, no such model, or several and no name.
    """
    from avar_rl.evaluation.benchmarks.reporting.answered import figures_of, read_results

    results = read_results(path)
    if name is None:
        if len(results["models"]) > 1:
            raise ValueError(f"{path} has the models {', '.join(results['models'])}: say which with --models X Y")
        (name,) = results["models"]
    assert name is not None
    return Side(path if path.is_dir() else path.parent, name, figures_of(results, name, path))


def compare_sides(before: Side, after: Side) -> dict[str, dict[str, Any]]:
    """Benchmark → n, whether it is a part of the questions, and what `totals.compared` finds, of those that both have.

    Raises:
        ValueError: they have no benchmark in common, or were asked different questions of one.
    """
    from avar_rl.evaluation.benchmarks.scoring.totals import compared

    common = [benchmark for benchmark in before.figures if benchmark in after.figures]
    if not common:
        asked = " and ".join(", ".join(one.figures) for one in (before, after))
        raise ValueError(f"{before.name} and {after.name} have no benchmark in common: they were asked {asked}")
    found = {}
    for benchmark in common:
        sets = before.scored(benchmark), after.scored(benchmark)
        figures = before.figures[benchmark]
        about = {"n": len(sets[0].samples), "official_n": figures["official_n"], "limited": figures["limited"]}
        found[benchmark] = about | {"columns": compared(*sets)}
    return found


def mean_difference(found: Mapping[str, Mapping[str, Any]], column: str) -> dict[str, Any] | None:
    """The paper's mean over its seven benchmarks in a column, as `totals.compared` has a metric; None without all."""
    from avar_rl.evaluation.benchmarks.benchmark import ALL, chosen
    from avar_rl.evaluation.benchmarks.scoring.intervals import Estimate, in_words
    from avar_rl.evaluation.benchmarks.scoring.totals import average

    of_each = [found.get(one.name, {}).get("columns", {}).get(column) for one in chosen([ALL])]
    if not all(of_each):
        return None
    first = [next(iter(one.values())) for one in of_each if one]
    means = {part: average([Estimate(**pair[part]) for pair in first]) for part in ("before", "after", "difference")}
    return {part: mean.as_json() for part, mean in means.items()} | {"verdict": in_words(means["difference"])}


def differing_settings(before: Side, after: Side, benchmarks: Sequence[str]) -> list[str]:
    """What the two results were not made alike in, each once, in words; the model is left out."""
    from avar_rl.evaluation.benchmarks.reporting.wording import settings_of

    found: dict[str, None] = {}
    for benchmark in benchmarks:
        first, second = (dict(settings_of(one.figures[benchmark])) for one in (before, after))
        for name in dict.fromkeys((*first, *second)):
            if first.get(name) != second.get(name) and not name.startswith("model"):
                found[f"{name}: {first.get(name, '-')} and {second.get(name, '-')}"] = None
    return list(found)


def print_comparison(before: Side, after: Side, found: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints every metric of every benchmark: both scores, difference, interval, verdict."""
    from avar_rl.evaluation.benchmarks.reporting.wording import LIMITED, counted
    from avar_rl.evaluation.benchmarks.scoring.scored import COLUMNS
    from avar_rl.runtime import tables

    screen, limited = tables.console(), any(one["limited"] for one in found.values())
    for column in COLUMNS:
        if not any(column in one["columns"] for one in found.values()):
            continue
        table = tables.table(
            ("benchmark", "A", "B", "B - A", "paired 95 %", "", "n"),
            text=("benchmark",),
            title=f"{column}: A = {before.name}, B = {after.name}, the same questions; % ± half the 95 % interval",
        )
        for benchmark, one in found.items():
            for place, (metric, pair) in enumerate(_told(one["columns"].get(column, {})).items()):
                named = f"  {metric}" if place else benchmark if metric == "accuracy" else f"{benchmark}, {metric}"
                table.add_row(
                    named,
                    *_cells(pair, one["limited"]),
                    "" if place else counted(one) + ("*" if one["limited"] else ""),
                )
        if mean := mean_difference(found, column):
            table.add_row("mean of the paper's seven", *_cells(mean, limited), "")
        screen.print(table)
    if limited:
        screen.print(f"* {LIMITED}: of a part of the benchmark's questions")
    for name, only in ((before.name, before.figures), (after.name, after.figures)):
        if left := [benchmark for benchmark in only if benchmark not in found]:
            screen.print(f"only {name} was asked {', '.join(left)}", markup=False)
    differ = differing_settings(before, after, list(found))
    if differ:
        more = f"; and {len(differ) - SHOWN} more" if len(differ) > SHOWN else ""
        screen.print(f"not made alike: {'; '.join(map(tables.printable, differ[:SHOWN]))}{more}", markup=False)


def _cells(pair: Mapping[str, Any], limited: bool) -> list[str]:
    """Both scores, their difference, its interval, and the verdict."""
    from avar_rl.evaluation.benchmarks.reporting.wording import between, give_or_take, points

    mark, change = "*" if limited else "", pair["difference"]
    scores = [give_or_take(**pair[part]) + mark for part in ("before", "after")]
    return [*scores, points(change["value"]) + mark, between(change["interval"], points), pair["verdict"]]


def _told(metrics: Mapping[str, Any]) -> Mapping[str, Any]:
    """The benchmark's own metrics, or its accuracy where it has none."""
    own = {name: pair for name, pair in metrics.items() if name != "accuracy"}
    return own or metrics


def plot_comparison(before: Side, after: Side, found: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draws the differences with their intervals as PNG, for each benchmark by the official rules and by ours."""
    from avar_rl.evaluation.benchmarks.reporting.wording import LIMITED
    from avar_rl.runtime.plots import file_pyplot, save_figure

    pyplot = file_pyplot()
    figure, axis = pyplot.subplots(figsize=(8, 1.4 + 0.55 * len(found)), layout="constrained")
    for column, colour, shift in (("official", "#2557d6", -0.12), ("ours", "#e0751a", 0.12)):
        pairs = [next(iter(one["columns"][column].values())) for one in found.values()]
        for place, change in enumerate(pair["difference"] for pair in pairs):
            low, high = change["interval"] or (change["value"], change["value"])
            axis.plot([100 * low, 100 * high], [place + shift] * 2, color=colour, linewidth=2)
            label = f"{column}: {before.name} → {after.name}" if place == 0 else None
            axis.plot(100 * change["value"], place + shift, "o", color=colour, label=label)
    axis.axvline(0, color="#667085", linewidth=1)
    names = [f"{name}\nn = {one['n']:,}{' ' + LIMITED if one['limited'] else ''}" for name, one in found.items()]
    axis.set_yticks(range(len(found)), names, fontsize=8)
    axis.set_ylim(len(found) - 0.5, -0.5)
    axis.set_xlabel("difference in points, with its paired 95 % interval")
    figure.legend(fontsize=8, loc="outside upper center", ncols=2, frameon=False)
    save_figure(figure, path)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="avar compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path, metavar="A", help="an evaluation's folder, or its benchmarks.json")
    parser.add_argument("after", type=Path, metavar="B", help="the same, for what is compared with it")
    parser.add_argument("--models", nargs=2, metavar=("X", "Y"), help="the model of A and that of B")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the differences here (PNG)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure here")
    options = parser.parse_args(argv)
    try:
        names = options.models or (None, None)
        before, after = side(options.before, names[0]), side(options.after, names[1])
        found = compare_sides(before, after)
        print_comparison(before, after, found)
        if options.plot:
            plot_comparison(before, after, found, options.plot)
            print(options.plot)
        if options.json:
            from avar_rl.evaluation.benchmarks.scoring.scored import COLUMNS
            from avar_rl.runtime.files import write_json

            means = {column: mean for column in COLUMNS if (mean := mean_difference(found, column))}
            content = {"before": before.name, "after": after.name, "benchmarks": found, "mean": means}
            write_json(options.json, content)
            print(options.json)
    except (OSError, ValueError) as error:
        print(f"avar compare: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
