"""Check a piece of data and act on what was found: let it pass, stop it, or take the bad rows out of it.

The report that is returned describes the data that may go on. It must never describe rows nobody checked.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from airflow_mlops.core.decisions import GateDecision
from airflow_mlops.validation.contract import CheckStatus, ValidationReport, Validator
from airflow_mlops.validation.gate import decide, decide_quarantine, require_computed, require_known_mode
from airflow_mlops.validation.quarantine import split
from airflow_mlops.validation.rules import worst
from airflow_mlops.validation.suite import read_suite

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Gate:
    """How a gate acts.

    :param on_failure: ``fail``, ``quarantine``, ``warn`` or ``skip``
    :param min_expectations: number of checks the suite must have at least
    :param max_bad_share: share of bad rows from 0 to 1 above which a quarantine fails
    :param quarantine_dir: folder for the two parts of the data
    :param report_dir: folder for the whole report as JSON; ``None`` keeps none
    """

    on_failure: str = "fail"
    min_expectations: int = 1
    max_bad_share: float = 0.05
    quarantine_dir: Path | None = None
    report_dir: Path | None = None


def keep_gate(
    validator: Validator, data: Path, suite: Mapping[str, Any], gate: Gate
) -> tuple[ValidationReport, GateDecision]:
    """Check *data* and return the report on what may go on, and the decision.

    With ``quarantine``, the bad rows are put aside and the rest is checked again; the decision is about the rest, the
    status is WARN at best, and ``bad_rows`` counts the rows put aside. The quarantine is written even when its share
    is too large, so that a person can look at it.

    :raises NotFoundError: a column is missing
    :raises PlatformUnavailableError: the engine failed
    """
    require_known_mode(gate.on_failure)
    read_suite(suite, gate.min_expectations)
    report = validator.check(data, suite)
    log.info("%s", table(report))
    require_computed(report)
    decision = decide(report)
    if gate.on_failure == "quarantine" and not decision.passed and report.bad_rows:
        report, decision = _take_away(validator, data, suite, gate, report)
    return _kept(report, gate.report_dir), decision


def table(report: ValidationReport) -> str:
    """Return the checks as lines for a log: status, rows that broke it, what it says. No values of the data."""
    head = f"Suite {report.suite!r} on {report.data!r} by {report.engine}: {report.status.name}, {report.rows} rows"
    order = sorted(report.checks, key=lambda check: [*reversed(CheckStatus)].index(check.status))
    lines = [f"  {check.status.name:<5} {check.unexpected:>9}  {check.message}" for check in order]
    return "\n".join([f"{head}, {report.bad_rows} bad.", "  state  unexpected  check", *lines])


def _take_away(
    validator: Validator, data: Path, suite: Mapping[str, Any], gate: Gate, report: ValidationReport
) -> tuple[ValidationReport, GateDecision]:
    to = gate.quarantine_dir or data.parent / f"{data.name}.checked" / report.suite
    good, away = split(data, validator.bad_rows(data, suite), to)
    log.warning("Put %d of %d rows aside in %s.", report.bad_rows, report.rows, away)
    curable = decide_quarantine(report, gate.max_bad_share)
    if not curable.passed:
        return replace(report, quarantine=str(away)), curable
    rest = validator.check(good, suite)
    log.info("%s", table(rest))
    require_computed(rest)
    status = worst([rest.status, CheckStatus.WARN])
    return replace(rest, status=status, bad_rows=report.bad_rows, quarantine=str(away)), decide(rest)


def _kept(report: ValidationReport, folder: Path | None) -> ValidationReport:
    """Write the report as JSON, complete or not at all, and say where."""
    if folder is None:
        return report
    folder.mkdir(parents=True, exist_ok=True)
    path = folder.resolve() / f"{report.suite}.json"
    kept = replace(report, report_uri=path.as_uri())
    with tempfile.NamedTemporaryFile("w", dir=folder, prefix=".", suffix=".json", delete=False) as stream:
        json.dump(kept.to_dict(), stream, indent=2, default=str)
    os.replace(stream.name, path)
    return kept
