"""The bootstrap: intervals by hand, clusters, and that it repeats."""

import numpy as np
import pytest

from avar_rl.runtime.bootstrap import bootstrap, correlations, percentiles, ranks, replicates


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


def test_correlations_by_hand():
    """x = 1, 2, 3, 4 with y = 1, 3, 2, 4: covariance 1, both variances 1.25, so 0.8; with -y, -0.8."""
    x = np.array([1.0, 2.0, 3.0, 4.0])
    found, interval = correlations(np.stack([x, -x], axis=1), np.array([1.0, 3.0, 2.0, 4.0]), np.zeros(4, dtype=int))
    assert found == pytest.approx([0.8, -0.8]) and interval is None  # one cluster


def test_correlations_are_numpys_whatever_the_scale():
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(500, 3)), generator.normal(size=500)
    x[:, 1] += y
    found, interval = correlations(1e-6 * x + 1e3, 1e4 * y, np.arange(500) // 5)
    assert found == pytest.approx([np.corrcoef(column, y)[0, 1] for column in x.T], abs=1e-6)
    assert interval is not None and all(interval[0] < found) and all(found < interval[1])
    # 100 clusters of 5 that do not resemble each other are as good as 500 items: 0 +- 1.96 / sqrt(500)
    assert interval[1][0] - interval[0][0] == pytest.approx(2 * 0.0877, rel=0.2)


def test_correlations_draw_clusters():
    """Each item four times, in one cluster: the interval is that of the items, not half as wide."""
    generator = np.random.default_rng(1)
    x, y = generator.normal(size=(60, 1)), generator.normal(size=60)
    _, once = correlations(x, y, np.arange(60))
    _, four = correlations(x.repeat(4, axis=0), y.repeat(4), np.arange(60).repeat(4))
    assert once is not None and four is not None
    assert [*once[0], *once[1]] == pytest.approx([*four[0], *four[1]])


def test_what_never_changes_has_no_correlation():
    y, clusters = np.array([1.0, 2.0, 4.0, 3.0]), np.arange(4)
    found, interval = correlations(np.stack([np.full(4, 0.1), y], axis=1), y, clusters)
    assert np.isnan(found[0]) and found[1] == pytest.approx(1.0)
    assert interval is not None and np.isnan(interval[0][0]) and interval[0][1] == pytest.approx(1.0)
    found, _ = correlations(y[:, None], np.full(4, 0.1), clusters)
    assert np.isnan(found[0])


def test_ranks_share_what_is_equal():
    assert ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [3.5, 1.0, 3.5, 2.0]
