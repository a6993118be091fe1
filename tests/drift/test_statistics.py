"""Every statistic against scipy or its definition, on raw values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from scipy.spatial import distance

from airflow_mlops.drift import grid, significance, statistics

counts = st.integers(2, 12).flatmap(lambda k: st.tuples(*[arrays(np.int64, k, elements=st.integers(1, 900))] * 2))
RNG = np.random.default_rng(11)
PAIRS = {
    "same": (RNG.normal(size=20_000), RNG.normal(size=30_000)),
    "shifted": (RNG.normal(size=20_000), RNG.normal(0.2, 1.3, size=20_000)),
    "outliers": (RNG.normal(size=20_000), np.append(RNG.normal(size=20_000), [1e6] * 40)),
    "skewed": (RNG.lognormal(0, 2, 20_000), RNG.lognormal(0.1, 2, 25_000)),
    "apart": (RNG.random(5_000), 5 + RNG.random(5_000)),
    "rounded": (np.round(RNG.normal(size=9_000), 1), np.round(RNG.normal(0.1, 1, size=9_000), 1)),
    "far": (2013 + RNG.random(20_000) / 1e4, 2013.00001 + RNG.random(20_000) / 1e4),
}


def aligned(a: np.ndarray, b: np.ndarray) -> tuple[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return level, lower and upper bounds and both counts of two samples."""
    level, ids, x, y = grid.align(grid.count(a), grid.count(b))
    return level, *grid.bounds(ids, level), x, y


@pytest.mark.parametrize("pair", PAIRS)
def test_binned_ks_holds_the_exact_one_in_its_interval(pair: str) -> None:
    """The exact Kolmogorov-Smirnov distance is within ``[value, value + error]``, and the error is small."""
    a, b = PAIRS[pair]
    level, _, _, x, y = aligned(a, b)
    found = statistics.kolmogorov_smirnov(x, y, exact=level == grid.EXACT)
    exact = stats.ks_2samp(a, b).statistic
    assert found.value <= exact + 1e-12
    assert exact <= found.value + found.error + 1e-12
    assert found.error < 0.005
    assert exact - found.value < 5e-4


@pytest.mark.parametrize("pair", PAIRS)
def test_wasserstein_is_that_of_scipy_within_its_error(pair: str) -> None:
    """The normalised distance is scipy's over the reference's standard deviation, also with far outliers."""
    a, b = PAIRS[pair]
    _, low, high, x, y = aligned(a, b)
    found = statistics.wasserstein(low, high, x, y)
    exact = stats.wasserstein_distance(a, b) / a.std()
    assert abs(found.value - exact) <= found.error + 1e-4
    assert found.error < 0.01 * max(1, exact)


def test_wasserstein_does_not_overflow() -> None:
    """Values near the largest double give a finite distance."""
    _, low, high, x, y = aligned(np.array([-1.7e308, 1.7e308]), np.array([1.7e308, 1.7e308]))
    assert statistics.wasserstein(low, high, x, y).value == pytest.approx(1.0)


def test_wasserstein_of_a_constant_has_no_unit() -> None:
    """A reference without spread has no standard deviation to measure in: the answer is NaN and not infinity."""
    _, low, high, x, y = aligned(np.full(9, 3.0), np.array([3.0, 4.0]))
    assert math.isnan(statistics.wasserstein(low, high, x, y).value)


@given(counts)
def test_jensen_shannon_is_that_of_scipy(pair: tuple[np.ndarray, np.ndarray]) -> None:
    """The distance to base 2 agrees with scipy."""
    a, b = pair
    assert statistics.jensen_shannon(a, b) == pytest.approx(distance.jensenshannon(a, b, base=2), abs=1e-7)


@given(counts)
def test_chi_square_is_that_of_scipy(pair: tuple[np.ndarray, np.ndarray]) -> None:
    """Statistic, degrees of freedom and p-value agree with scipy's test of a contingency table."""
    a, b = pair
    expected = stats.chi2_contingency(np.array([a, b]), correction=False)
    statistic, freedom = statistics.chi_square(a, b)
    assert (statistic, freedom) == (pytest.approx(expected.statistic, rel=1e-6, abs=1e-6), expected.dof)
    assert significance.chi_square(statistic, freedom) == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-9)


@given(counts)
def test_population_stability_is_its_definition(pair: tuple[np.ndarray, np.ndarray]) -> None:
    """Without empty bins the index is the textbook sum, and symmetric."""
    a, b = pair
    p, q = a / a.sum(), b / b.sum()
    assert statistics.population_stability(a, b) == pytest.approx(((q - p) * np.log(q / p)).sum())
    assert statistics.population_stability(a, b) == pytest.approx(statistics.population_stability(b, a))


def test_population_stability_of_empty_bins_is_finite() -> None:
    """A bin that one side lacks counts as half a row; one that both lack does not count."""
    found = statistics.population_stability(np.array([50, 50, 0, 0]), np.array([50, 0, 50, 0]))
    assert found == pytest.approx(2 * (0.5 - 0.005) * math.log(0.5 / 0.005))


def test_noise_without_drift_is_what_we_subtract() -> None:
    """Over many pairs without drift the mean index and the mean total variation are the noise terms, within 5 %."""
    rng, p = np.random.default_rng(5), np.full(10, 0.1)
    pairs = [(rng.multinomial(4000, p), rng.multinomial(2500, p)) for _ in range(1500)]
    index = np.mean([statistics.population_stability(a, b) for a, b in pairs])
    assert index == pytest.approx(statistics.population_stability_noise(10, 4000, 2500), rel=0.05)
    moved = np.mean([statistics.total_variation(a, b) for a, b in pairs])
    assert moved == pytest.approx(np.mean([statistics.total_variation_noise(a, b) for a, b in pairs]), rel=0.05)


@settings(max_examples=50)
@given(arrays(np.int64, st.integers(2, 60), elements=st.integers(0, 50)).filter(lambda a: np.count_nonzero(a) > 1))
def test_quantile_bins_are_rising_and_hold_reference(reference: np.ndarray) -> None:
    """Bins are numbered without gaps, rise with the cells, and none of them is empty in the reference."""
    bins = statistics.quantile_bins(reference)
    assert np.all(np.diff(bins) >= 0)
    assert set(bins.tolist()) == set(range(bins.max() + 1))
    assert bins.max() < statistics.BINS
    assert statistics.grouped(reference, bins).min() > 0


def test_quantile_bins_of_many_cells_are_even() -> None:
    """Where values hardly repeat, each bin holds about a tenth of the reference."""
    cells = grid.count(np.random.default_rng(0).normal(size=50_000))
    found = statistics.grouped(cells.counts, statistics.quantile_bins(cells.counts))
    assert found.size == 10
    assert np.all(np.abs(found / 5000 - 1) < 0.05)


def test_a_constant_reference_has_a_below_and_an_above() -> None:
    """A reference of one value gets three bins, so that any move shows in the index."""
    assert statistics.quantile_bins(np.array([0, 0, 7, 0])).tolist() == [0, 0, 1, 2]


def test_cramers_v_is_one_for_a_clean_split_and_zero_for_none() -> None:
    """Cramer's V runs from 0 (same shares) to about 1 (no category in common)."""
    for a, b, expected in (([500, 500, 0], [0, 0, 1000], 1.0), ([500, 300, 200], [500, 300, 200], 0.0)):
        x, y = np.array(a), np.array(b)
        assert statistics.cramers_v(*statistics.chi_square(x, y), 2000) == pytest.approx(expected, abs=0.01)


@given(counts)
def test_grouping_the_tail_keeps_all_rows(pair: tuple[np.ndarray, np.ndarray]) -> None:
    """Rare cells are joined, no row is lost, and what is left expects five rows a cell (or is one cell)."""
    a, b = pair
    x, y = statistics.tail_grouped(a, b)
    assert (x.sum(), y.sum()) == (a.sum(), b.sum())
    expected = (x + y) * min(a.sum(), b.sum()) / (a.sum() + b.sum())
    assert x.size == 1 or expected.min() >= 5


@pytest.mark.parametrize(("n", "m"), [(200, 200), (1000, 300), (50_000, 2000)])
@pytest.mark.parametrize("d", [0.01, 0.03, 0.05, 0.1, 0.2])
def test_ks_significance_is_close_to_the_exact_test(d: float, n: int, m: int) -> None:
    """The p-value agrees with scipy's exact test where that is 0.0001 or more."""
    root = math.sqrt(n * m / (n + m))
    expected = stats.kstwo.sf(d, round(root**2))
    assert significance.kolmogorov(d, n, m) == pytest.approx(expected, rel=0.12, abs=1e-4)


@given(st.integers(1, 3000), st.floats(0, 6000))
@example(2, 5e-324)
def test_gamma_tail_is_that_of_scipy(freedom: int, statistic: float) -> None:
    """The chi-square tail agrees with scipy over all sizes we meet."""
    assert significance.chi_square(statistic, freedom) == pytest.approx(
        stats.chi2.sf(statistic, freedom), rel=1e-6, abs=1e-12
    )


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_correction_is_that_of_scipy(p_values: list[float]) -> None:
    """Benjamini-Hochberg agrees with scipy's."""
    expected = stats.false_discovery_control(p_values, method="bh")
    assert significance.adjusted(p_values) == pytest.approx(expected.tolist())


def test_two_shares_against_fishers_exact_test() -> None:
    """The z test of two shares is near Fisher's exact p-value, and certain of what is certain."""
    for hits, n, other, m in ((30, 1000, 55, 1000), (0, 400, 9, 400), (12, 5000, 9, 250)):
        expected = stats.fisher_exact([[hits, n - hits], [other, m - other]]).pvalue
        assert significance.two_shares(hits, n, other, m) == pytest.approx(expected, rel=1.0, abs=1e-3)
    assert significance.two_shares(0, 10, 0, 10) == 1.0
    assert significance.two_shares(5, 5, 9, 9) == 1.0


def test_values_beyond_all_others_are_rare_without_drift() -> None:
    """Among samples without drift the test of outermost values alarms at most as often as it says."""
    rng = np.random.default_rng(3)
    p_values = []
    for _ in range(2000):
        a, b = rng.normal(size=60), rng.normal(size=40)
        beyond = max(int((b > a.max()).sum()), int((b < a.min()).sum()))
        p_values.append(significance.beyond(beyond, 60, 40))
    assert np.mean(np.array(p_values) <= 0.05) <= 0.05
    assert significance.beyond(20, 1000, 1000) < 1e-5
