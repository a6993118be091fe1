"""From what an engine counted to what the report says. Pure; the same for every engine.

A message must never hold a value of the data: it may be personal.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_mlops.core.errors import close_match
from airflow_mlops.validation.contract import CheckResult, CheckStatus, ValidationReport
from airflow_mlops.validation.suite import Check, Suite

_ORDER = (CheckStatus.ERROR, CheckStatus.FAIL, CheckStatus.WARN, CheckStatus.PASS)


@dataclass(frozen=True)
class Outcome:
    """What an engine found for one check.

    :param success: ``None`` when it could not be computed
    :param unexpected: rows that broke it
    :param considered: rows it looked at
    :param rows: numbers of the rows that broke it; filled for failed row checks only
    :param error: why it could not be computed
    """

    success: bool | None
    unexpected: int = 0
    considered: int = 0
    rows: Sequence[int] = field(default=(), repr=False)
    error: str = ""
    missing_column: str = ""


def mostly_holds(considered: int, unexpected: int, mostly: float) -> bool:
    """Return whether the share of good rows is at least *mostly*. No row at all holds."""
    return considered == 0 or (float(considered) - float(unexpected)) / float(considered) >= mostly


def missing_column(check: Check, columns: Sequence[str]) -> Outcome | None:
    """Return the outcome of a check that needs a column the data lacks, or ``None`` when all are there."""
    for name in check.columns:
        if name not in columns:
            shown = ", ".join(map(str, columns[:20]))
            said = f"The data has no column {name!r}: {close_match(name, map(str, columns))}It has {shown}."
            return Outcome(None, error=said, missing_column=name)
    return None


def report(suite: Suite, outcomes: Sequence[Outcome], *, rows: int, engine: str, data: str) -> ValidationReport:
    """Put together the report of one run."""
    checks = tuple(_result(check, found) for check, found in zip(suite.checks, outcomes, strict=True))
    bad = bad_rows(suite, outcomes)
    return ValidationReport(
        worst(check.status for check in checks), rows, len(bad), suite.name, suite.digest, engine, checks, data
    )


def bad_rows(suite: Suite, outcomes: Sequence[Outcome]) -> dict[int, str]:
    """Return row number -> the failed critical checks it broke, in row order."""
    reasons: dict[int, list[str]] = {}
    for check, found in zip(suite.checks, outcomes, strict=True):
        if check.severity == "critical" and found.success is False:
            for row in found.rows:
                reasons.setdefault(int(row), []).append(_subject(check))
    return {row: "; ".join(reasons[row]) for row in sorted(reasons)}


def worst(statuses: Iterable[CheckStatus]) -> CheckStatus:
    """Return the worst of *statuses*. No status at all is an error, not a pass."""
    found = set(statuses)
    return next((status for status in _ORDER if status in found), CheckStatus.ERROR)


def _result(check: Check, found: Outcome) -> CheckResult:
    return CheckResult(
        check=check.type,
        column=", ".join(check.columns or (str(check.kwargs.get("column", "")),)),
        status=_status(check, found),
        unexpected=found.unexpected,
        message=_message(check, found),
        kwargs=check.kwargs,
        missing_column=found.missing_column,
    )


def _status(check: Check, found: Outcome) -> CheckStatus:
    if found.success is None:
        return CheckStatus.ERROR
    if found.success:
        return CheckStatus.PASS
    return CheckStatus.FAIL if check.severity == "critical" else CheckStatus.WARN


def _message(check: Check, found: Outcome) -> str:
    if found.success is None:
        return found.error
    if found.considered:
        return f"{found.unexpected} of {found.considered} rows broke {_subject(check)}."
    return f"{_subject(check)} {'holds' if found.success else 'does not hold'}."


def _subject(check: Check) -> str:
    return f"{check.type}({', '.join(f'{key}={_short(value)}' for key, value in check.kwargs.items())})"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
