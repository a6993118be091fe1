"""Evidence is the same bytes for the same decision, and any change to it shows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_mlops.core.decisions import GateDecision, Reason, Verdict
from airflow_mlops.core.errors import IntegrityError
from airflow_mlops.core.refs import ModelVersion
from airflow_mlops.evaluation.evidence import evidence_of, read_evidence
from airflow_mlops.evaluation.policy import Estimate, Evaluation, GatePolicy, Mode

REASON = Reason("superiority", Verdict.PASS, 0.01, 0.0, "It is better.")
FOUND = Evaluation(
    GateDecision.of([REASON]),
    "roc_auc",
    Mode.SUPERIORITY,
    1000,
    positives=400,
    challenger=Estimate(0.8, 0.78, 0.82),
    champion=Estimate(0.75, 0.73, 0.77),
    gain=0.05,
    gain_low=0.01,
    observed={"roc_auc": 0.8},
    model_name="late",
    challenger_version="2",
    champion_version="1",
)
NEW = ModelVersion("late", "2", "models:/m-2", digest="sha256:22")
OLD = ModelVersion("late", "1", "models:/m-1", digest="sha256:11")


def test_evidence_survives_its_document() -> None:
    """What was written is read back as it was, and where it is kept does not change its digest."""
    evidence = evidence_of(FOUND, GatePolicy(floors={"accuracy": 0.6}), NEW, OLD)
    assert read_evidence(evidence.document(), evidence.digest) == evidence
    kept = replace(FOUND, evidence_digest=evidence.digest, evidence_uri="mlflow-artifacts:/0/gate.json")
    assert evidence_of(kept, evidence.policy, NEW, OLD).digest == evidence.digest


@pytest.mark.parametrize(
    "change",
    [
        {"rows": 1001},
        {"holdout_digest": "md5:0"},
        {"challenger_version": "3"},
        {"gain": 0.051},
        {"decision": GateDecision(Verdict.PASS)},
    ],
)
def test_every_change_of_the_decision_shows(change: dict[str, object]) -> None:
    """Another count, holdout, version, figure or reason is another digest."""
    evidence = evidence_of(FOUND, GatePolicy(), NEW, OLD)
    changed = evidence_of(replace(FOUND, **change), GatePolicy(), NEW, OLD)  # type: ignore[arg-type]
    assert changed.digest != evidence.digest
    with pytest.raises(IntegrityError, match="Evaluate again"):
        read_evidence(changed.document(), evidence.digest)


def test_other_files_or_another_policy_are_other_evidence() -> None:
    """The digests of both models and the whole policy are part of the evidence."""
    evidence = evidence_of(FOUND, GatePolicy(), NEW, OLD)
    others = [
        evidence_of(FOUND, GatePolicy(alpha=0.04), NEW, OLD),
        evidence_of(FOUND, GatePolicy(), replace(NEW, digest="sha256:33"), OLD),
        evidence_of(FOUND, GatePolicy(), NEW, replace(OLD, digest="sha256:33")),
        evidence_of(FOUND, GatePolicy(), NEW, None),
    ]
    assert len({evidence.digest, *(other.digest for other in others)}) == 5
