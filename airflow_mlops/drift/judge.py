"""Column by column: which effects are large enough, and which of those hold when many columns are looked at. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_mlops.core.decisions import Verdict
from airflow_mlops.drift import significance
from airflow_mlops.drift.columns import Column, Kind
from airflow_mlops.drift.compare import DISTRIBUTION, MISSING, NEW, Comparison, compare
from airflow_mlops.drift.policy import DriftPolicy
from airflow_mlops.drift.report import ColumnDrift

_QUESTIONS = {"missing": MISSING, "new_categories": NEW, "new_categories_corrected": NEW}


def judge(pairs: Mapping[str, tuple[Column, Column]], policy: DriftPolicy) -> tuple[ColumnDrift, ...]:
    """Return what happened to each column, the drifted and the most severe ones first.

    :param pairs: name -> the column of the reference and of the current data
    """
    looks = [_Look(name, *pair, compare(*pair, least=policy.min_rows), policy) for name, pair in pairs.items()]
    asked = [(look.name, question, p) for look in looks for question, p in look.p_values.items()]
    corrected: dict[str, dict[str, float]] = {look.name: {} for look in looks}
    for (name, question, _), p in zip(asked, significance.adjusted([p for *_, p in asked]), strict=True):
        corrected[name][question] = p
    judged = [look.judge(corrected[look.name]) for look in looks]
    return tuple(sorted(judged, key=lambda c: (c.verdict is not Verdict.FAIL, -c.severity, c.name)))


@dataclass(frozen=True)
class _Look:
    """One column under one policy."""

    name: str
    reference: Column
    current: Column
    found: Comparison
    policy: DriftPolicy

    @property
    def is_time(self) -> bool:
        return Kind.TIME in (self.reference.kind, self.current.kind)

    @property
    def p_values(self) -> dict[str, float]:
        """The questions that count. A clock moves on without drift, so its distribution is no question."""
        return {q: p for q, p in self.found.p_values.items() if q == MISSING or not self.is_time}

    @property
    def limits(self) -> dict[str, float]:
        limits = self.policy.limits()
        return {s: limit for s, limit in limits.items() if s == "missing" or not self.is_time}

    def judge(self, p_values: Mapping[str, float]) -> ColumnDrift:
        limits = self.limits
        effects = {s: abs(self.found.values[s]) / limits[s] for s in limits if s in self.found.values}
        sure = [s for s in effects if p_values.get(_QUESTIONS.get(s, DISTRIBUTION), 1.0) <= self.policy.q]
        telling = sorted((s for s in sure if effects[s] >= 1), key=lambda s: -effects[s])
        verdict, why = self._verdict(telling, effects)
        return ColumnDrift(
            name=self.name,
            kind=self.reference.kind.value,
            verdict=verdict,
            severity=max((effects[s] for s in telling or effects), default=0.0),
            why=why,
            statistics=self.found.values,
            p_values=p_values,
            reference=_summary(self.reference),
            current=_summary(self.current),
            new=self.found.new,
            vanished=self.found.vanished,
        )

    def _verdict(self, telling: list[str], effects: Mapping[str, float]) -> tuple[Verdict, str]:
        rows, least = min(self.reference.rows, self.current.rows), self.policy.min_rows
        if rows < least:
            return Verdict.INCONCLUSIVE, f"{rows} rows, {least} are needed."
        if telling:
            limits = self.limits
            parts = [f"{s} {self.found.values[s]:.3g} (limit {limits[s]:g})" for s in telling]
            return Verdict.FAIL, ", ".join(parts) + "."
        if DISTRIBUTION not in self.found.p_values:
            return Verdict.INCONCLUSIVE, "Too few usable values to compare."
        if any(effect >= 1 for effect in effects.values()):
            return Verdict.PASS, "An effect is above its limit, but may well be chance."
        return Verdict.PASS, ""


def _summary(column: Column) -> dict[str, Any]:
    share = column.missing / column.rows if column.rows else None
    return {"rows": column.rows, "missing": share, "mean": column.mean, "low": column.low, "high": column.high}
