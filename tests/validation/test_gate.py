"""The gate is fail-closed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.core.errors import InvalidSpecError, NotFoundError, PlatformUnavailableError
from airflow_mlops.validation.contract import CheckResult, CheckStatus, ValidationReport
from airflow_mlops.validation.gate import decide, decide_quarantine, require_computed
from airflow_mlops.validation.rules import mostly_holds, worst
from airflow_mlops.validation.suite import read_suite, suite_of_text

_CHECKS = st.lists(
    st.builds(
        CheckResult,
        check=st.just("expect_x"),
        column=st.just("c"),
        status=st.sampled_from(CheckStatus),
        unexpected=st.integers(0, 5),
        missing_column=st.sampled_from(["", "c"]),
    ),
    max_size=5,
)


def _report(checks: list[CheckResult], rows: int = 10, bad: int = 0) -> ValidationReport:
    return ValidationReport(worst(c.status for c in checks), rows, bad, "s", "sha256:0", "sql", tuple(checks))


@given(_CHECKS, st.integers(0, 3))
def test_nothing_bad_passes(checks: list[CheckResult], rows: int) -> None:
    """A gate passes only with rows, without a failed critical check and with every check computed."""
    report = _report(checks, rows)
    statuses = {check.status for check in checks}
    if CheckStatus.ERROR in statuses:
        with pytest.raises((NotFoundError, PlatformUnavailableError)):
            require_computed(report)
    else:
        require_computed(report)
        assert decide(report).passed == (rows > 0 and CheckStatus.FAIL not in statuses)


@given(st.integers(0, 20), st.integers(0, 20), st.floats(0, 1))
def test_a_quarantine_keeps_its_bound(rows: int, bad: int, bound: float) -> None:
    """A quarantine may take at most the share it was given, and nothing from nothing."""
    report = _report([CheckResult("expect_x", "c", CheckStatus.FAIL, 1)], rows, min(bad, rows))
    allowed = decide_quarantine(report, bound).passed
    assert allowed == ((min(bad, rows) / rows if rows else 1.0) <= bound)


def test_no_check_is_an_error() -> None:
    """The worst of nothing is not a pass."""
    assert worst([]) is CheckStatus.ERROR


@given(st.integers(0, 50), st.integers(0, 50), st.floats(0, 1), st.floats(0, 1))
def test_mostly_is_monotone(good: int, unexpected: int, low: float, high: float) -> None:
    """What holds for a strict share holds for a lax one; all good rows always hold."""
    low, high = sorted((low, high))
    assert mostly_holds(good + unexpected, unexpected, low) or not mostly_holds(good + unexpected, unexpected, high)
    assert mostly_holds(good, 0, high)


def test_the_digest_names_the_rules() -> None:
    """The digest does not depend on the order of keys, but on every rule."""
    suite = {"name": "s", "expectations": [{"type": "expect_x", "kwargs": {"column": "a", "mostly": 0.9}}]}
    other = json.loads(
        '{"expectations": [{"kwargs": {"mostly": 0.9, "column": "a"}, "type": "expect_x"}], "name": "s"}'
    )
    assert read_suite(suite).digest == read_suite(other).digest
    other["expectations"][0]["kwargs"]["mostly"] = 0.8
    assert read_suite(suite).digest != read_suite(other).digest


@pytest.mark.parametrize("text", ["{", "[]", "1"])
def test_text_that_is_no_suite(text: str) -> None:
    """Text that is not a JSON object is refused, naming where it came from."""
    with pytest.raises(InvalidSpecError, match=r"people\.json"):
        suite_of_text(text, "people.json")


def test_common_suites_need_no_great_expectations(tmp_path: object) -> None:
    """The SQL engine answers a common suite without the import that takes seconds."""
    code = f"""
import sys
from pathlib import Path
from airflow_mlops.validation.engines.sql import SqlValidator
data = Path({str(tmp_path)!r}, "x.csv")
data.write_text("a\\n1\\n")
check = {{"type": "expect_column_values_to_not_be_null", "kwargs": {{"column": "a"}}}}
assert SqlValidator().check(data, {{"name": "s", "expectations": [check]}}).status == "pass"
assert "great_expectations" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
