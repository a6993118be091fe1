"""The gate's decision: what it promotes, what it leaves open, and that it fails closed."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.core.decisions import Verdict
from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.evaluation.gate import decide
from airflow_mlops.evaluation.policy import METRICS, Evaluation, GatePolicy, Mode

POLICY = GatePolicy(min_rows=200, min_positives=50, floors={"roc_auc": 0.6})


def holdout(rows: int = 2000, *, lift: float = 0.0, seed: int = 0) -> tuple[Any, Any, Any]:
    """Return champion scores, challenger scores (better by *lift*) and labels."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(rows) < 0.5).astype(float)
    noise = rng.normal(size=(3, rows))
    champion = 1 / (1 + np.exp(-(labels - 0.5 + noise[0] + noise[1])))
    challenger = 1 / (1 + np.exp(-((1 + lift) * (labels - 0.5) + noise[0] + noise[2])))
    return champion, challenger, labels


def rules(evaluation: Evaluation) -> dict[str, Verdict]:
    """Return rule -> verdict."""
    return {reason.rule: reason.verdict for reason in evaluation.decision.reasons}


@pytest.mark.parametrize("metric", ["roc_auc", "accuracy", "log_loss", "brier"])
def test_a_better_challenger_passes(metric: str) -> None:
    """A clear gain on enough rows is a PASS whose bound is above zero."""
    found = decide(*holdout(lift=1.5), GatePolicy(metric=metric))
    assert found.decision.passed, found.decision.summary()
    assert found.gain is not None
    assert found.gain_low is not None
    assert 0 < found.gain_low < found.gain


def test_a_challenger_that_is_no_better_fails() -> None:
    """Equal models fail for superiority and pass for non-inferiority with a margin above their noise."""
    scores = holdout()
    assert decide(*scores, POLICY).decision.verdict is Verdict.FAIL
    lenient = GatePolicy(mode=Mode.NON_INFERIORITY, margin=0.05)
    assert decide(*scores, lenient).decision.passed
    strict = GatePolicy(mode=Mode.NON_INFERIORITY, margin=0.0001)
    assert not decide(*scores, strict).decision.passed


def test_a_gain_that_is_sure_but_small_fails() -> None:
    """A gain below min_effect is not worth a promotion, however sure it is."""
    found = decide(*holdout(20_000, lift=0.3), GatePolicy(min_effect=0.2))
    assert rules(found)["superiority"] is Verdict.PASS
    assert rules(found)["min_effect"] is Verdict.FAIL
    assert found.decision.verdict is Verdict.FAIL


@pytest.mark.parametrize(("rows", "rule"), [(150, "rows"), (0, "rows")])
def test_too_few_rows_decide_nothing(rows: int, rule: str) -> None:
    """Too few rows are INCONCLUSIVE, and no metric was looked at."""
    found = decide(*holdout(rows, lift=3), POLICY)
    assert found.decision.verdict is Verdict.INCONCLUSIVE
    assert rules(found)[rule] is Verdict.INCONCLUSIVE
    assert (found.gain, found.challenger, found.observed) == (None, None, {})


def test_too_few_of_either_class_decide_nothing() -> None:
    """The rarer class counts, be it the positives or the negatives."""
    champion, challenger, _ = holdout(1000, lift=3)
    for rare in (np.arange(1000) < 20, np.arange(1000) >= 20):
        found = decide(champion, challenger, rare.astype(float), POLICY)
        assert rules(found)["positives"] is Verdict.INCONCLUSIVE
        assert found.decision.verdict is Verdict.INCONCLUSIVE


def test_the_first_model_is_judged_by_floors_alone_and_says_so() -> None:
    """Without a champion floors decide; without floors nothing was checked, and nothing passes."""
    _, challenger, labels = holdout(lift=1.5)
    good = decide(None, challenger, labels, POLICY)
    assert good.decision.passed
    assert "only the floors were checked" in good.decision.summary()
    assert (good.champion, good.gain, good.alpha) == (None, None, None)
    bad = decide(None, challenger, labels, GatePolicy(floors={"roc_auc": 0.99}))
    assert bad.decision.verdict is Verdict.FAIL
    assert decide(None, challenger, labels, GatePolicy()).decision.verdict is Verdict.INCONCLUSIVE


def test_floors_hold_against_a_worse_champion() -> None:
    """A challenger that beats a bad champion still needs the floors; a floor of a loss is a ceiling."""
    scores = holdout(lift=1.5)
    assert decide(*scores, GatePolicy(floors={"roc_auc": 0.95})).decision.verdict is Verdict.FAIL
    assert decide(*scores, GatePolicy(floors={"log_loss": 0.1})).decision.verdict is Verdict.FAIL
    assert decide(*scores, GatePolicy(floors={"log_loss": 5.0, "roc_auc": 0.6})).decision.passed


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("who", [0, 1])
def test_scores_that_are_no_numbers_fail(bad: float, who: int) -> None:
    """One NaN in either model's scores fails the gate, whatever the rest looks like."""
    scores = holdout(lift=3)
    scores[who][7] = bad
    found = decide(*scores, POLICY)
    assert found.decision.verdict is Verdict.FAIL
    assert "not finite" in found.decision.summary()


def test_a_log_loss_needs_probabilities() -> None:
    """Scores outside 0 to 1 fail where probabilities are needed and are fine where only the order counts."""
    champion, challenger, labels = holdout(lift=1.5)
    assert decide(champion, challenger * 7, labels, POLICY).decision.passed
    assert "no probabilities" in decide(champion, challenger * 7, labels, GatePolicy(metric="brier")).decision.summary()


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0.0, 1.0, 2.0], "positive_label"),
        ([0.0, 1.0], "2 labels"),
        ([0.0, 1.0, math.nan], "missing values"),
        (["no", "yes", "no"], "positive_label"),
        ([[0.0], [1.0], [1.0]], "shape"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: Any, said: str) -> None:
    """Labels of another kind or length are a wrong request, and the message says what to do."""
    with pytest.raises(InvalidSpecError, match=said):
        decide([0.1, 0.2, 0.3], [0.1, 0.2, 0.3], labels, POLICY)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"metric": "roc_acu"}, "did you mean 'roc_auc'"),
        ({"floors": {"rmse": 1.0}}, "different kinds"),
        ({"mode": Mode.NON_INFERIORITY}, "margin"),
        ({"alpha": 0.0}, "alpha"),
        ({"alpha": math.nan}, "alpha"),
        ({"min_effect": -0.1}, "min_effect"),
        ({"margin": math.nan}, "margin"),
        ({"bootstrap": 100}, "2000"),
    ],
)
def test_a_wrong_policy_is_refused(fields: dict[str, Any], said: str) -> None:
    """A policy that cannot be meant is refused with the name of the field."""
    with pytest.raises(InvalidSpecError, match=said):
        GatePolicy(**fields)


@given(st.floats(0.001, 0.2))
def test_the_parts_of_all_attempts_sum_to_alpha(alpha: float) -> None:
    """However many challengers a champion meets, the chance to promote a worthless one stays below alpha."""
    policy = GatePolicy(alpha=alpha)
    parts = [policy.alpha_of(attempt) for attempt in range(1, 3000)]
    assert parts == sorted(parts, reverse=True)
    assert 0.99 * alpha < sum(parts) < alpha


def test_retraining_until_it_works_does_not_work() -> None:
    """Of 200 champions that each meet 30 worthless challengers, at most about alpha are replaced."""
    policy = GatePolicy(min_rows=100, min_positives=20)
    replaced = naive = 0
    for series in range(200):
        verdicts = [holdout(300, seed=1000 * series + turn) for turn in range(30)]
        replaced += any(decide(*scores, policy, attempt=k).decision.passed for k, scores in enumerate(verdicts, 1))
        naive += any(decide(*scores, policy).decision.passed for scores in verdicts)
    assert replaced <= 20  # binomial(200, 0.05): 20 or fewer with a chance of 0.999
    assert naive > 80, "without the schedule the gate would have held as well: this test shows nothing"


@given(
    labels=st.lists(st.integers(0, 1), min_size=1, max_size=30),
    metric=st.sampled_from(sorted(METRICS)),
    seed=st.integers(0, 99),
)
def test_any_scores_give_a_decision_that_travels(labels: list[int], metric: str, seed: int) -> None:
    """Whatever is scored, the answer is a decision with reasons that survives the way through JSON."""
    rng = np.random.default_rng(seed)
    policy = GatePolicy(metric=metric, min_rows=0, min_positives=0)
    found = decide(rng.random(len(labels)).round(1), rng.random(len(labels)).round(1), labels, policy)
    assert found.decision.reasons
    assert Evaluation.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False))) == found
