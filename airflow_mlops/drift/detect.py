"""The drift gate: two profiles and a policy in, a verdict with its reasons out. Pure.

FAIL needs effect and significance. A million rows make a shift of 0.02 standard deviations certain and no less
harmless; three of four windows of thirty columns without drift show some p below 0.05. So an effect must reach its
threshold, and its p-value must hold after the correction of Benjamini and Hochberg over all columns and questions.
"""

from __future__ import annotations

from collections.abc import Iterable

from airflow_mlops.core.decisions import GateDecision, Reason, Verdict
from airflow_mlops.drift.columns import Kind
from airflow_mlops.drift.judge import judge
from airflow_mlops.drift.policy import DriftPolicy
from airflow_mlops.drift.profile import PREDICTION, DriftProfile
from airflow_mlops.drift.report import ColumnDrift, DriftReport


def detect(reference: DriftProfile, current: DriftProfile, policy: DriftPolicy) -> DriftReport:
    """Compare the window *current* with *reference*.

    A column that the window lacks, or holds as another kind (numbers where there were categories), fails, except the
    target and the prediction, which unlabelled or unscored data lacks. New columns are told and do not fail. Columns
    of the kind TIME are shown and judged only by their missing share: a clock moves on without drift.
    """
    missing, changed, added = _schema(reference, current, policy)
    pairs = {
        name: (column, current.columns[name])
        for name, column in reference.columns.items()
        if name in current.columns and name not in (*policy.ignore, *changed)
    }
    judged = judge(pairs, policy)
    drifted = tuple(c.name for c in judged if c.verdict is Verdict.FAIL)
    changes = [*missing.values(), *changed.values(), *added]
    rows = _rows(reference, current, policy.min_rows)
    reasons = [rows, _schema_reason([*missing.values(), *changed.values()]), _columns_reason(judged, rows, policy)]
    decision = GateDecision.of(reasons if reference.rows and current.rows else reasons[:1])
    return DriftReport(
        verdict=decision.verdict,
        reasons=decision.reasons,
        drifted=drifted,
        schema_changes=tuple(changes) if current.rows else (),
        missing_columns=tuple(missing) if current.rows else (),
        columns=judged,
        compared=len(judged),
        reference_rows=reference.rows,
        current_rows=current.rows,
        reference_at=reference.created_at,
        current_at=current.created_at,
        reference_data=reference.data,
        warnings=current.warnings,
    )


def _schema(
    reference: DriftProfile, current: DriftProfile, policy: DriftPolicy
) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """Return sentences on missing and changed columns by name, and on new ones."""
    missing, changed = {}, {}
    for name, column in reference.columns.items():
        other = current.columns.get(name)
        if name in policy.ignore:
            continue
        if other is None:
            if name not in (reference.target, PREDICTION):
                missing[name] = f"Column {name!r} is missing; the reference has it as {column.type}."
        elif not _comparable(column.kind, other.kind):
            was = f"{column.kind.value} ({column.type})"
            changed[name] = f"Column {name!r} is {other.kind.value} ({other.type}), in the reference {was}."
    unknown = [name for name in current.columns if name not in reference.columns and name not in policy.ignore]
    return missing, changed, [f"Column {name!r} is new; the reference does not have it." for name in unknown]


def _comparable(a: Kind, b: Kind) -> bool:
    return a is b or Kind.EMPTY in (a, b) or {a, b} == {Kind.BOOLEAN, Kind.NUMERIC}


def _rows(reference: DriftProfile, current: DriftProfile, least: int) -> Reason:
    observed = {"reference": reference.rows, "current": current.rows}
    if min(observed.values()) >= max(1, least):
        message = f"{current.rows} rows were compared with {reference.rows}."
        return Reason("rows", Verdict.PASS, observed, least, message)
    side, profile = ("current data", current) if current.rows < max(1, least) else ("reference", reference)
    message = " ".join([f"The {side} has {profile.rows} rows, {least} are needed.", *profile.warnings])
    return Reason("rows", Verdict.INCONCLUSIVE, observed, least, message)


def _schema_reason(changes: Iterable[str]) -> Reason:
    found = list(changes)
    verdict = Verdict.FAIL if found else Verdict.PASS
    return Reason("schema", verdict, len(found), 0, " ".join(found) or "All columns are there and of the same kind.")


def _columns_reason(judged: tuple[ColumnDrift, ...], rows: Reason, policy: DriftPolicy) -> Reason:
    counted = [c for c in judged if policy.weight(c.name) > 0 and c.verdict is not Verdict.INCONCLUSIVE]
    drifted = [c for c in counted if c.verdict is Verdict.FAIL]
    required = {"min_drifted_columns": policy.min_drifted_columns, "max_drifted_share": policy.max_drifted_share}
    if rows.verdict is not Verdict.PASS or not counted:
        message = "No column could be compared." if not counted else "Too few rows to judge the columns."
        return Reason("columns", Verdict.INCONCLUSIVE, None, required, message)
    share = sum(policy.weight(c.name) for c in drifted) / sum(policy.weight(c.name) for c in counted)
    failed = len(drifted) >= policy.min_drifted_columns and share > policy.max_drifted_share
    names = ", ".join(c.name for c in drifted[:10]) + (", ..." if len(drifted) > 10 else "")
    message = f"{len(drifted)} of {len(counted)} columns drifted" + (f": {names}." if drifted else ".")
    verdict = Verdict.FAIL if failed else Verdict.PASS
    return Reason("columns", verdict, {"drifted": len(drifted), "share": share}, required, message)
