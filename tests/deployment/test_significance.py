"""The p-values are those of the textbook."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_mlops.deployment.significance import fisher_p, ks_distance, ks_p, quantile

samples = st.lists(st.floats(-5, 5).map(lambda x: round(x, 1)), min_size=1, max_size=60)


@given(st.integers(1, 300), st.integers(1, 300), st.data())
@settings(max_examples=60, deadline=None)
def test_fisher_agrees_with_scipy(of: int, other_of: int, data: st.DataObject) -> None:
    """The exact test gives the one-sided p-value that SciPy gives."""
    from scipy.stats import fisher_exact

    hits, other = data.draw(st.integers(0, of)), data.draw(st.integers(0, other_of))
    expected = fisher_exact([[hits, of - hits], [other, other_of - other]], alternative="greater").pvalue
    assert fisher_p(hits, of, other, other_of) == pytest.approx(expected, abs=1e-9)


@given(samples, samples)
@settings(max_examples=60, deadline=None)
def test_distance_agrees_with_scipy(first: list[float], second: list[float]) -> None:
    """The distance is SciPy's, ties included."""
    from scipy.stats import ks_2samp

    assert ks_distance(first, second) == pytest.approx(ks_2samp(first, second, method="asymp").statistic, abs=1e-9)


@pytest.mark.parametrize(("distance", "n", "m"), [(0.1, 1000, 400), (0.3, 80, 60), (0.5, 50, 50), (0.05, 300, 900)])
def test_ks_p_is_near_the_exact_one(distance: float, n: int, m: int) -> None:
    """The corrected asymptotic p-value stays within a factor of two of the exact distribution."""
    from scipy.stats import kstwo

    exact = kstwo.sf(distance, round(n * m / (n + m)))
    assert exact / 2 < ks_p(distance, n, m) < exact * 2


def test_a_model_that_predicts_nothing_is_as_far_away_as_possible() -> None:
    """Not-a-number is a prediction of its own, and ends the comparison as any other does."""
    assert ks_distance([math.nan] * 5, [0.1, 0.9]) == 1.0


@given(samples, st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_quantile_agrees_with_numpy(sample: list[float], q: float) -> None:
    """The quantile is NumPy's default one."""
    import numpy as np

    assert quantile(sample, q) == pytest.approx(float(np.quantile(sample, q)), abs=1e-9)
