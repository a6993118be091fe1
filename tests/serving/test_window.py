"""Figures of a window are those of its answers, and the memory is bounded."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.serving.window import Answer, Recent, even_sample, figures, quantile


def test_a_window_holds_the_requests_that_arrived_in_it() -> None:
    """Both ends belong to the window; other requests do not count."""
    recent = Recent(Answer(float(second), "v1", 200, 1.0, (0.5,)) for second in range(10))
    assert [answer.time for answer in recent.between(3, 5)] == [3, 4, 5]


def test_errors_are_500_and_above_and_latency_is_that_of_good_answers() -> None:
    """A refused input is a request but no error, and a quick failure does not make a revision look fast."""
    found = figures(
        [Answer(1, "v1", status, ms) for status, ms in ((200, 10), (400, 0), (500, 0), (503, 0), (200, 20))]
    )
    assert (found["v1"]["requests"], found["v1"]["errors"]) == (5, 2)
    assert (found["v1"]["latency_p50_ms"], found["v1"]["predictions"]) == (15, [])


def test_revisions_are_apart() -> None:
    """Each revision has its own figures; one that answered nothing is not there."""
    found = figures([Answer(1, "v2", 200, 1, (0.1, 0.2)), Answer(2, "v1", 503, 1)])
    assert list(found) == ["v1", "v2"]
    assert found["v2"]["predictions"] == [0.1, 0.2]
    assert found["v1"]["latency_p99_ms"] is None


def test_old_answers_are_forgotten() -> None:
    """After two hours an answer is gone."""
    recent = Recent([Answer(0, "v1", 200, 1)])
    recent.add(Answer(7201, "v1", 200, 1))
    assert [answer.time for answer in recent.between(0, 1e9)] == [7201]


@given(st.lists(st.floats(0, 1e6), min_size=2), st.integers(1, 99))
def test_quantiles_are_those_of_the_standard_library(values: list[float], percent: int) -> None:
    """The definition is ``statistics.quantiles(method="inclusive")``."""
    expected = statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
    assert quantile(sorted(values), percent / 100) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(st.lists(st.integers()), st.integers(1, 20))
def test_a_sample_is_small_even_and_in_order(values: list[int], size: int) -> None:
    """It has as many values as asked for, or all, each from its own part of the row."""
    indexes = [int(index) for index in even_sample(range(len(values)), size)]
    assert len(indexes) == min(size, len(values))
    assert indexes == sorted(set(indexes))
