"""What a report means for the tasks after it. Pure.

A gate fails on failed critical checks and on data without rows. Checks that could not be computed are no verdict at
all: they are errors of the request or of the engine, and never pass in silence.
"""

from __future__ import annotations

from airflow_mlops.core.decisions import GateDecision, Reason, Verdict
from airflow_mlops.core.errors import InvalidSpecError, NotFoundError, PlatformUnavailableError, close_match
from airflow_mlops.validation.contract import CheckResult, CheckStatus, ValidationReport

ON_FAILURE = ("fail", "quarantine", "warn", "skip")


def require_known_mode(on_failure: str) -> None:
    """Refuse a mode that does not exist.

    :raises InvalidSpecError: naming the modes
    """
    if on_failure not in ON_FAILURE:
        raise InvalidSpecError(
            f"on_failure is {on_failure!r}: {close_match(on_failure, ON_FAILURE)}It is one of {', '.join(ON_FAILURE)}."
        )


def require_computed(report: ValidationReport) -> None:
    """Refuse a report with checks that could not be computed.

    :raises NotFoundError: a column is missing; the message names it and a close one
    :raises PlatformUnavailableError: the engine failed
    """
    broken = [check for check in report.checks if check.status is CheckStatus.ERROR]
    missing = [check for check in broken if check.missing_column]
    if missing:
        raise NotFoundError(f"{missing[0].check} cannot be computed. {missing[0].message}")
    if broken:
        raise PlatformUnavailableError(
            f"{len(broken)} of {len(report.checks)} checks could not be computed. "
            f"{broken[0].check} on {broken[0].column!r}: {broken[0].message}"
        )


def decide(report: ValidationReport) -> GateDecision:
    """Return the decision on a report whose checks were all computed."""
    rows = Verdict.PASS if report.rows else Verdict.FAIL
    said = f"{report.rows} rows were looked at." if report.rows else "The data has no rows."
    failed = [_reason(check) for check in report.checks if check.status is CheckStatus.FAIL]
    return GateDecision.of([Reason("rows", rows, report.rows, 1, said), *failed])


def decide_quarantine(report: ValidationReport, max_bad_share: float) -> GateDecision:
    """Return whether taking the bad rows away may cure the data.

    It may not when a check over the whole table failed, or when more than *max_bad_share* of the rows are bad: that
    many bad rows are a fault at the source, and the rest is no fair sample.
    """
    share = report.bad_rows / report.rows if report.rows else 1.0
    small = Verdict.PASS if share <= max_bad_share else Verdict.FAIL
    said = f"{report.bad_rows} of {report.rows} rows are bad; a quarantine may take {max_bad_share:.2%}."
    over_table = [
        _reason(check) for check in report.checks if check.status is CheckStatus.FAIL and not check.unexpected
    ]
    return GateDecision.of([Reason("max_bad_share", small, share, max_bad_share, said), *over_table])


def _reason(check: CheckResult) -> Reason:
    return Reason(check.check, Verdict.FAIL, check.unexpected, 0, check.message)
