"""Plots of a study: every arm seed by seed, differences with intervals, one measure against another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avar_rl.runtime.plots import file_pyplot, save_figure
from avar_rl.study import analysis
from avar_rl.study.study_file import CorrelationOfMeasures, Study

_LOGARITHMIC_FROM = 20.0  # largest by smallest value, all above 0


@dataclass(frozen=True)
class StudyPlot:
    """A PNG. shows: all figures in it, ready for JSON; draw: figures -> a figure of matplotlib."""

    name: str
    shows: Any
    draw: Callable[[Any], Any]

    @property
    def digest(self) -> str:
        """Of what it shows, to four digits: the same on every machine."""
        return "sha256 " + hashlib.sha256(json.dumps(_rounded(self.shows), sort_keys=True).encode()).hexdigest()

    def write(self, folder: Path) -> None:
        save_figure(self.draw(self.shows), folder / self.name, self.digest)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return {str(key): _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list | tuple) else value


def scatter_name(pair: CorrelationOfMeasures) -> str:
    return f"{pair.x}_{pair.y}{''.join('_' + model for model in pair.models)}.png"


def plots_of(study: Study, results: analysis.Results, effects: analysis.Effects) -> list[StudyPlot]:
    """All that the page shows."""
    found = [StudyPlot("arms.png", _arms(study, results), _draw_arms)]
    if study.comparisons:
        found.append(StudyPlot("effects.png", _effects(study, effects), _draw_effects))
    every = analysis.checkpoints(results)
    return found + [StudyPlot(scatter_name(pair), _points(every, pair), _draw_scatter) for pair in study.correlations]


def _arms(study: Study, results: analysis.Results) -> Any:
    """Measure -> model -> arm -> values of its seeds."""
    found: dict[str, Any] = {}
    for measure in study.columns:
        for model in analysis.model_names(results):
            for arm in study.arms:
                if (spread := analysis.spread(results, arm, model, measure)) is not None:
                    of_model = found.setdefault(measure, {}).setdefault(model, {})
                    of_model[arm] = [*spread.by_seed.values()]
    return {"arms": list(study.arms), "measures": found}


def _draw_arms(shows: Any) -> Any:
    arms, measures = shows["arms"], shows["measures"]
    size = 2.2 + 0.9 * len(arms), 2.6 * max(1, len(measures))
    figure, axes = file_pyplot().subplots(
        max(1, len(measures)), 1, figsize=size, squeeze=False, sharex=True, layout="constrained"
    )
    names = dict.fromkeys(model for models in measures.values() for model in models)
    tab20 = file_pyplot().cm.tab20  # strong colours and weak ones by turns: the strong ones first
    colours = {model: tab20((2 * place + place // 10) % 20) for place, model in enumerate(names)}
    for model in names:  # the legend names all, also those that the first measure is not of
        axes[0, 0].plot([], [], "o", color=colours[model], label=model)
    for axis, (measure, models) in zip(axes[:, 0], measures.items(), strict=False):
        for at, arm in enumerate(arms):
            there = {model: values[arm] for model, values in models.items() if arm in values}
            width = 0.8 / max(4, len(there))  # an arm's models share its place
            for place, (model, values) in enumerate(there.items()):
                x, mean = at + width * (place - (len(there) - 1) / 2), sum(values) / len(values)
                axis.plot([x] * len(values), values, "o", color=colours[model], markersize=4, alpha=0.6)
                axis.hlines(mean, x - 0.4 * width, x + 0.4 * width, color=colours[model], linewidth=2)
        _logarithmic(axis.set_yscale, [v for values in models.values() for arm in values.values() for v in arm])
        axis.set(ylabel=measure.replace("_", " "))
        axis.grid(axis="y", alpha=0.3)
    axes[-1, 0].set_xticks(range(len(arms)), arms, rotation=30, ha="right")
    axes[0, 0].legend(ncols=4, loc="lower right", bbox_to_anchor=(1, 1), frameon=False)
    return figure


def _effects(study: Study, effects: analysis.Effects) -> Any:
    """Measure -> rows of name, primary, mean, interval of both, interval over seeds, differences by seed."""
    found: dict[str, Any] = {}
    for name, one in study.comparisons.items():
        if (effect := effects[name]) is not None:
            row = [name, one.primary, effect.difference.mean, effect.both, effect.over_seeds]
            found.setdefault(one.measure, []).append([*row, [*effect.difference.by_seed.values()]])
    return found


def _draw_effects(shows: Any) -> Any:
    heights = [len(rows) for rows in shows.values()] or [1]
    figure, axes = file_pyplot().subplots(
        len(heights), 1, figsize=(8, 1.1 * len(heights) + 0.45 * sum(heights)), squeeze=False, layout="constrained",
        gridspec_kw={"height_ratios": [height + 0.5 for height in heights]},
    )  # fmt: skip
    for axis, (measure, rows) in zip(axes[:, 0], shows.items(), strict=False):
        axis.axvline(0, color="grey", linewidth=0.8)
        for place, (_, primary, mean, both, over_seeds, by_seed) in enumerate(rows):
            colour = "C3" if primary else "C0"
            if over_seeds is not None:
                axis.hlines(place, *over_seeds, color=colour, linewidth=1)
            if both is not None:
                axis.hlines(place, *both, color=colour, linewidth=4, alpha=0.5)
            axis.plot(by_seed, [place] * len(by_seed), "|", color="black", markersize=8)
            axis.plot([mean], [place], "o", color=colour, markersize=6)
        axis.set_yticks(range(len(rows)), [row[0] for row in rows])
        axis.set(ylim=(len(rows) - 0.5, -0.5), xlabel=f"difference in {measure.replace('_', ' ')}")
    figure.suptitle("thick: seeds and questions; thin: over seeds; ticks: single seeds; red: primary", fontsize=9)
    return figure


def _points(every: Sequence[analysis.Checkpoint], pair: CorrelationOfMeasures) -> Any:
    """Names of the axes, and model -> points (x, y)."""
    points: dict[str, list[list[float]]] = {}
    for one in every:
        x, y = one.measures.get(pair.x), one.measures.get(pair.y)
        if x is not None and y is not None and (not pair.models or one.model in pair.models):
            points.setdefault(one.model, []).append([float(x), float(y)])
    return {"x": pair.x, "y": pair.y, "points": points}


def _draw_scatter(shows: Any) -> Any:
    figure, axis = file_pyplot().subplots(figsize=(6, 4.5), layout="constrained")
    for model, points in shows["points"].items():
        axis.scatter(*zip(*points, strict=True), s=22, alpha=0.7, linewidths=0, label=model)
    _logarithmic(axis.set_xscale, [x for points in shows["points"].values() for x, _ in points])
    axis.set(xlabel=shows["x"].replace("_", " "), ylabel=shows["y"].replace("_", " "), title="one point a checkpoint")
    if shows["points"]:
        axis.legend()
    return figure


def _logarithmic(set_scale: Callable[[str], Any], values: Sequence[float]) -> None:
    if values and min(values) > 0 and max(values) / min(values) > _LOGARITHMIC_FROM:
        set_scale("log")
