"""A study's tables, in Markdown: what stands on its page, and excerpts of it for other pages."""

from __future__ import annotations

import math
from typing import Any

from avar_rl.runtime.tables import markdown_table
from avar_rl.study import analysis
from avar_rl.study.study_file import Excerpt, Study, side_of

_SHARES = ("accuracy", "accuracy_sampled", "format", "truncated")  # shown in %


def models_table(study: Study, results: analysis.Results) -> str:
    """Measures of every model; one row for models that are the same in several arms, seed by seed."""
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
    return _table(["arm", "model", "seeds", *study.columns], list(rows.values()))


def comparisons_table(study: Study, effects: analysis.Effects) -> str:
    """Every comparison, the primary ones first."""
    rows = []
    for name, one in sorted(study.comparisons.items(), key=lambda item: not item[1].primary):
        what = f"{one.arm} - {one.against}{f' ({one.about})' if one.about else ''}"
        measure = one.measure + (f" of {', '.join(one.kinds)}" if one.kinds else "")
        rows.append([f"**{name}**" if one.primary else name, what, measure, *_found(one.measure, effects[name])])
    return _table(["comparison", "", "measure", *_FOUND], rows)


def correlations_table(study: Study, results: analysis.Results) -> str:
    """Every correlation over checkpoints."""
    every = analysis.checkpoints(results)
    rows = [
        [pair.x, pair.y, row.over, str(row.n), _coefficient(row.pearson), _coefficient(row.spearman)]
        for pair in study.correlations
        for row in analysis.correlate(every, pair)
    ]
    return _table(["x", "y", "over", "n", "Pearson", "Spearman"], rows)


def arms_table(study: Study) -> str:
    """What each arm sets."""

    def knobs(arm: str) -> str:
        told = study.knobs_of(arm).items()
        return _code(", ".join(f"{name}={' '.join(v) if isinstance(v, list) else v}" for name, v in told))

    rows = [
        [name, knobs(name), _code(" ".join(study.overrides_of(name))), arm.about] for name, arm in study.arms.items()
    ]
    return _table(["arm", "knobs", "overrides", "about"], rows)


def stages_table(results: analysis.Results) -> str:
    """What stages took: means over an arm's runs. Shared stages count in each run that starts from them."""
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
    return _table(["arm", "stage", "runs", "minutes", "processor minutes"], rows)


def excerpt_table(study: Study, excerpt: Excerpt, results: analysis.Results, effects: analysis.Effects) -> str:
    """The models, or the comparisons, that a page shows, under the page's own names."""
    if excerpt.comparisons:
        named = excerpt.comparisons.items()
        rows = [[title, *_found(study.comparisons[name].measure, effects[name], unit=True)] for name, title in named]
        return _table(["", *_FOUND], rows)
    rows = []
    for side, title in excerpt.models.items():
        arm, model = side_of(side, "", study.arms)
        found = [(analysis.spread(results, arm, model, name), name) for name in excerpt.columns]
        seeds = max((len(spread.by_seed) for spread, _ in found if spread is not None), default=0)
        rows.append([title, str(seeds), *(_spread(spread, name) for spread, name in found)])
    return _table(["model", "seeds", *excerpt.columns.values()], rows)


_FOUND = ["seeds", "difference", "seeds and questions", "over seeds", "verdict"]


def _found(measure: str, effect: analysis.Effect | None, unit: bool = False) -> list[str]:
    """A comparison's cells under _FOUND; unit: say that differences of shares are points."""
    if effect is None:
        return ["0", "-", "-", "-", "-"]
    points = " points" if unit and measure in _SHARES else ""
    difference = _signed(measure, effect.difference.mean) + points
    intervals = [_interval(measure, bounds) for bounds in (effect.both, effect.over_seeds)]
    return [str(len(effect.difference.by_seed)), difference, *intervals, effect.verdict]


def _table(columns: list[str], rows: list[list[str]]) -> str:
    escaped = ([cell.replace("|", "\\|") for cell in row] for row in (columns, *rows))
    return markdown_table(next(escaped), escaped, text=len(columns))


def _code(words: str) -> str:
    return f"`{words}`" if words else ""


def _minutes(seconds: list[float | None]) -> str:
    there = [one for one in seconds if one is not None]
    return f"{sum(there) / len(there) / 60:.1f}" if there else "-"


def _spread(found: analysis.Spread | None, measure: str) -> str:
    """Mean ± sample standard deviation, the mean to the deviation's second digit."""
    if found is None:
        return "-"
    deviation = found.deviation
    if measure in _SHARES:
        return f"{100 * found.mean:.1f}{'' if deviation is None else f' ± {100 * deviation:.1f}'} %"
    if not deviation:
        return f"{found.mean:.3g}{'' if deviation is None else ' ± 0'}"
    decimals = max(0, 1 - math.floor(math.log10(deviation)))
    return f"{found.mean:.{decimals}f} ± {deviation:.{decimals}f}"


def _signed(measure: str, value: float) -> str:
    return f"{100 * value:+.1f}" if measure in _SHARES else f"{value:+.3g}"


def _interval(measure: str, bounds: analysis.Interval) -> str:
    return "-" if bounds is None else f"{_signed(measure, bounds[0])} .. {_signed(measure, bounds[1])}"


def _coefficient(found: tuple[float, analysis.Interval] | None) -> str:
    if found is None:
        return "-"
    value, bounds = found
    return f"{value:+.2f}" if bounds is None else f"{value:+.2f} ({bounds[0]:+.2f} .. {bounds[1]:+.2f})"
