"""Figures as averages of means over units in clusters, their intervals and differences."""

import numpy as np
import pytest

from avar_rl.evaluation.benchmarks.scoring.intervals import (
    Estimate,
    Mean,
    differences,
    estimates,
    in_words,
    numbered,
    value_of,
)


def mean(values, clusters=None) -> Mean:
    return Mean(np.array(values, dtype=float), np.array(range(len(values)) if clusters is None else clusters))


def test_numbered():
    assert numbered([("a", 1), ("b", 1), ("a", 1), ("c", 2)]).tolist() == [0, 1, 0, 2]


def test_a_figure_is_the_average_of_its_means():
    assert value_of((mean([1, 0, 0, 1]), mean([1, 1]), mean([0]))) == pytest.approx((0.5 + 1 + 0) / 3)


def test_interval_of_a_share():
    """300 of 1,000 right: 0.3 ± 1.96 · sqrt(0.3 · 0.7 / 1000) = ± 0.0284."""
    found = estimates({"accuracy": (mean([1] * 300 + [0] * 700),)}, 1000)["accuracy"]
    assert found.value == pytest.approx(0.3)
    assert found.interval == pytest.approx((0.2716, 0.3284), abs=0.004)


def test_no_interval_within_one_cluster():
    assert estimates({"a": (mean([1, 0], [0, 0]),)}, 1)["a"] == Estimate(0.5, None)
    assert estimates({"a": (mean([1, 0, 1, 1]),), "b": (mean([1, 0], [2, 2]),)}, 4)["b"].interval is None


def test_the_average_of_means_of_the_same_questions_is_not_of_independent_ones():
    """Twice the same mean is as wide as once."""
    values = [1, 0, 0, 1, 1, 0, 1, 1, 0, 1] * 10
    found = estimates({"once": (mean(values),), "twice": (mean(values), mean(values))}, 100)
    assert found["once"].interval == pytest.approx(found["twice"].interval)


def test_difference_is_paired():
    """B has 30 more of 1,000 right than A, and none less: 0.03 ± 1.96 · sqrt(0.03 · 0.97 / 1000) = ± 0.0106."""
    before, after = [1] * 500 + [0] * 500, [1] * 530 + [0] * 470
    found = differences({"a": (mean(before),)}, {"a": (mean(after),)}, 1000)["a"]
    assert found.value == pytest.approx(0.03)
    assert found.interval == pytest.approx((0.0194, 0.0406), abs=0.003)
    assert in_words(found) == "higher"
    back = differences({"a": (mean(after),)}, {"a": (mean(before),)}, 1000)["a"]
    assert in_words(back) == "lower" and back.value == pytest.approx(-0.03)


def test_equal_results_do_not_differ():
    values = [1, 0, 1, 1] * 25
    found = differences({"a": (mean(values),)}, {"a": (mean(values),)}, 100)["a"]
    assert found == Estimate(0.0, (0.0, 0.0)) and in_words(found) == "within noise"


@pytest.mark.parametrize(
    ("interval", "words"),
    [((-0.01, 0.05), "within noise"), ((0.0, 0.05), "within noise"), ((0.01, 0.05), "higher"), (None, "within noise")],
)
def test_words(interval, words):
    assert in_words(Estimate(0.02, interval)) == words
