"""The bootstrap: intervals by hand, clusters, and that it repeats."""

import numpy as np
import pytest

from avar_rl.runtime.bootstrap import bootstrap, percentiles, replicates


def test_interval_of_a_mean():
    low, high = bootstrap(np.full((5, 1), 3.0))
    assert low[0] == pytest.approx(3.0) and high[0] == pytest.approx(3.0)
    values = np.arange(400)[:, None] % 2.0  # mean 0.5, deviation 0.5: ± 1.96 · 0.5 / 20
    low, high = bootstrap(values)
    assert low[0] == pytest.approx(0.451, abs=0.006) and high[0] == pytest.approx(0.549, abs=0.006)
    assert bootstrap(values)[0][0] == low[0]  # seeded
    assert replicates(values, np.ones((400, 1)), seed=1)[0] != replicates(values, np.ones((400, 1)))[0]


def test_what_shares_a_cluster_is_drawn_together():
    """100 clusters of 4 equal values spread as 100 values do: ± 1.96 · 0.5 / 10."""
    sums = 4.0 * (np.arange(100)[:, None] % 2)
    low, high = percentiles(replicates(sums, np.full((100, 1), 4.0)))
    assert low[0] == pytest.approx(0.402, abs=0.015) and high[0] == pytest.approx(0.598, abs=0.015)


def test_two_clusters_by_hand():
    """Two clusters, 1 of 1 and 0 of 3 right. Drawn twice the first: 1; once each: 1/4; twice the second: 0."""
    found = replicates(np.array([[1.0], [0.0]]), np.array([[1.0], [3.0]]))[:, 0]
    values, counts = np.unique(found, return_counts=True)
    assert values.tolist() == [0.0, 0.25, 1.0]
    assert counts / len(found) == pytest.approx([0.25, 0.5, 0.25], abs=0.04)


def test_a_figure_that_a_resample_leaves_out():
    """A figure of the first of two clusters alone: NaN where that is not drawn, which the interval leaves out."""
    found = replicates(np.array([[1.0], [0.0]]), np.array([[1.0], [0.0]]))
    assert np.isnan(found).any() and np.nanmin(found) == 1.0
    assert percentiles(found)[0][0] == 1.0
