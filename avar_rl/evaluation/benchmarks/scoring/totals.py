"""Scored responses to a benchmark → its figures, each with an interval; and the figures of two results side by side.

An undecided response, and one whose judge failed, is not right, and is counted. Accuracy is of the greedy responses,
and of the samples where there are no greedy ones; so are the benchmark's own metrics, groups, counts and lengths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any

import numpy as np

from avar_rl.evaluation.benchmarks.scoring.intervals import Estimate, Mean, Means, differences, estimates, in_words
from avar_rl.evaluation.benchmarks.scoring.metrics import mean_right, metrics, places_by
from avar_rl.evaluation.benchmarks.scoring.scored import COLUMNS, ScoredSet
from avar_rl.evaluation.benchmarks.scoring.votes import majority, numbers_to_pass, pass_at


def figures(
    results: ScoredSet, records: Sequence[Mapping[str, Any]], origin: Mapping[str, Any], vas: Mapping | None = None
) -> dict[str, Any]:
    """The figures of a benchmark as `benchmarks.json` has them.

    Args:
        records: of all responses (truncated, tokens).
        origin: how the responses came about, with the `limit` on the questions.
    """
    n, official_n = len(results.samples), results.benchmark.n
    columns = {column: _column(results, column) if results.has(column) else None for column in COLUMNS}
    of_greedy = [record for record in records if record["sample"] is None] or records
    return {
        "n": n,
        "official_n": official_n,
        "limited": origin.get("limit") is not None or n != official_n,
        "columns": columns,
        "groups": _groups(results),
        "counts": _counts(results) | {"truncated": sum(bool(record["truncated"]) for record in of_greedy)},
        "tokens": _lengths([record["tokens"] for record in of_greedy]),
        "vas": vas,
        "origin": dict(origin),
    }


def _column(results: ScoredSet, column: str) -> dict[str, Any]:
    parts = metrics(results, column)
    own = [name for name in parts if name != "accuracy"]
    drawn: dict[str, Means] = _of_samples(results, column)
    found = {
        name: estimate.as_json()
        for name, estimate in estimates(parts | drawn, results.clusters_n, results.seed).items()
    }
    accuracy, passes = found["accuracy"], [name for name in drawn if name.startswith("pass@")]
    return {
        "accuracy": accuracy["value"],
        "interval": accuracy["interval"],
        "avg_at_k": found.get("avg_at_k"),
        "pass_at_k": found[passes[-1]] | {"by_k": {name: found[name] for name in passes}} if passes else None,
        "majority": found.get("majority"),
        "headline": {name: found[name] for name in own},
    }


def _of_samples(results: ScoredSet, column: str) -> dict[str, Means]:
    """avg@k, pass@k and the majority's answer over the samples of each question; {} without samples."""
    if not results.sampled:
        return {}
    clusters, K = results.clusters, len(results.sampled[0])
    right = [[line[column]["right"] is True for line in of_one] for of_one in results.sampled]
    chosen = [majority([line[column]["answer"] for line in of_one]) for of_one in results.sampled]
    voted = [place is not None and of_one[place] for place, of_one in zip(chosen, right, strict=True)]
    found: dict[str, Means] = {
        "avg_at_k": (Mean(np.array(right, dtype=np.float64).mean(axis=1), clusters),),
        "majority": (Mean(np.array(voted, dtype=np.float64), clusters),),
    }
    for k in numbers_to_pass(K):
        found[f"pass@{k}"] = (Mean(np.array([pass_at(k, sum(of_one), K) for of_one in right]), clusters),)
    return found


def _groups(results: ScoredSet) -> dict[str, dict[str, Any]]:
    """Key → value → n, and the accuracy with its interval in each column."""
    keys = results.benchmark.groups
    places = {(key, value): group for key in keys for value, group in places_by(results, key).items()}
    found: dict[str, dict[str, Any]] = {key: {} for key, _ in places}
    for key, value in places:
        found[key][value] = {"n": len(places[key, value])}
    for column in filter(results.has, COLUMNS):
        right_ND = results.right(column)
        parts = {f"{key}\0{value}": (mean_right(results, right_ND, group),) for (key, value), group in places.items()}
        known = estimates(parts, results.clusters_n, results.seed) if parts else {}
        for key, value in places:
            accuracy = known[f"{key}\0{value}"]
            found[key][value][column] = {"accuracy": accuracy.value, "interval": accuracy.as_json()["interval"]}
    return found


def _counts(results: ScoredSet) -> dict[str, int | None]:
    lines = results.lines
    failed = sum(bool(line["judge"]["failed"]) for line in lines) if results.has("judge") else None
    return {
        "unparsed": sum(not line["official"]["parsed"] for line in lines),
        "undecided": sum(line["ours"]["right"] is None for line in lines),
        "judge_failed": failed,
    }


def _lengths(tokens: Sequence[int]) -> dict[str, Any]:
    """Mean, quartiles and maximum of the responses' lengths in tokens."""
    quartiles = np.quantile(tokens, [0.25, 0.5, 0.75])
    return {"mean": float(np.mean(tokens)), "quartiles": quartiles.tolist(), "max": int(max(tokens))}


def mean_of(of_benchmarks: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any] | None:
    """The unweighted mean of the first metric of the benchmarks `names`, by column; None where one is missing.

    Its interval takes them as independent: half-widths add up as squares. A column that one lacks is None.
    """
    if not set(names) <= of_benchmarks.keys():
        return None
    chosen = [of_benchmarks[name] for name in names]
    found: dict[str, Any] = {"benchmarks": list(names), "limited": any(one["limited"] for one in chosen)}
    for column in COLUMNS:
        heads = [next(iter(reported(found_in).values())) for one in chosen if (found_in := one["columns"].get(column))]
        found[column] = average(heads).as_json() if len(heads) == len(chosen) else None
    return found


def reported(column: Mapping[str, Any]) -> dict[str, Estimate]:
    """What a column of a benchmark's figures reports: its own metrics by name, first the one that stands for it; of a
    benchmark without any, its accuracy."""
    own = {name: Estimate(one["value"], one["interval"]) for name, one in (column["headline"] or {}).items()}
    return own or {"accuracy": Estimate(column["accuracy"], column["interval"])}


def average(parts: Sequence[Estimate]) -> Estimate:
    """The unweighted mean of figures; its interval takes them as independent: half-widths add up as squares."""
    value = sum(part.value for part in parts) / len(parts)
    if any(part.interval is None for part in parts):
        return Estimate(value, None)
    low, high = (
        sqrt(sum((part.value - part.interval[side]) ** 2 for part in parts if part.interval)) / len(parts)
        for side in (0, 1)
    )
    return Estimate(value, (value - low, value + high))


def compared(before: ScoredSet, after: ScoredSet) -> dict[str, dict[str, Any]]:
    """Column → metric → both figures, after - before with its paired 95 % interval, and the verdict in words.

    Raises:
        ValueError: the two are not of the same questions.
    """
    if [sample.id for sample in before.samples] != [sample.id for sample in after.samples]:
        raise ValueError(f"{before.benchmark.name}: the two results are of different questions; compare equal limits")
    found: dict[str, dict[str, Any]] = {}
    for column in COLUMNS:
        if not (before.has(column) and after.has(column)):
            continue
        parts = [metrics(results, column) for results in (before, after)]
        sides = [estimates(figures_of, before.clusters_n, before.seed) for figures_of in parts]
        changes = differences(parts[0], parts[1], before.clusters_n, before.seed)
        found[column] = {
            name: {"before": sides[0][name].as_json(), "after": sides[1][name].as_json(), "verdict": in_words(change)}
            | {"difference": change.as_json()}
            for name, change in changes.items()
        }
    return found
