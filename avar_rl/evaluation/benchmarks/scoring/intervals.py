"""Figures with intervals: means over units that lie in clusters, their averages, and differences of two results.

A unit is what counts once: a question, or all questions about a figure. What shares a cluster is drawn together by the
bootstrap (`avar_rl.runtime.bootstrap`). A figure is the average of one or more means: MMStar's mean over its 18
categories, HallusionBench's over its three accuracies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from avar_rl.runtime.bootstrap import percentiles, replicates

# Shapes: C clusters, R resamples, U units, P parts of all figures.


@dataclass(frozen=True)
class Mean:
    """The mean of `values` over units; `clusters` are the numbers of the clusters that they lie in, 0 up."""

    values: NDArray[np.float64]
    clusters: NDArray[np.intp]

    @property
    def value(self) -> float:
        """The mean itself; NaN without units."""
        return float(self.values.mean()) if len(self.values) else float("nan")


class Estimate(NamedTuple):
    """A figure and its 95 % interval, None where all units of one of its means lie in one cluster."""

    value: float
    interval: tuple[float, float] | None

    def as_json(self) -> dict[str, Any]:
        """As the files of results have it."""
        return {"value": self.value, "interval": None if self.interval is None else list(self.interval)}


Means = Sequence[Mean]  # a figure is their average


def numbered(labels: Sequence[Any]) -> NDArray[np.intp]:
    """The number of each label, 0 up in the order in which they first stand; the same label, the same number."""
    places = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    return np.array([places[label] for label in labels], dtype=np.intp)


def resampled(figures: Mapping[str, Means], clusters: int, seed: int = 0) -> dict[str, NDArray[np.float64]]:
    """Every figure in every resample of so many clusters: name → (R,)."""
    parts = [mean for figure in figures.values() for mean in figure]
    sums_CP = np.zeros((clusters, len(parts)))
    counts_CP = np.zeros((clusters, len(parts)))
    for place, mean in enumerate(parts):
        sums_CP[:, place] = np.bincount(mean.clusters, weights=mean.values, minlength=clusters)
        counts_CP[:, place] = np.bincount(mean.clusters, minlength=clusters)
    ratios_RP, start, found = replicates(sums_CP, counts_CP, seed), 0, {}
    for name, figure in figures.items():
        found[name] = np.asarray(ratios_RP[:, start : start + len(figure)].mean(axis=1))
        start += len(figure)
    return found


def value_of(figure: Means) -> float:
    """The figure itself: the average of its means."""
    return float(np.mean([mean.value for mean in figure]))


def estimates(figures: Mapping[str, Means], clusters: int, seed: int = 0) -> dict[str, Estimate]:
    """Figures by name → the same with their intervals; `clusters`: how many there are."""
    drawn = resampled(figures, clusters, seed)
    return {name: Estimate(value_of(figure), _interval(figure, drawn[name])) for name, figure in figures.items()}


def _interval(figure: Means, replicates_R: NDArray[np.float64]) -> tuple[float, float] | None:
    if any(len(set(mean.clusters.tolist())) < 2 for mean in figure):
        return None
    low, high = percentiles(replicates_R[:, None])
    return float(low[0]), float(high[0])


def differences(
    before: Mapping[str, Means], after: Mapping[str, Means], clusters: int, seed: int = 0
) -> dict[str, Estimate]:
    """after - before of figures by name, of two results on the same questions: both are resampled together."""
    drawn = [resampled(figures, clusters, seed) for figures in (before, after)]
    found = {}
    for name, figure in before.items():
        interval = _interval(figure, drawn[1][name] - drawn[0][name])
        found[name] = Estimate(value_of(after[name]) - value_of(figure), interval)
    return found


def in_words(difference: Estimate) -> str:
    """ "higher" or "lower" where the interval of a difference leaves 0 out, else "within noise"."""
    if difference.interval is None or difference.interval[0] <= 0 <= difference.interval[1]:
        return "within noise"
    return "higher" if difference.value > 0 else "lower"
