"""Paired tests of two models on the same rows. Pure and seeded: the same scores always give the same bounds.

Each metric has the test that fits it: DeLong's exact covariance for the area under the ROC curve, Tango's score
interval for accuracy (it excludes 0 exactly when McNemar's test rejects), and a paired bootstrap for mean losses.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np  # noqa: TID253 - a leaf that computes; operators import it when they run
from numpy.typing import NDArray  # noqa: TID253

from airflow_mlops.evaluation.policy import Estimate

Floats = NDArray[np.float64]

GROUPS = 4000
"""Rows are pooled at random into at most this many groups, and groups are resampled: a million rows cost no more."""
SEED = 20_240_229
_CHUNK = 250
_Z95 = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Comparison:
    """Two models on the same rows; ``gain_low`` is the lower end of a one-sided interval of the gain."""

    challenger: Estimate
    champion: Estimate
    gain: float
    gain_low: float


# The area under the ROC curve


def placements(labels: Floats, scores: Floats) -> tuple[Floats, Floats]:
    """Return, for each positive, the share of negatives below it, and for each negative the share of positives above.

    Ties count half. The mean of either is the area under the curve. By midranks in O(n log n), after Sun and Xu (2014),
    https://doi.org/10.1109/LSP.2014.2337313
    """
    positive = labels == 1
    high, low = scores[positive], scores[~positive]
    ranks = _midranks(scores)
    above = (ranks[positive] - _midranks(high)) / len(low)
    below = 1 - (ranks[~positive] - _midranks(low)) / len(high)
    return above, below


def _midranks(values: Floats) -> Floats:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle: Floats = np.cumsum(counts) - (counts - 1) / 2
    return middle[place.ravel()]


def compare_auc(labels: Floats, challenger: Floats, champion: Floats, alpha: float) -> Comparison:
    """Compare areas under the ROC curve by DeLong, DeLong and Clarke-Pearson (1988), https://doi.org/10.2307/2531595."""
    new, old = placements(labels, challenger), placements(labels, champion)
    gain = float(new[0].mean() - old[0].mean())
    error = _standard_error(new[0] - old[0], new[1] - old[1])
    return Comparison(estimate_auc(*new), estimate_auc(*old), gain, gain - _quantile(alpha) * error)


def estimate_auc(above: Floats, below: Floats) -> Estimate:
    """Return the area under the curve with its interval, from the placements."""
    value, half = float(above.mean()), _Z95 * _standard_error(above, below)
    return Estimate(value, max(0.0, value - half), min(1.0, value + half))


def _standard_error(above: Floats, below: Floats) -> float:
    return math.sqrt(_variance(above) / len(above) + _variance(below) / len(below))


def _variance(values: Floats) -> float:
    return float(values.var(ddof=1)) if len(values) > 1 else math.inf


# Accuracy


def compare_accuracy(right: Floats, right_before: Floats, alpha: float) -> Comparison:
    """Compare shares of right answers (rows of 0 and 1) of the challenger and of the champion."""
    rows = len(right)
    won, lost = int(((right == 1) & (right_before == 0)).sum()), int(((right == 0) & (right_before == 1)).sum())
    low = tango_lower(won, lost, rows, _quantile(alpha))
    return Comparison(estimate_share(right), estimate_share(right_before), (won - lost) / rows, low)


def tango_lower(won: int, lost: int, rows: int, z: float) -> float:
    """Return the lower end of the score interval of a paired difference of shares.

    :param won: rows that only the challenger got right
    :param lost: rows that only the champion got right
    :param z: normal quantile of the level, for example 1.645 for one-sided 95 %

    Tango (1998), https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8%3C891::AID-SIM780%3E3.0.CO;2-B
    """
    low, high = -1.0, (won - lost) / rows
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if _tango_z(won, lost, rows, middle) < z else (middle, high)
    return low


def _tango_z(won: int, lost: int, rows: int, difference: float) -> float:
    b = -won - lost + (2 * rows - won + lost) * difference
    c = -lost * difference * (1 - difference)
    share = (math.sqrt(max(0.0, b * b - 8 * rows * c)) - b) / (4 * rows)
    spread = rows * (2 * share + difference * (1 - difference))
    distance = won - lost - rows * difference
    return distance / math.sqrt(spread) if spread > 0 else math.copysign(math.inf, distance)


def estimate_share(right: Floats) -> Estimate:
    """Return a share of ones with Wilson's interval, https://doi.org/10.1080/01621459.1927.10502953."""
    rows, share, z2 = len(right), float(right.mean()), _Z95**2
    centre = (share + z2 / (2 * rows)) / (1 + z2 / rows)
    half = _Z95 * math.sqrt(share * (1 - share) / rows + z2 / (4 * rows * rows)) / (1 + z2 / rows)
    return Estimate(share, centre - half, centre + half)


# Mean losses


def compare_losses(
    challenger: Floats, champion: Floats, alpha: float, *, resamples: int, of_mean: Callable[[Floats], Floats]
) -> Comparison:
    """Compare mean losses per row by a paired bootstrap; *of_mean* turns means into the metric, for example a root.

    The bound is the lower of the percentile and the normal bound: percentiles alone cannot resolve the small alphas of
    late attempts. Efron and Tibshirani (1993), chapters 12 and 13.
    """
    replicas = of_mean(resampled_means(np.stack([challenger, champion], axis=1), resamples))
    new, old = (float(of_mean(losses.mean(keepdims=True))[0]) for losses in (challenger, champion))
    gains = replicas[:, 1] - replicas[:, 0]
    normal = old - new - _quantile(alpha) * float(gains.std(ddof=1))
    low = min(normal, float(np.quantile(gains, alpha)))
    return Comparison(_percentiles(new, replicas[:, 0]), _percentiles(old, replicas[:, 1]), old - new, low)


def estimate_loss(losses: Floats, *, resamples: int, of_mean: Callable[[Floats], Floats]) -> Estimate:
    """Return one model's loss with its percentile interval."""
    replicas = of_mean(resampled_means(losses[:, None], resamples))
    return _percentiles(float(of_mean(losses.mean(keepdims=True))[0]), replicas[:, 0])


def resampled_means(columns: Floats, resamples: int) -> Floats:
    """Return the column means of *resamples* bootstrap samples of the rows, shape (resamples, columns)."""
    rng = np.random.default_rng(SEED)
    rows, groups = len(columns), min(len(columns), GROUPS)
    order = rng.permutation(rows)
    starts = np.linspace(0, rows, groups, endpoint=False).astype(np.int64)
    sums = np.add.reduceat(columns[order], starts, axis=0)
    sizes = np.diff(np.append(starts, rows)).astype(np.float64)
    found = np.empty((resamples, columns.shape[1]))
    for start in range(0, resamples, _CHUNK):
        drawn = rng.integers(0, groups, size=(min(_CHUNK, resamples - start), groups))
        counts = np.stack([np.bincount(row, minlength=groups) for row in drawn]).astype(np.float64)
        found[start : start + len(drawn)] = (counts @ sums) / (counts @ sizes)[:, None]
    return found


def _percentiles(value: float, replicas: Floats) -> Estimate:
    low, high = np.quantile(replicas, [0.025, 0.975])
    return Estimate(value, float(low), float(high))


def _quantile(alpha: float) -> float:
    return NormalDist().inv_cdf(1 - alpha)
