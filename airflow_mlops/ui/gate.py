"""A gate decision in, what the page says about it out. Pure: nothing here asks anybody."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from airflow_mlops.core.decisions import Verdict
from airflow_mlops.evaluation.evidence import Evidence
from airflow_mlops.evaluation.policy import METRICS, Mode
from airflow_mlops.ui.page import GateCard, GateValue

GATE = "mlops.gate."
"""First part of the tags of a version that was evaluated: ``verdict``, ``champion``, ``evidence``, ``evidence_uri``."""

UNPROVEN = "unproven"
"""Shown in place of a verdict whose evidence is missing or was changed: a tag alone proves nothing."""

UNREADABLE = "The evidence of this decision cannot be read. Evaluate again."


def gate_card(tags: Mapping[str, str], evidence: Evidence | str | None) -> GateCard | None:
    """Return what the gate said about the version with these *tags*, or ``None`` if it was not asked.

    :param evidence: what the decision rests on, or why that could not be read
    """
    verdict = tags.get(f"{GATE}verdict", "").lower()
    if not verdict:
        return None
    against = tags.get(f"{GATE}champion", "")
    if not isinstance(evidence, Evidence):
        return GateCard(UNPROVEN, against=against, why=evidence or "The decision names no evidence. Evaluate again.")
    try:
        return GateCard(verdict, tuple(_values(evidence)), against, " ".join(_objections(evidence)))
    except (KeyError, TypeError, ValueError):  # somebody else's evidence: a metric we do not know, text for a number
        return GateCard(UNPROVEN, against=against, why=UNREADABLE)


def _values(evidence: Evidence) -> Iterator[GateValue]:
    found, policy = evidence.evaluation, evidence.policy
    verdicts = {reason.rule: reason.verdict.value for reason in found.decision.reasons}
    for name, value in found.observed.items():
        sign = "≥" if METRICS[name].higher else "≤"
        floor = f"{sign} {_number(policy.floors[name])}" if name in policy.floors else ""
        yield GateValue(name, verdicts.get(f"floor:{name}", ""), _number(value), floor)
    if found.gain is not None and found.gain_low is not None:
        effect = f"≥ {policy.min_effect:+.3g}" if policy.min_effect and policy.mode is Mode.SUPERIORITY else ""
        bound = f"> {0.0 if policy.mode is Mode.SUPERIORITY else -policy.margin:+.3g}"
        yield GateValue("gain", verdicts.get("min_effect", ""), f"{found.gain:+.3g}", effect)
        yield GateValue("surely above", verdicts.get(policy.mode.value, ""), f"{found.gain_low:+.3g}", bound)
    yield GateValue("rows", verdicts.get("rows", ""), f"{found.rows:,}", f"≥ {policy.min_rows:,}")


def _objections(evidence: Evidence) -> Iterator[str]:
    """Give the reasons of a person for a verdict that is no PASS."""
    for reason in evidence.evaluation.decision.reasons:
        if reason.verdict is not Verdict.PASS:
            yield reason.message


def _number(value: float) -> str:
    return f"{value:.4g}"
