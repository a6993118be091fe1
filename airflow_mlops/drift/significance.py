"""How sure a difference is: p-values of two samples, and what many tests at once do to them. Pure, without scipy.

Both sides are samples in every test. A p-value alone never decides: at a million rows everything is significant.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def kolmogorov(distance: float, n: int, m: int) -> float:
    """Return the p-value of a two-sample Kolmogorov-Smirnov distance.

    The limit distribution with Stephens' correction for small samples (https://doi.org/10.1111/j.2517-6161.1970.tb00821.x).
    Too careful where values repeat.
    """
    root = math.sqrt(n * m / (n + m))
    x = (root + 0.12 + 0.11 / root) * distance
    if x < 0.3:
        return 1.0
    series = math.fsum((1 if k % 2 else -1) * math.exp(-2 * k * k * x * x) for k in range(1, 60))
    return min(1.0, max(0.0, 2 * series))


def chi_square(statistic: float, freedom: int) -> float:
    """Return the upper tail of the chi-square distribution: the regularised gamma Q(freedom/2, statistic/2)."""
    a, x = freedom / 2, statistic / 2
    if freedom < 1 or x <= 0:
        return 1.0
    front = math.exp(max(-745.0, a * math.log(x) - x - math.lgamma(a)))
    return min(1.0, max(0.0, 1 - front * _series(a, x) if x < a + 1 else front * _fraction(a, x)))


def two_shares(hits: float, n: float, other_hits: float, m: float) -> float:
    """Return the two-sided p-value of a difference of two shares: the pooled z test with continuity correction."""
    pooled = (hits + other_hits) / (n + m)
    spread = math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m)) if 0 < pooled < 1 else 0.0
    distance = abs(hits / n - other_hits / m) - (1 / n + 1 / m) / 2
    return math.erfc(distance / spread / math.sqrt(2)) if spread and distance > 0 else 1.0


def beyond(count: int, n: int, m: int) -> float:
    """Return the p-value of *count* of m values lying above (or below) all n values of the other sample.

    Without drift every order of the n + m values is equally likely, so the outermost *count* values all come from the
    m with at most ``(m / (n + m)) ** count``. Two-sided; no distribution is assumed (S. Rosenbaum, Tables for a
    nonparametric test of location, 1954). It sees a few far outliers that a Kolmogorov-Smirnov test cannot.
    """
    return min(1.0, 2 * math.exp(count * math.log(m / (n + m)))) if count else 1.0


def adjusted(p_values: Sequence[float]) -> list[float]:
    """Return Benjamini-Hochberg adjusted p-values: those at most q are found with a false share of at most q.

    https://doi.org/10.1111/j.2517-6161.1995.tb02031.x
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i], reverse=True)
    out, least = [0.0] * len(p_values), 1.0
    for rank, i in zip(range(len(p_values), 0, -1), order, strict=True):
        least = min(least, p_values[i] * len(p_values) / rank)
        out[i] = least
    return out


def _series(a: float, x: float) -> float:
    """Sum x^k / (a (a+1) ... (a+k)), which gives the lower gamma function."""
    term = total = 1 / a
    k = a
    while abs(term) > abs(total) * 1e-16:
        k += 1
        term *= x / k
        total += term
    return total


def _fraction(a: float, x: float) -> float:
    """Evaluate the continued fraction of the upper gamma function by Lentz's method (https://dlmf.nist.gov/8.9)."""
    tiny = 1e-300
    b = x + 1 - a
    c, d = 1 / tiny, 1 / b
    value = d
    for k in range(1, 10_000):
        an = -k * (k - a)
        b += 2
        d = 1 / ((an * d + b) or tiny)
        c = (b + an / c) or tiny
        value *= d * c
        if abs(d * c - 1) < 1e-15:
            break
    return value
