"""What a drift check found, as plain values that travel, and as a table that a person reads in a log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_mlops.core.decisions import GateDecision, Reason, Verdict
from airflow_mlops.core.records import Record


@dataclass(frozen=True)
class ColumnDrift(Record):
    """What happened to one column.

    :param kind: numeric, categorical, boolean, time, empty or other
    :param verdict: FAIL it drifted, PASS it did not, INCONCLUSIVE there were too few values
    :param severity: its largest effect over that effect's threshold; from 1 on it matters
    :param why: one sentence for a person
    :param statistics: statistic -> effect; the definitions are in ``airflow_mlops.drift.statistics``
    :param p_values: question -> p-value, corrected for all the columns looked at
    :param reference: rows, missing share, mean, smallest and largest value of the reference
    :param current: the same of the current data
    :param new: categories the reference does not know, at most 20
    :param vanished: categories that are gone, at most 20
    """

    name: str
    kind: str
    verdict: Verdict
    severity: float = 0.0
    why: str = ""
    statistics: Mapping[str, float] = field(default_factory=dict)
    p_values: Mapping[str, float] = field(default_factory=dict)
    reference: Mapping[str, Any] = field(default_factory=dict)
    current: Mapping[str, Any] = field(default_factory=dict)
    new: tuple[str, ...] = ()
    vanished: tuple[str, ...] = ()


@dataclass(frozen=True)
class DriftReport(Record):
    """The verdict on a window of data, and all it rests on.

    :param verdict: FAIL there is drift, PASS there is none, INCONCLUSIVE there is too little data to say
    :param reasons: the rules that were looked at: rows, schema, columns
    :param drifted: names of the drifted columns, the most severe first
    :param schema_changes: one sentence for each column that is missing, new or of another kind
    :param missing_columns: columns of the reference that the current data lacks
    :param columns: one entry for each column in both, the most severe first
    :param compared: number of columns that were compared; *columns* may be cut to the most severe ones
    :param reference_data: data versions of the reference
    :param warnings: what was left out while reading
    """

    verdict: Verdict
    reasons: tuple[Reason, ...] = ()
    drifted: tuple[str, ...] = ()
    schema_changes: tuple[str, ...] = ()
    missing_columns: tuple[str, ...] = ()
    columns: tuple[ColumnDrift, ...] = ()
    compared: int = 0
    reference_rows: int = 0
    current_rows: int = 0
    reference_at: str = ""
    current_at: str = ""
    reference_data: tuple[Mapping[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def decision(self) -> GateDecision:
        """The verdict as a gate's decision."""
        return GateDecision(self.verdict, self.reasons)

    def brief(self, columns: int) -> dict[str, Any]:
        """Return the report as a dict with only the most severe *columns*, small enough for XCom."""
        return {**self.to_dict(), "columns": [column.to_dict() for column in self.columns[:columns]]}

    def table(self, columns: int = 40) -> str:
        """Return the summary and a line for each of the most severe *columns*."""
        lines = [
            f"Drift {self.decision.summary()}",
            f"reference {self.reference_rows} rows, current {self.current_rows} rows, {self.compared} columns compared",
        ]
        if self.columns:
            width = max(len("column"), *(len(column.name) for column in self.columns[:columns]))
            lines.append(f"{'column':<{width}}  {'kind':<11}  {'verdict':<12}  severity  why")
            lines += [
                f"{c.name:<{width}}  {c.kind:<11}  {c.verdict.name:<12}  {c.severity:>8.2f}  {c.why}".rstrip()
                for c in self.columns[:columns]
            ]
        return "\n".join([*lines, *self.schema_changes, *self.warnings])
