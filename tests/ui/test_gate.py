"""What the page says about a gate decision."""

from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_mlops.core.decisions import GateDecision, Reason, Verdict
from airflow_mlops.evaluation.evidence import Evidence
from airflow_mlops.evaluation.policy import Evaluation, GatePolicy, Mode
from airflow_mlops.ui.gate import UNREADABLE, gate_card

TAGS = {"mlops.gate.verdict": "pass", "mlops.gate.champion": "3"}


def evidence(mode: Mode = Mode.SUPERIORITY, **policy: object) -> Evidence:
    """Return evidence for a challenger that gained a little."""
    reasons = [Reason("floor:log_loss", Verdict.FAIL, 0.61, 0.5, "log_loss is too high."), _passed(mode)]
    found = Evaluation(
        GateDecision.of(reasons), "roc_auc", mode, 1200, gain=0.01, gain_low=0.004, observed={"log_loss": 0.61}
    )
    return Evidence(found, GatePolicy(mode=mode, floors={"log_loss": 0.5}, **policy), "sha256:aa")


def _passed(mode: Mode) -> Reason:
    return Reason(mode.value, Verdict.PASS, 0.004, 0.0, "It is better.")


def test_a_version_that_was_not_evaluated_has_no_gate():
    """No decision is not a decision."""
    assert gate_card({}, None) is None


def test_figures_stand_beside_what_was_asked_for():
    """Floors of losses are upper limits, and each figure carries the verdict of its rule."""
    card = gate_card(TAGS, evidence(min_effect=0.005))

    assert card is not None
    assert [(value.rule, value.verdict, value.observed, value.required) for value in card.values] == [
        ("log_loss", "fail", "0.61", "≤ 0.5"),
        ("gain", "", "+0.01", "≥ +0.005"),
        ("surely above", "pass", "+0.004", "> +0"),
        ("rows", "", "1,200", "≥ 500"),
    ]
    assert card.against == "3"


def test_only_what_spoke_against_it_is_told():
    """The reason names the rules that did not pass, not those that did."""
    card = gate_card(TAGS, evidence())

    assert card is not None
    assert card.why == "log_loss is too high."


def test_a_margin_is_shown_for_what_it_is():
    """Under non-inferiority a small loss is accepted, and the page says how much."""
    card = gate_card(TAGS, evidence(Mode.NON_INFERIORITY, margin=0.02))

    assert card is not None
    assert card.values[2].required == "> -0.02"


@pytest.mark.parametrize("why", ["The evidence was changed after the decision.", None])
def test_without_evidence_no_verdict_is_believed(why: str | None):
    """A tag that says pass proves nothing: without its evidence the version is shown as unproven, and why."""
    card = gate_card(TAGS, why)

    assert card is not None
    assert (card.verdict, card.values) == ("unproven", ())
    assert card.why == (why or "The decision names no evidence. Evaluate again.")


def test_evidence_of_another_kind_breaks_nothing():
    """Evidence with a metric nobody knows proves nothing, and the page says so."""
    strange = evidence()
    card = gate_card(TAGS, replace(strange, evaluation=replace(strange.evaluation, observed={"charm": 1.0})))

    assert card is not None
    assert (card.verdict, card.why) == ("unproven", UNREADABLE)
