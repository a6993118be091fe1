"""What each guard says about a window, and how guards of one's own are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_mlops.core.decisions import Verdict
from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.deployment.contract import WindowMetrics
from airflow_mlops.deployment.guards import Limits, Window, error_rate, judge, latency, load_guard, prediction_shift

SPREAD = tuple(i / 300 for i in range(300))


def seen(name: str, **fields: object) -> WindowMetrics:
    """Give what a revision did in a window."""
    usual = {"requests": 300, "errors": 0, "predictions": SPREAD, "latencies_ms": SPREAD}
    return WindowMetrics(**{"revision": name, **usual, **fields})


def window(**fields: object) -> Window:
    """Give a window in which the canary differs from its baseline in *fields*."""
    return Window(seen("v2", **fields), seen("v1"))


def test_a_difference_that_is_no_chance_but_within_the_limit_passes() -> None:
    """Significance alone fails nobody: the limit says what matters."""
    found = error_rate(window(errors=30), limit=0.2, needed=50, alpha=0.05)
    assert (found.verdict, found.observed) == (Verdict.PASS, 0.1)


def test_a_difference_beyond_the_limit_that_may_be_chance_passes() -> None:
    """Effect alone fails nobody either."""
    small = Window(seen("v2", requests=50, errors=2), seen("v1", requests=50, errors=0))
    assert error_rate(small, limit=0.02, needed=50, alpha=0.05).verdict is Verdict.PASS


def test_fewer_errors_than_the_baseline_are_never_a_reason() -> None:
    """The test is one-sided."""
    better = Window(seen("v2"), seen("v1", errors=200))
    assert error_rate(better, limit=0.0, needed=50, alpha=0.5).verdict is Verdict.PASS


def test_a_slow_tail_fails_and_one_slow_first_request_does_not() -> None:
    """A fifth of slow answers is a tail; the first request of a cold process is not."""
    fast = (1.0,) * 300
    usual = seen("v1", latencies_ms=fast)
    tail = Window(seen("v2", latencies_ms=fast[:240] + (50.0,) * 60), usual)
    cold = Window(seen("v2", latencies_ms=(900.0, *fast[:59])), usual)
    assert latency(tail, limit=1.5, needed=50, alpha=0.001).verdict is Verdict.FAIL
    assert latency(cold, limit=1.5, needed=50, alpha=0.001).verdict is Verdict.PASS


def test_inverted_predictions_fail() -> None:
    """A model that says the opposite is found by the distribution of what it says, without any label."""
    skewed = tuple(x**3 for x in SPREAD)
    inverted = Window(seen("v2", predictions=tuple(1 - x for x in skewed)), seen("v1", predictions=skewed))
    found = prediction_shift(inverted, limit=0.2, needed=50, alpha=0.001)
    assert found.verdict is Verdict.FAIL
    assert found.observed > 0.5


@pytest.mark.parametrize("field", ["requests", "latencies_ms", "predictions"])
def test_too_few_values_of_one_metric_leave_it_open(field: str) -> None:
    """Each metric needs its own fifty values; what is missing is said with both counts."""
    thin = window(**{field: 49 if field == "requests" else SPREAD[:49]})
    opened = [r for r in judge(thin, Limits(), 0.01) if r.verdict is Verdict.INCONCLUSIVE]
    assert len(opened) == 1
    assert "49 of the canary and 300 of the baseline, 50 are needed" in opened[0].message


def test_a_limit_of_none_turns_its_guard_off() -> None:
    """A model without numeric predictions can be rolled out by its errors alone."""
    reasons = judge(window(predictions=()), Limits(max_latency_ratio=None, max_prediction_shift=None), 0.01)
    assert [reason.rule for reason in reasons] == ["error_rate"]


def test_a_guard_of_ones_own_is_named_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that gets the window and returns a reason is all it takes."""
    (tmp_path / "bookings.py").write_text(
        "from airflow_mlops.core.decisions import Reason, Verdict\n"
        "def enough(window):\n"
        "    return Reason('bookings', Verdict.PASS, window.canary.requests, 1, 'Bookings are fine.')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load_guard("bookings:enough")(window()).observed == 300


@pytest.mark.parametrize("path", ["json:nothing", "nothing_at_all:x", "json", "", "json:__doc__"])
def test_a_path_that_leads_nowhere_is_refused(path: str) -> None:
    """The message has the path and says what one looks like, or what was found."""
    with pytest.raises(InvalidSpecError, match=r"package\.module:function|is no function"):
        load_guard(path)


@pytest.mark.parametrize("fields", [{"alpha": 0.0}, {"alpha": 1.5}, {"min_requests": 0}])
def test_limits_that_mean_nothing_are_refused(fields: dict[str, float]) -> None:
    """The message names the field."""
    with pytest.raises(InvalidSpecError, match=next(iter(fields))):
        Limits(**fields)
