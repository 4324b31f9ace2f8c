"""Statistics of a study: results of runs -> means over seeds, paired differences, correlations over checkpoints.

A difference is paired by seed and question. It has two intervals of 95 %:

- both: a bootstrap that draws seeds, and questions within them (for all seeds at once where all have the same): how far
  the difference would move with other ones. Of a measure without values by question there is none.
- over seeds: Student's, of the seeds' own differences. With three to five seeds the bootstrap draws from too few to be
  wide enough; this interval knows how few they are.

A difference is called above or below 0 where both are. Where it was claimed to be above 0 by so much as to matter, it
is reproduced, contradicted, not reproduced (the interval over seeds excludes so much) or open. No tests beside these:
with five seeds Wilcoxon's smallest two-sided p is 1/16. Nothing is corrected for the number of comparisons; which are
primary is declared beforehand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from avar_rl.runtime.bootstrap import correlations, ranks, seeds_and_questions, t_interval
from avar_rl.study.study_file import ArmComparison, CorrelationOfMeasures, Study, side_of

Interval = tuple[float, float] | None
Results = Mapping[tuple[str, int], Mapping[str, Any]]  # (arm, seed) -> what results.py keeps


@dataclass(frozen=True)
class Spread:
    """Values by seed, their mean and sample standard deviation (None for one seed)."""

    by_seed: Mapping[int, float]

    @property
    def mean(self) -> float:
        return float(np.mean([*self.by_seed.values()]))

    @property
    def deviation(self) -> float | None:
        return float(np.std([*self.by_seed.values()], ddof=1)) if len(self.by_seed) > 1 else None


@dataclass(frozen=True)
class Effect:
    """A comparison's difference: by seed; questions a seed, None for a measure that has no values by question.

    least: what a claim that it is above 0 needs to matter, in the measure's unit; None: there is no claim.
    """

    difference: Spread
    questions: int | None
    both: Interval
    over_seeds: Interval
    least: float | None = None

    @property
    def verdict(self) -> str:
        """above 0, below 0 (of a claim: reproduced, contradicted) where both intervals are; else, of a claim, not
        reproduced where the one over seeds is below `least`; else open. With one seed all is open."""
        there = [one for one in (self.both, self.over_seeds) if one is not None]
        if self.over_seeds is None:
            return "open"
        above, below = ("above 0", "below 0") if self.least is None else ("reproduced", "contradicted")
        if all(low > 0 for low, _ in there):
            return above
        if all(high < 0 for _, high in there):
            return below
        return "not reproduced" if self.least is not None and self.over_seeds[1] < self.least else "open"


Effects = Mapping[str, Effect | None]  # by the comparison's name; None where no seed has both sides


@dataclass(frozen=True)
class Checkpoint:
    """A trained model, once for all runs that share it. arms: of these runs."""

    seed: int
    model: str
    arms: tuple[str, ...]
    measures: Mapping[str, float | None]


@dataclass(frozen=True)
class MeasuresCorrelation:
    """Of x with y over n checkpoints: coefficient and 95 % interval, of seeds drawn anew; None where there is none."""

    over: str
    n: int
    pearson: tuple[float, Interval] | None
    spearman: tuple[float, Interval] | None


def model_names(results: Results) -> list[str]:
    """Models of all runs, in the order of training as far as it is known."""
    first = ("base", "sft", "grpo")
    names = dict.fromkeys(name for result in results.values() for name in result["models"])
    return [*(name for name in first if name in names), *(name for name in names if name not in first)]


def spread(results: Results, arm: str, model: str, measure: str) -> Spread | None:
    """A measure of an arm's model over seeds; None where no run has it."""
    values = {
        seed: result["models"][model]["measures"].get(measure)
        for (of, seed), result in sorted(results.items())
        if of == arm and model in result["models"]
    }
    there = {seed: value for seed, value in values.items() if value is not None}
    return Spread(there) if there else None


def effects(study: Study, results: Results) -> dict[str, Effect | None]:
    """What each comparison found, by name. ValueError: see `effect`."""
    return {name: effect(study, results, name) for name in study.comparisons}


def effect(study: Study, results: Results, name: str) -> Effect | None:
    """What a comparison found; None where no seed has both sides.

    Raises:
        ValueError: the two were asked different questions, or the comparison wants questions where there are none.
    """
    one = study.comparisons[name]
    (arm, model), (other, other_model) = (side_of(side, "", study.arms) for side in (one.arm, one.against))
    seeds = sorted({*study.seeds_of(arm)} & {*study.seeds_of(other)})
    pairs = {
        seed: (results[arm, seed]["models"][model], results[other, seed]["models"][other_model])
        for seed in seeds
        if model in results.get((arm, seed), {"models": {}})["models"]
        and other_model in results.get((other, seed), {"models": {}})["models"]
    }
    if pairs and all(one.measure in side["by_question"] for pair in pairs.values() for side in pair):
        return _by_question(name, one, pairs, {seed: (results[arm, seed], results[other, seed]) for seed in pairs})
    if pairs and one.kinds:
        raise ValueError(f"comparisons.{name}: {one.measure} has no values by question, so `kinds` cannot choose any")
    measured = {seed: [side["measures"].get(one.measure) for side in pair] for seed, pair in pairs.items()}
    both = {seed: (a, b) for seed, (a, b) in measured.items() if a is not None and b is not None}
    if not both:
        return None
    there = {seed: a - b for seed, (a, b) in both.items()}
    least = _least(one, [b for _, b in both.values()])
    return Effect(Spread(there), None, None, t_interval(np.array([*there.values()])), least)


def _least(one: ArmComparison, against: Sequence[float]) -> float | None:
    return one.least * float(np.mean(against)) if one.least is not None and one.relative else one.least


def _by_question(name: str, one: ArmComparison, pairs: Mapping[int, Any], runs: Mapping[int, Any]) -> Effect:
    values, asked, against = {}, {}, []
    for seed, (side, other) in pairs.items():
        questions, others = (run["questions"] for run in runs[seed])
        if questions["id"] != others["id"]:
            raise ValueError(f"comparisons.{name}: at seed {seed} the two were asked different questions")
        chosen = np.array([not one.kinds or kind in one.kinds for kind in questions["kind"]])
        if not chosen.any():
            raise ValueError(f"comparisons.{name}: no question of seed {seed} is of the kinds {', '.join(one.kinds)}")
        mine, theirs = (np.array(model["by_question"][one.measure])[chosen] for model in (side, other))
        values[seed] = mine - theirs
        against.append(float(theirs.mean()))
        asked[seed] = questions["id"], questions["kind"]  # worlds of two seeds may number their questions alike
    difference = Spread({seed: float(value.mean()) for seed, value in values.items()})
    shared = all(of_seed == asked[next(iter(asked))] for of_seed in asked.values())
    return Effect(
        difference,
        min(map(len, values.values())),
        seeds_and_questions([*values.values()], shared=shared),
        t_interval(np.array([*difference.by_seed.values()])),
        _least(one, against),
    )


def checkpoints(results: Results) -> list[Checkpoint]:
    """Every model once; where several runs evaluated the same one, its measures are the mean of theirs."""
    found: dict[tuple[int, str, str], list[tuple[str, Mapping[str, float | None]]]] = {}
    for (arm, seed), result in sorted(results.items()):
        for model, about in result["models"].items():
            found.setdefault((seed, model, about["checkpoint"]), []).append((arm, about["measures"]))
    return [
        Checkpoint(seed, model, tuple(arm for arm, _ in runs), _mean([measures for _, measures in runs]))
        for (seed, model, _), runs in found.items()
    ]


def _mean(several: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    means = {}
    for name in dict.fromkeys(name for measures in several for name in measures):
        there = [value for measures in several if (value := measures.get(name)) is not None]
        means[name] = float(np.mean(there)) if there else None
    return means


def correlate(found: Sequence[Checkpoint], pair: CorrelationOfMeasures) -> list[MeasuresCorrelation]:
    """Over all checkpoints, over those of each model, and within models: each model's mean taken off before."""
    there = [
        one
        for one in found
        if (not pair.models or one.model in pair.models)
        and one.measures.get(pair.x) is not None
        and one.measures.get(pair.y) is not None
    ]
    x, y = (np.array([one.measures[name] for one in there], dtype=np.float64) for name in (pair.x, pair.y))
    seeds, models = np.array([one.seed for one in there]), np.array([one.model for one in there])
    rows = [_correlation("all checkpoints", x, y, seeds)]
    names = list(dict.fromkeys(models.tolist()))
    if len(names) > 1:
        rows += [_correlation(name, x[models == name], y[models == name], seeds[models == name]) for name in names]
        rows.append(_correlation("within models", _centred(x, models), _centred(y, models), seeds))
    return rows


def _centred(values: np.ndarray, models: np.ndarray) -> np.ndarray:
    return values - np.array([values[models == model].mean() for model in models])


def _correlation(over: str, x: np.ndarray, y: np.ndarray, seeds: np.ndarray) -> MeasuresCorrelation:
    if len(x) < 3:
        return MeasuresCorrelation(over, len(x), None, None)
    clusters = np.unique(seeds, return_inverse=True)[1]
    return MeasuresCorrelation(over, len(x), _one(x, y, clusters), _one(ranks(x), ranks(y), clusters))


def _one(x: np.ndarray, y: np.ndarray, clusters: np.ndarray) -> tuple[float, Interval] | None:
    value, interval = correlations(x[:, None], y, clusters)
    if np.isnan(value[0]):
        return None
    bounds = None if interval is None else (float(interval[0][0]), float(interval[1][0]))
    return float(value[0]), None if bounds is None or np.isnan(bounds).any() else bounds
