"""What every validator promises, and the report it returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from airflow_mlops.core.records import Record


class CheckStatus(StrEnum):
    """Outcome of one check, or of a whole report (its worst check).

    ERROR means that the check could not be computed, for example because a column is missing: the data was neither
    good nor bad. It is never the same as FAIL, and never green.
    """

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"
    ERROR = "error"


@dataclass(frozen=True)
class CheckResult(Record):
    """One check of a suite.

    :param check: type of the expectation, for example ``expect_column_values_to_be_between``
    :param column: column it looked at; empty for a table check
    :param status: outcome; a failed check of severity ``warning`` is WARN
    :param unexpected: number of rows that broke it
    :param message: one sentence for a person; no sample values, they may be personal data
    :param kwargs: arguments of the check
    :param missing_column: a column the check needs and the data lacks; empty in all other cases
    """

    check: str
    column: str
    status: CheckStatus
    unexpected: int = 0
    message: str = ""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    missing_column: str = ""


@dataclass(frozen=True)
class ValidationReport(Record):
    """What a suite says about one piece of data.

    :param rows: number of rows looked at
    :param bad_rows: rows that broke at least one failed row check of severity ``critical``. Rows that ``mostly``
        tolerates are not bad. After a quarantine: the rows that were put there
    :param suite: name of the suite
    :param suite_digest: ``sha256:<hex>`` of the suite's JSON, so that a report names the very rules it used
    :param data: where the data that may go on is: the input, or after a quarantine the rows that passed
    :param quarantine: where the bad rows are; empty when there are none
    :param report_uri: the whole report as JSON; empty when it was not kept
    """

    status: CheckStatus
    rows: int
    bad_rows: int
    suite: str
    suite_digest: str
    engine: str
    checks: tuple[CheckResult, ...] = ()
    data: str = ""
    quarantine: str = ""
    report_uri: str = ""


@runtime_checkable
class Validator(Protocol):
    """An engine that runs suites written in the JSON of Great Expectations."""

    name: str

    def check(self, data: Path, suite: Mapping[str, Any]) -> ValidationReport:
        """Run every check of *suite* over the parquet or CSV file at *data*, or over all files of a directory.

        :raises InvalidSpecError: the suite is empty, or names a check or an argument that does not exist
        """
        ...

    def bad_rows(self, data: Path, suite: Mapping[str, Any]) -> Mapping[int, str]:
        """Return row number (from 0, in file order) -> reason, for the rows that :class:`ValidationReport` counts."""
        ...
