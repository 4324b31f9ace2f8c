"""The bootstrap: how far figures would move, were the questions or samples drawn anew; seeded, so that it repeats.

What belongs together (the questions about one figure) is drawn together, as a cluster. Every figure is a ratio of two
sums over clusters: a mean over samples is the sum of their values over their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Shapes: C clusters, M figures, N samples, R resamples.

RESAMPLES = 2000
_AT_ONCE = 100  # resamples whose weights, one for each cluster, are in memory


def replicates(sums_CM: NDArray[np.floating], counts_CM: NDArray[np.floating], seed: int = 0) -> NDArray[np.float64]:
    """Each figure in each resample of the clusters: sums (C, M), counts (C, M) or (C, 1) → ratios (R, M).

    A resample in which a figure's count is 0 has NaN. The same C and seed draw the same clusters, so that two sets of
    figures of the same clusters can be compared resample by resample.
    """
    import numpy as np

    C, generator = len(sums_CM), np.random.default_rng(seed)
    found = []
    for _ in range(0, RESAMPLES, _AT_ONCE):
        picks_RC = generator.integers(C, size=(_AT_ONCE, C)) + C * np.arange(_AT_ONCE)[:, None]
        weights_RC = np.bincount(picks_RC.ravel(), minlength=_AT_ONCE * C).reshape(_AT_ONCE, C).astype(np.float64)
        with np.errstate(invalid="ignore"):
            found.append((weights_RC @ sums_CM) / (weights_RC @ counts_CM))
    return np.concatenate(found)


def percentiles(replicates_RM: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The 95 % percentile interval of each figure, NaN left out: (R, M) → low (M,), high (M,)."""
    import numpy as np

    low, high = np.nanquantile(replicates_RM, [0.025, 0.975], axis=0)
    return low, high


def bootstrap(values_NM: NDArray[np.floating], seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The 95 % percentile interval of the mean over samples, for each of M figures: (N, M) → low (M,), high (M,).

    N >= 2 samples, without NaN.
    """
    import numpy as np

    return percentiles(replicates(values_NM, np.ones((len(values_NM), 1)), seed))


def seeds_and_questions(
    values: Sequence[NDArray[np.floating]], *, shared: bool, seed: int = 0
) -> tuple[float, float] | None:
    """The 95 % percentile interval of the mean over seeds of the mean over questions, both drawn anew.

    Args:
        values: for each seed the values of its questions, (Q,), without NaN.
        shared: all seeds have the same questions in the same order: they are drawn once for all seeds, as a difficult
            one is so in each. Otherwise questions are drawn within each seed.

    Returns:
        None for one seed with one question. With one seed the interval is that of its questions alone.
    """
    import numpy as np

    S, generator = len(values), np.random.default_rng(seed)
    if S == 1 and len(values[0]) == 1:
        return None
    means_SRS = np.empty((S, RESAMPLES, S))  # a seed's mean in the place that it is drawn for
    picks_RQ = generator.integers(len(values[0]), size=(RESAMPLES, len(values[0])))
    for place, values_Q in enumerate(values):
        if shared:
            means_SRS[place] = values_Q[picks_RQ].mean(1)[:, None]
        else:
            picks_RSQ = generator.integers(len(values_Q), size=(RESAMPLES, S, len(values_Q)))
            means_SRS[place] = values_Q[picks_RSQ].mean(2)
    seeds_RS = generator.integers(S, size=(RESAMPLES, S))
    drawn = means_SRS[seeds_RS, np.arange(RESAMPLES)[:, None], np.arange(S)[None]].mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def t_interval(values_N: NDArray[np.floating]) -> tuple[float, float] | None:
    """Student's 95 % interval of the mean of N independent values; None for fewer than two."""
    import mpmath
    import numpy as np

    N = len(values_N)
    if N < 2:
        return None
    df = N - 1
    # P(|T| > t) is the regularised incomplete beta function of df / (df + t²)
    outside = lambda t: mpmath.betainc(df / 2, 0.5, 0, df / (df + t**2), regularized=True)  # noqa: E731
    quantile = float(mpmath.findroot(lambda t: outside(t) - 0.05, (1.9, 13), solver="anderson"))
    mean, half = float(np.mean(values_N)), quantile * float(np.std(values_N, ddof=1)) / N**0.5
    return mean - half, mean + half


def correlations(
    x_KM: NDArray[np.floating], y_K: NDArray[np.floating], cluster_K: NDArray[np.integer], seed: int = 0
) -> tuple[NDArray[np.float64], tuple[NDArray[np.float64], NDArray[np.float64]] | None]:
    """Pearson's correlation of each of M figures with y over K items, and its 95 % percentile interval.

    Args:
        x_KM, y_K: without NaN.
        cluster_K: the cluster, 0 to C - 1, that an item belongs to; each has one or more. They are drawn, not items.

    Returns:
        The correlations (M,), and low (M,) and high (M,): None for fewer than two clusters. NaN where x or y is
        constant, in the interval where it is so in every resample.
    """
    import numpy as np

    x_KM, y_K1 = _standard(x_KM), _standard(y_K[:, None])
    columns = np.concatenate([x_KM, x_KM**2, x_KM * y_K1, y_K1, y_K1**2], axis=1)
    counts_C = np.bincount(cluster_K).astype(np.float64)
    sums_CF = np.zeros((len(counts_C), columns.shape[1]))
    np.add.at(sums_CF, cluster_K, columns)
    found = _pearson(columns.mean(0)[None])[0]
    if len(counts_C) < 2:
        return found, None
    drawn_RM = _pearson(replicates(sums_CF, counts_C[:, None], seed))
    drawn_RM[:, np.isnan(found)] = np.nan
    interval = np.full((2, len(found)), np.nan)
    there = ~np.isnan(drawn_RM).all(0)
    if there.any():
        interval[:, there] = percentiles(drawn_RM[:, there])
    return found, (interval[0], interval[1])


def ranks(values_K: NDArray[np.floating]) -> NDArray[np.float64]:
    """The rank of each value from 1 up; equal values share the mean of theirs. Correlated, they are Spearman's rho."""
    import numpy as np

    _, place_K, counts = np.unique(values_K, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[place_K]


def _standard(x_KM: NDArray[np.floating]) -> NDArray[np.float64]:
    """Columns of mean 0 and deviation 1; 0 where a column is constant but for rounding."""
    import numpy as np

    spread_M = x_KM.std(0)
    alive_M = spread_M > 1e-12 * np.abs(x_KM).max(0)
    return np.where(alive_M, (x_KM - x_KM.mean(0)) / np.where(alive_M, spread_M, 1.0), 0.0)


def _pearson(means_RF: NDArray[np.floating]) -> NDArray[np.float64]:
    """Means of x, x², xy, y, y², of M figures x and one y, side by side → correlations (R, M)."""
    import numpy as np

    M = (means_RF.shape[1] - 2) // 3
    x, xx, xy, y, yy = np.split(means_RF, [M, 2 * M, 3 * M, 3 * M + 1], axis=1)
    variances = np.maximum(xx - x**2, 0) * np.maximum(yy - y**2, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(variances > 1e-20, (xy - x * y) / np.sqrt(variances), np.nan)
