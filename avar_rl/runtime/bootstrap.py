"""The bootstrap: how far figures would move, were the questions or samples drawn anew; seeded, so that it repeats.

What belongs together (the questions about one figure) is drawn together, as a cluster. Every figure is a ratio of two
sums over clusters: a mean over samples is the sum of their values over their number.
"""

from __future__ import annotations

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
