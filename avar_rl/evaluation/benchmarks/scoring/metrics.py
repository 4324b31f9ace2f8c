"""The metrics of a benchmark: accuracy, and those of its own, as figures of which intervals can be had."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from avar_rl.evaluation.benchmarks.scoring.intervals import Mean, Means, numbered
from avar_rl.evaluation.benchmarks.scoring.scored import ScoredSet, label

# Shapes: N questions, D draws (1 greedy response, or K samples), U units.

_FIGURE = ("category", "subcategory", "set_id", "figure_id")
_QUESTION = ("category", "subcategory", "set_id", "question_id")


def metrics(results: ScoredSet, column: str) -> dict[str, Means]:
    """`accuracy`, and before it the benchmark's own metrics, the one that is reported first at the head."""
    right_ND = results.right(column)
    own = _OWN.get(results.benchmark.name, lambda results, right_ND: {})(results, right_ND)
    return own | {"accuracy": (mean_right(results, right_ND),)}


def mean_right(results: ScoredSet, right_ND: NDArray[np.float64], keep: Sequence[int] | None = None) -> Mean:
    """The mean over questions, of those at the places `keep`."""
    places = np.arange(len(right_ND)) if keep is None else np.array(keep, dtype=np.intp)
    return Mean(right_ND[places].mean(axis=1), results.clusters[places])


def _all_right(results: ScoredSet, right_ND: NDArray[np.float64], keys: Sequence[str]) -> Mean:
    """The mean over what shares the values of `keys` (a figure, a question) of whether all of it is right."""
    units = numbered([label(sample, keys) for sample in results.samples])
    all_UD = np.ones((units.max() + 1, right_ND.shape[1]))
    np.minimum.at(all_UD, units, right_ND)
    _, first = np.unique(units, return_index=True)
    return Mean(all_UD.mean(axis=1), results.clusters[first])


def _hallusion(results: ScoredSet, right_ND: NDArray[np.float64]) -> dict[str, Means]:
    """After `get_eval_all`, `get_eval_fig` and `get_eval_pair_all` in `utils.py` of tianyi-lab/HallusionBench."""
    questions = mean_right(results, right_ND)
    figure, pair = (_all_right(results, right_ND, keys) for keys in (_FIGURE, _QUESTION))
    return {
        "mean of aAcc, fAcc, qAcc": (questions, figure, pair),
        "aAcc": (questions,),
        "fAcc": (figure,),
        "qAcc": (pair,),
    }


def _settings(results: ScoredSet, right_ND: NDArray[np.float64]) -> dict[str, Means]:
    means = {part: mean_right(results, right_ND, places) for part, places in places_by(results, "part").items()}
    of_each: dict[str, Means] = {part: (mean,) for part, mean in means.items()}
    return {"mean of both settings": tuple(means.values())} | of_each


def _mmstar(results: ScoredSet, right_ND: NDArray[np.float64]) -> dict[str, Means]:
    by_l2 = [mean_right(results, right_ND, places) for places in places_by(results, "l2_category").values()]
    return {"all questions": (mean_right(results, right_ND),), "mean of the 18 categories (l2)": tuple(by_l2)}


_OWN: dict[str, Callable[[ScoredSet, NDArray[np.float64]], dict[str, Means]]] = {
    "hallusionbench": _hallusion,
    "mmmu_pro": _settings,
    "mmstar": _mmstar,
}


def places_by(results: ScoredSet, key: str) -> dict[str, list[int]]:
    """Value of `key` in `extra` → the places of the questions that have it, values sorted; without those without it."""
    found: dict[str, list[int]] = {}
    for place, sample in enumerate(results.samples):
        if (value := sample.extra.get(key)) is not None:
            found.setdefault(str(value), []).append(place)
    return dict(sorted(found.items()))
