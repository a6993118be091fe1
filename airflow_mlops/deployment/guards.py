"""What a canary is judged by: each guard compares it with the old revision over the same window and gives a reason.

A guard fails a canary only if the difference matters (a limit somebody chose) and is no chance (a test at the share of
alpha the plan gives it). Too little traffic is INCONCLUSIVE, never a pass. Pure: no clock, no network, no NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, cast

from airflow_mlops.core.decisions import Reason, Verdict
from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.core.records import Record
from airflow_mlops.deployment.contract import WindowMetrics
from airflow_mlops.deployment.significance import fisher_p, ks_distance, ks_p, quantile

TAIL = 0.95
"""The latency quantile that is compared."""


@dataclass(frozen=True)
class Window:
    """What canary and baseline did between two moments (seconds since 1970)."""

    canary: WindowMetrics
    baseline: WindowMetrics
    since: float = 0.0
    until: float = 0.0


@dataclass(frozen=True)
class Limits(Record):
    """How much worse a canary may be. ``None`` turns a guard off.

    :param max_error_rate_increase: share of answers with status 500 or above, minus the baseline's share
    :param max_latency_ratio: 95th percentile of the time to answer, divided by the baseline's
    :param max_prediction_shift: Kolmogorov-Smirnov distance between the predictions of both, 0 to 1
    :param min_requests: values each metric needs on both sides before a guard says anything
    :param alpha: chance that a canary no worse than its baseline is rolled back, over the whole roll-out
    """

    max_error_rate_increase: float | None = 0.02
    max_latency_ratio: float | None = 1.5
    max_prediction_shift: float | None = 0.2
    min_requests: int = 50
    alpha: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise InvalidSpecError(f"alpha is {self.alpha!r}; it is a probability between 0 and 1, for example 0.05.")
        if self.min_requests < 1:
            raise InvalidSpecError(f"min_requests is {self.min_requests!r}; it has to be 1 or more.")

    @property
    def count(self) -> int:
        """How many of the built-in guards are on."""
        return sum(
            limit is not None
            for limit in (self.max_error_rate_increase, self.max_latency_ratio, self.max_prediction_shift)
        )


Guard = Callable[[Window], Reason]
"""A guard of your own: it gets the window and returns a reason. A business metric may ask its own source."""


def load_guard(path: str) -> Guard:
    """Return the function that ``"package.module:function"`` names.

    :raises InvalidSpecError: it cannot be imported or called
    """
    module, _, name = path.partition(":")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidSpecError(
            f"The guard {path!r} cannot be imported: {error}. Write 'package.module:function' and install it where "
            "triggers run as well."
        ) from error
    if not callable(found):
        raise InvalidSpecError(f"The guard {path!r} is no function: it is {found!r}.")
    return cast("Guard", found)


def judge(window: Window, limits: Limits, alpha: float, own: Iterable[Guard] = ()) -> tuple[Reason, ...]:
    """Ask every guard that is on, the built-in ones each at the significance level *alpha*."""
    reasons: list[Reason] = []
    if limits.max_error_rate_increase is not None:
        reasons.append(error_rate(window, limits.max_error_rate_increase, limits.min_requests, alpha))
    if limits.max_latency_ratio is not None:
        reasons.append(latency(window, limits.max_latency_ratio, limits.min_requests, alpha))
    if limits.max_prediction_shift is not None:
        reasons.append(prediction_shift(window, limits.max_prediction_shift, limits.min_requests, alpha))
    return (*reasons, *(guard(window) for guard in own))


def error_rate(window: Window, limit: float, needed: int, alpha: float) -> Reason:
    """Compare the shares of failed answers; one-sided exact test."""
    canary, baseline = window.canary, window.baseline
    if thin := _thin("error_rate", "requests", canary.requests, baseline.requests, needed):
        return thin
    rate, usual = canary.errors / canary.requests, baseline.errors / baseline.requests
    increase = rate - usual
    p = fisher_p(canary.errors, canary.requests, baseline.errors, baseline.requests)
    message = (
        f"{rate:.1%} of {canary.requests} requests failed, {usual:.1%} of {baseline.requests} on "
        f"{baseline.revision} (limit +{limit:.1%}, p={p:.2g})."
    )
    return _reason("error_rate", increase > limit and p < alpha, round(increase, 4), limit, message)


def latency(window: Window, limit: float, needed: int, alpha: float) -> Reason:
    """Compare the 95th percentiles; exact test on how many answers of each are among the slowest tenth of both."""
    slow, usual = window.canary.latencies_ms, window.baseline.latencies_ms
    if thin := _thin("latency", "times to answer", len(slow), len(usual), needed):
        return thin
    ours, theirs = quantile(slow, TAIL), quantile(usual, TAIL)
    ratio = ours / theirs if theirs > 0 else 1.0
    cut = quantile((*slow, *usual), 0.9)
    p = fisher_p(sum(x > cut for x in slow), len(slow), sum(x > cut for x in usual), len(usual))
    message = (
        f"95 of 100 answers came within {ours:.1f} ms, within {theirs:.1f} ms on {window.baseline.revision} "
        f"(limit {limit:g} times, p={p:.2g})."
    )
    return _reason("latency", ratio > limit and p < alpha, round(ratio, 3), limit, message)


def prediction_shift(window: Window, limit: float, needed: int, alpha: float) -> Reason:
    """Compare the distributions of the predictions; two-sample Kolmogorov-Smirnov."""
    ours, theirs = window.canary.predictions, window.baseline.predictions
    if thin := _thin("prediction_shift", "numeric predictions", len(ours), len(theirs), needed):
        return thin
    distance = ks_distance(ours, theirs)
    p = ks_p(distance, len(ours), len(theirs))
    message = (
        f"The predictions differ from those of {window.baseline.revision} by a distance of {distance:.3f} "
        f"(limit {limit:g}, p={p:.2g})."
    )
    return _reason("prediction_shift", distance > limit and p < alpha, round(distance, 4), limit, message)


def _thin(rule: str, what: str, canary: int, baseline: int, needed: int) -> Reason | None:
    """Return an INCONCLUSIVE reason unless both sides have enough values."""
    if min(canary, baseline) >= needed:
        return None
    message = f"Too few {what}: {canary} of the canary and {baseline} of the baseline, {needed} are needed."
    return Reason(rule, Verdict.INCONCLUSIVE, min(canary, baseline), needed, message)


def _reason(rule: str, failed: bool, observed: Any, required: Any, message: str) -> Reason:
    return Reason(rule, Verdict.FAIL if failed else Verdict.PASS, observed, required, message)
