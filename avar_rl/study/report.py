"""The page of a study: tables and plots, made of its result files alone, the same ones each time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avar_rl.runtime.files import write_whole
from avar_rl.runtime.plots import described
from avar_rl.runtime.tables import markdown_table
from avar_rl.study import analysis, plots
from avar_rl.study.results import read_result
from avar_rl.study.study_file import Study

PAGE = "report.md"
_SHARES = ("accuracy", "accuracy_sampled", "format", "truncated")  # shown in %
_LEGEND = (
    "Differences are paired by seed and question, shares in points; bold: primary. Two 95 % intervals: seeds and "
    "questions drawn anew (bootstrap), and Student's over the seeds' differences. Above or below 0: both are. Of a "
    "claim that the first is above the second: reproduced or contradicted where both are above or below 0, not "
    "reproduced where the one over seeds excludes the gain that would matter. Not corrected for the number of "
    "comparisons."
)


def read_results(study: Study) -> dict[tuple[str, int], dict[str, Any]]:
    """(arm, seed) -> result, of the runs that have one. ValueError: none has, or one is not of these settings."""
    found = {}
    for arm in study.arms:
        for seed in study.seeds_of(arm):
            result = read_result(study, arm, seed)
            if result is not None:
                found[arm, seed] = result
    if not found:
        raise ValueError(f"{study.results} holds no result of this study yet: run it first")
    return found


def write_report(study: Study) -> Path:
    """Writes the page and its plots; returns the page. ValueError: as of `read_results` and of `analysis.effect`."""
    results, folder = read_results(study), Path(study.results)
    effects = analysis.effects(study, results)
    for plot in plots.plots_of(study, results, effects):
        plot.write(folder)
    write_whole(folder / PAGE, _page(study, results, effects))
    return folder / PAGE


def differences(study: Study) -> list[Path]:
    """Files of the report that are missing, or are not what the results give. Plots are compared by what they show:
    the same figures may be drawn in other pixels by another version of matplotlib."""
    results, folder = read_results(study), Path(study.results)
    effects, page = analysis.effects(study, results), folder / PAGE
    same = page.is_file() and page.read_text(encoding="utf-8") == _page(study, results, effects)
    return ([] if same else [page]) + [
        folder / plot.name
        for plot in plots.plots_of(study, results, effects)
        if described(folder / plot.name) != plot.digest
    ]


def _page(study: Study, results: analysis.Results, effects: Mapping[str, analysis.Effect | None]) -> str:
    parts = [
        f"# Study {study.name}",
        study.about.strip() or f"A study of `{study.recipe}`.",
        _runs(study, results),
        "## Models\n",
        _table(["arm", "model", "seeds", *study.columns], _model_rows(study, results)),
        "![measures of every arm, seed by seed](arms.png)",
    ]
    if study.comparisons:
        parts += ["## Comparisons\n", _LEGEND, _table(_COMPARED, _comparison_rows(study, effects))]
        parts += ["![differences with their intervals](effects.png)"]
    if study.correlations:
        parts += ["## Correlations over checkpoints\n", "95 % intervals: seeds drawn anew."]
        parts += [_table(["x", "y", "over", "n", "Pearson", "Spearman"], _correlation_rows(study, results))]
        parts += [f"![{p.x} against {p.y}]({plots.scatter_name(p)})" for p in study.correlations]
    parts += ["## What the arms are\n", _table(["arm", "knobs", "overrides", "about"], _arm_rows(study))]
    parts += ["## What stages took\n", _table(["arm", "stage", "runs", "minutes", "processor minutes"], _cost(results))]
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def _runs(study: Study, results: analysis.Results) -> str:
    wanted = [(arm, seed) for arm in study.arms for seed in study.seeds_of(arm)]
    missing = [f"{arm} with seed {seed}" for arm, seed in wanted if (arm, seed) not in results]
    once = {stage["digest"]: stage for result in results.values() for stage in result["stages"]}
    wall, processor = (
        sum(stage[key] or 0 for stage in once.values()) / 3600 for key in ("seconds", "processor_seconds")
    )
    commits = sorted({str(result["commit"]) for result in results.values()})
    lines = [f"{len(results)} of {len(wanted)} runs of `{study.recipe}`, at commit {', '.join(commits)}."]
    lines.append(f"{len(once)} stages, {wall:.1f} hours one after the other, {processor:.1f} hours of processors.")
    if missing:
        lines.append(f"**Missing**: {', '.join(missing)}.")
    return " ".join(lines)


def _model_rows(study: Study, results: analysis.Results) -> list[list[str]]:
    """One row for models that are the same in several arms, seed by seed."""
    rows: dict[tuple[Any, ...], list[str]] = {}
    for model in analysis.model_names(results):
        for arm in study.arms:
            of_arm = {seed: result for (of, seed), result in results.items() if of == arm and model in result["models"]}
            if not of_arm:
                continue
            same = model, *((seed, run["models"][model]["checkpoint"]) for seed, run in sorted(of_arm.items()))
            if same in rows:
                rows[same][0] += f", {arm}"
                continue
            cells = [_spread(analysis.spread(results, arm, model, name), name) for name in study.columns]
            rows[same] = [arm, model, str(len(of_arm)), *cells]
    return list(rows.values())


_COMPARED = ["comparison", "", "measure", "seeds", "difference", "seeds and questions", "over seeds", "verdict"]


def _comparison_rows(study: Study, effects: Mapping[str, analysis.Effect | None]) -> list[list[str]]:
    rows = []
    for name, one in sorted(study.comparisons.items(), key=lambda item: not item[1].primary):
        what = f"{one.arm} - {one.against}{f' ({one.about})' if one.about else ''}"
        measure = one.measure + (f" of {', '.join(one.kinds)}" if one.kinds else "")
        row = [f"**{name}**" if one.primary else name, what, measure]
        if (found := effects[name]) is None:
            rows.append([*row, "0", "-", "-", "-", "-"])
            continue
        intervals = [_interval(one.measure, bounds) for bounds in (found.both, found.over_seeds)]
        seeds = str(len(found.difference.by_seed))
        rows.append([*row, seeds, _signed(one.measure, found.difference.mean), *intervals, found.verdict])
    return rows


def _correlation_rows(study: Study, results: analysis.Results) -> list[list[str]]:
    found = analysis.checkpoints(results)
    return [
        [pair.x, pair.y, row.over, str(row.n), _coefficient(row.pearson), _coefficient(row.spearman)]
        for pair in study.correlations
        for row in analysis.correlate(found, pair)
    ]


def _arm_rows(study: Study) -> list[list[str]]:
    def knobs(arm: str) -> str:
        told = study.knobs_of(arm).items()
        return ", ".join(f"{name}={' '.join(v) if isinstance(v, list) else v}" for name, v in told)

    return [
        [name, f"`{knobs(name)}`" if knobs(name) else "", _code(study.overrides_of(name)), arm.about]
        for name, arm in study.arms.items()
    ]


def _code(words: list[str]) -> str:
    return f"`{' '.join(words)}`" if words else ""


def _cost(results: analysis.Results) -> list[list[str]]:
    """Means over an arm's runs; shared stages count in each run that starts from them."""
    rows = []
    for arm in dict.fromkeys(arm for arm, _ in results):
        stages: dict[str, list[dict[str, Any]]] = {}
        for (of, _), result in sorted(results.items()):
            if of == arm:
                for stage in result["stages"]:
                    stages.setdefault(stage["name"], []).append(stage)
        for name, of_runs in stages.items():
            cells = [_minutes([stage[key] for stage in of_runs]) for key in ("seconds", "processor_seconds")]
            rows.append([arm, name, str(len(of_runs)), *cells])
    return rows


def _minutes(seconds: list[float | None]) -> str:
    there = [one for one in seconds if one is not None]
    return f"{sum(there) / len(there) / 60:.1f}" if there else "-"


def _table(columns: list[str], rows: list[list[str]]) -> str:
    escaped = ([cell.replace("|", "\\|") for cell in row] for row in (columns, *rows))
    return markdown_table(next(escaped), escaped, text=len(columns))


def _number(measure: str, value: float) -> str:
    return f"{100 * value:.1f} %" if measure in _SHARES else f"{value:.4g}"


def _spread(found: analysis.Spread | None, measure: str) -> str:
    if found is None:
        return "-"
    if found.deviation is None:
        return _number(measure, found.mean)
    if measure in _SHARES:
        return f"{100 * found.mean:.1f} ± {100 * found.deviation:.1f} %"
    return f"{found.mean:.4g} ± {found.deviation:.2g}"


def _signed(measure: str, value: float) -> str:
    return f"{100 * value:+.1f}" if measure in _SHARES else f"{value:+.4g}"


def _interval(measure: str, bounds: analysis.Interval) -> str:
    return "-" if bounds is None else f"{_signed(measure, bounds[0])} .. {_signed(measure, bounds[1])}"


def _coefficient(found: tuple[float, analysis.Interval] | None) -> str:
    if found is None:
        return "-"
    value, bounds = found
    return f"{value:+.2f}" if bounds is None else f"{value:+.2f} ({bounds[0]:+.2f} .. {bounds[1]:+.2f})"
