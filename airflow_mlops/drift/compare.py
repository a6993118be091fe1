"""Two profile columns in, all statistics of the pair out. It computes and never judges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np  # noqa: TID253 - a leaf that computes; operators import it when they run

from airflow_mlops.drift import grid, keys, significance, statistics
from airflow_mlops.drift.columns import Column, Kind
from airflow_mlops.drift.grid import EXACT, Ints

DISTRIBUTION, MISSING, NEW = "distribution", "missing", "new_categories"
"""The three questions asked of a column; each has one p-value."""

SHOWN = 20
"""Names of categories a comparison keeps."""


@dataclass(frozen=True)
class Comparison:
    """What differs between two columns.

    :param values: statistic -> effect; one that cannot be computed is absent
    :param p_values: question -> p-value
    :param new: categories the reference does not know, the most frequent first
    :param vanished: categories that should have occurred at least five times and did not
    """

    values: Mapping[str, float]
    p_values: Mapping[str, float]
    new: tuple[str, ...] = ()
    vanished: tuple[str, ...] = ()


def compare(reference: Column, current: Column, *, least: int = 1) -> Comparison:
    """Return the statistics of two columns of the same kind.

    :param least: usable values both sides need before their distributions are compared
    """
    found = _missing(reference, current)
    if min(reference.present, current.present) < max(1, least):
        return found
    a, b = reference, current
    if Kind.NUMERIC in (a.kind, b.kind):
        a, b = a.as_numbers(), b.as_numbers()
    if a.kind in (Kind.NUMERIC, Kind.TIME):
        return _joined(found, _numbers(a, b))
    if a.kind in (Kind.CATEGORICAL, Kind.BOOLEAN):
        return _joined(found, _shares(a, b), _unseen(a, b))
    return found


def _missing(a: Column, b: Column) -> Comparison:
    if not (a.rows and b.rows):
        return Comparison({}, {})
    change = b.missing / b.rows - a.missing / a.rows
    return Comparison({"missing": change}, {MISSING: significance.two_shares(a.missing, a.rows, b.missing, b.rows)})


def _numbers(reference: Column, current: Column) -> Comparison:
    level, ids, a, b = grid.align(reference.cells, current.cells)
    low, high = grid.bounds(ids, level)
    ks = statistics.kolmogorov_smirnov(a, b, exact=level == EXACT)
    moved = statistics.wasserstein(low, high, a, b)
    n, m = int(a.sum()), int(b.sum())
    above, below = _outside(a, b)
    values = {"ks": ks.value, "ks_error": ks.error, "out_of_range": (above + below) / m} | _binned(a, b)
    if not np.isnan(moved.value):
        values |= {"wasserstein": moved.value, "wasserstein_error": moved.error}
    p = 2 * min(significance.kolmogorov(ks.value, n, m), significance.beyond(max(above, below), n, m))
    return Comparison(values, {DISTRIBUTION: min(1.0, p)})


def _outside(a: Ints, b: Ints) -> tuple[int, int]:
    """Return how many values of *b* lie in cells above and below all of *a*."""
    occupied = np.flatnonzero(a)
    return int(b[occupied[-1] + 1 :].sum()), int(b[: occupied[0]].sum())


def _binned(a: Ints, b: Ints) -> dict[str, float]:
    """Return the statistics over bins of the reference's quantiles."""
    bins = statistics.quantile_bins(a)
    return _stability(statistics.grouped(a, bins), statistics.grouped(b, bins))


def _stability(a: Ints, b: Ints) -> dict[str, float]:
    raw = statistics.population_stability(a, b)
    noise = statistics.population_stability_noise(a.size, int(a.sum()), int(b.sum()))
    return {"psi": raw, "psi_corrected": max(0.0, raw - noise), "jensen_shannon": statistics.jensen_shannon(a, b)}


def _shares(reference: Column, current: Column) -> Comparison:
    a, b = _table(reference, current)
    raw = statistics.total_variation(a, b)
    grouped = statistics.tail_grouped(a, b)
    square, freedom = statistics.chi_square(*grouped)
    values = {
        "total_variation": raw,
        "total_variation_corrected": max(0.0, raw - statistics.total_variation_noise(a, b)),
        "chi_square": square,
        "cramers_v": statistics.cramers_v(square, freedom, int(a.sum() + b.sum())),
    } | _stability(*grouped)
    return Comparison(values, {DISTRIBUTION: significance.chi_square(square, freedom)})


def _table(a: Column, b: Column) -> tuple[Ints, Ints]:
    """Return aligned counts: a category each, or a hash bucket each where a side has too many to keep."""
    if a.keys.level or b.keys.level:
        table = np.array([keys.bucket_counts(a.keys), keys.bucket_counts(b.keys)])
        table = table[:, table.sum(axis=0) > 0]
        return table[0], table[1]
    names = sorted({*a.keys.counts, *b.keys.counts})
    counts = [np.array([side.keys.counts.get(name, 0) for name in names], np.int64) for side in (a, b)]
    return counts[0], counts[1]


def _unseen(reference: Column, current: Column) -> Comparison:
    """Compare the rows of unknown categories with what the reference's singletons predict.

    Good and Turing: the share of rows with a category not seen in n rows is about (categories seen once) / n
    (https://doi.org/10.1093/biomet/40.3-4.237). Where keys are sampled, both are taken within the sample.
    """
    level = max(reference.keys.level, current.keys.level)
    a, b = keys.coarsen(reference.keys, level), keys.coarsen(current.keys, level)
    n, m = sum(a.values()), sum(b.values())
    if not (n and m):
        return Comparison({}, {})
    new = {key: rows for key, rows in b.items() if key not in a}
    singletons, rows = sum(1 for count in a.values() if count == 1), sum(new.values())
    excess = rows / m - singletons / n
    p = significance.two_shares(rows, m, singletons, n) if excess > 0 else 1.0
    gone = {key: count for key, count in a.items() if key not in b and count * m / n >= 5}
    values = {"new_categories": rows / m, "new_categories_corrected": max(0.0, excess)}
    values["vanished_categories"] = sum(gone.values()) / n
    return Comparison(values, {NEW: p}, _most(new), _most(gone))


def _most(counts: Mapping[str, int]) -> tuple[str, ...]:
    return tuple(sorted(counts, key=lambda key: (-counts[key], key))[:SHOWN])


def _joined(*parts: Comparison) -> Comparison:
    values = {name: value for part in parts for name, value in part.values.items()}
    p_values = {name: value for part in parts for name, value in part.p_values.items()}
    return Comparison(values, p_values, parts[-1].new, parts[-1].vanished)
