"""What both engines share: a report and the bad rows are read off the outcomes of one run, whoever computed them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow_mlops.validation import rules
from airflow_mlops.validation.contract import ValidationReport
from airflow_mlops.validation.rules import Outcome
from airflow_mlops.validation.suite import Suite


class SuiteValidator(ABC):
    """A :class:`~airflow_mlops.validation.contract.Validator` that only has to compute outcomes."""

    name: str

    def check(self, data: Path, suite: Mapping[str, Any]) -> ValidationReport:
        """Run every check of *suite* over *data*."""
        read, outcomes, rows = self._run(data, suite)
        return rules.report(read, outcomes, rows=rows, engine=self.name, data=str(data))

    def bad_rows(self, data: Path, suite: Mapping[str, Any]) -> Mapping[int, str]:
        """Return row number -> reason, for rows that break a failed row check of severity critical."""
        read, outcomes, _ = self._run(data, suite)
        return rules.bad_rows(read, outcomes)

    @abstractmethod
    def _run(self, data: Path, suite: Mapping[str, Any]) -> tuple[Suite, list[Outcome], int]:
        """Return the suite as read, the outcome of each of its checks in order, and the number of rows."""
