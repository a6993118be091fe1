"""Could the difference between two small samples be chance? Three textbook answers from the standard library.

They are imported by triggers, so they must never need NumPy, and they never decide anything: a guard does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def quantile(sample: Sequence[float], q: float) -> float:
    """Return the *q* quantile (0 to 1) of a sample that is not empty, with linear interpolation (Hyndman-Fan 7)."""
    ordered = sorted(sample)
    position = q * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def fisher_p(hits: int, of: int, other_hits: int, other_of: int) -> float:
    """Return the one-sided p-value of Fisher's exact test that the first rate is not the higher one.

    It is the chance to see at least *hits* among *of* draws when all hits are dealt at random to both sides.
    """
    total, drawn = hits + other_hits, of
    everything = of + other_of
    scale = _log_choose(everything, drawn)
    tail = (
        math.exp(_log_choose(total, k) + _log_choose(everything - total, drawn - k) - scale)
        for k in range(hits, min(total, drawn) + 1)
        if drawn - k <= everything - total
    )
    return min(1.0, math.fsum(tail))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def ks_distance(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the largest gap between two empirical distributions, 0 to 1. Not-a-number counts as above all numbers."""
    a, b = _ordered(first), _ordered(second)
    i = j = 0
    gap = 0.0
    while i < len(a) and j < len(b):
        here = min(a[i], b[j])
        while i < len(a) and a[i] <= here:
            i += 1
        while j < len(b) and b[j] <= here:
            j += 1
        gap = max(gap, abs(i / len(a) - j / len(b)))
    return gap


def _ordered(sample: Sequence[float]) -> list[float]:
    return sorted(math.inf if math.isnan(x) else x for x in sample)


def ks_p(distance: float, first: int, second: int) -> float:
    """Return the p-value of a two-sample Kolmogorov-Smirnov distance between samples of these sizes.

    Asymptotic, with Stephens' correction for small samples (J. R. Statist. Soc. B 32, 1970). Ties make it larger.
    """
    root = math.sqrt(first * second / (first + second))
    x = (root + 0.12 + 0.11 / root) * distance
    if x < 0.2:
        return 1.0
    terms = ((-1) ** (k - 1) * math.exp(-2 * (k * x) ** 2) for k in range(1, 101))
    return min(1.0, max(0.0, 2 * math.fsum(terms)))
