"""The paired tests agree with other people's implementations, and their error rates are what they say."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from sklearn import metrics as sk

from airflow_mlops.evaluation.measures import compare, measure
from airflow_mlops.evaluation.policy import METRICS, GatePolicy
from airflow_mlops.evaluation.statistics import compare_auc, placements, resampled_means, tango_lower

Z = 1.6448536269514722


def scored(rows: int, seed: int = 0, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels and the probabilities of two models of the same quality whose errors are correlated."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(rows) < 0.4).astype(float)
    shared = labels + rng.normal(size=rows)
    new, old = (1 / (1 + np.exp(-(shared + noise * rng.normal(size=rows)))) for _ in range(2))
    return labels, new, old


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=4, max_size=60))
def test_the_area_is_sklearns(rows: list[tuple[bool, int]]) -> None:
    """The mean placement is scikit-learn's area under the curve, with ties."""
    labels = np.array([1.0, 0.0, *(float(label) for label, _ in rows)])
    scores = np.array([3.0, 3.0, *(float(score) for _, score in rows)])
    above, below = placements(labels, scores)
    assert above.mean() == pytest.approx(sk.roc_auc_score(labels, scores))
    assert below.mean() == pytest.approx(above.mean())


@pytest.mark.parametrize(
    ("metric", "reference"),
    [
        ("accuracy", lambda y, s: sk.accuracy_score(y, s >= 0.5)),
        ("log_loss", sk.log_loss),
        ("brier", sk.brier_score_loss),
        ("rmse", sk.root_mean_squared_error),
        ("mae", sk.mean_absolute_error),
        ("roc_auc", sk.roc_auc_score),
    ],
)
def test_every_metric_is_sklearns(metric: str, reference: object) -> None:
    """Values are those of scikit-learn, alone and in a comparison, and inside their own interval."""
    labels, new, old = scored(700)
    policy = GatePolicy(metric=metric)
    alone, both = measure(metric, labels, new, policy), compare(labels, new, old, policy, alpha=0.05)
    assert alone.value == pytest.approx(reference(labels, new))  # type: ignore[operator]
    assert (both.challenger.value, both.champion.value) == pytest.approx((alone.value, reference(labels, old)))  # type: ignore[operator]
    assert both.challenger.low < alone.value < both.challenger.high
    sign = 1 if METRICS[metric].higher else -1
    assert both.gain == pytest.approx(sign * (both.challenger.value - both.champion.value))


def test_delong_is_the_jackknife_of_the_area() -> None:
    """DeLong's error of the gain is that of a bootstrap of whole rows, within the bootstrap's own noise."""
    labels, new, old = scored(600, seed=3)
    found = compare_auc(labels, new, old, 0.05)
    rng = np.random.default_rng(1)
    gains = []
    for _ in range(1500):
        rows = rng.integers(0, len(labels), len(labels))
        gains.append(np.subtract(*(placements(labels[rows], scores[rows])[0].mean() for scores in (new, old))))
    assert (found.gain - found.gain_low) / Z == pytest.approx(np.std(gains), rel=0.08)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 400))
def test_the_accuracy_bound_is_mcnemars_test(won: int, lost: int, rest: int) -> None:
    """Tango's bound is above 0 exactly when McNemar's one-sided score test rejects."""
    if won == lost == 0:
        return
    statistic = (won - lost) / np.sqrt(won + lost)
    if abs(statistic - Z) > 1e-6:
        assert (tango_lower(won, lost, won + lost + rest, Z) > 1e-12) == (statistic > Z)


@pytest.mark.parametrize(("won", "lost", "rows"), [(0, 1, 44), (12, 5, 300), (40, 40, 200), (3, 0, 50)])
def test_the_accuracy_bound_solves_tangos_equation(won: int, lost: int, rows: int) -> None:
    """At the bound the score statistic, with the likeliest shares found numerically, is the quantile of the level."""
    low = tango_lower(won, lost, rows, Z)

    def unlikely(share: float) -> float:
        chances = np.clip([share + low, share, 1 - 2 * share - low], 1e-300, 1)
        return -float(np.dot([won, lost, rows - won - lost], np.log(chances)))

    bounds = (max(0.0, -low), (1 - low) / 2)
    share = optimize.minimize_scalar(unlikely, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
    spread = rows * (2 * share + low - low * low)
    assert (won - lost - rows * low) / np.sqrt(spread) == pytest.approx(Z, rel=1e-3)


def test_the_bootstrap_of_a_mean_is_scipys() -> None:
    """The spread of resampled means is that of scipy's bootstrap, with and without pooling into groups."""
    for rows in (300, 50_000):
        values = np.random.default_rng(rows).exponential(size=rows)
        spread = resampled_means(values[:, None], 4000)[:, 0].std()
        assert spread == pytest.approx(stats.sem(values), rel=0.05)


@pytest.mark.parametrize("metric", ["roc_auc", "accuracy", "log_loss", "brier"])
def test_a_challenger_that_is_no_better_is_refused(metric: str) -> None:
    """Of 600 challengers exactly as good as the champion, about alpha (and no more) pass."""
    policy = GatePolicy(metric=metric, alpha=0.05)
    wins = sum(compare(*scored(400, seed), policy, alpha=0.05).gain_low > 0 for seed in range(600))
    assert wins <= stats.binom.ppf(0.999, 600, 0.05)
    assert wins >= stats.binom.ppf(0.001, 600, 0.05), "the test has no power left"


@pytest.mark.parametrize("metric", list(METRICS))
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_same_model_gains_nothing(metric: str, seed: int) -> None:
    """Two models with the same scores have a gain of 0, whose lower bound is never above 0."""
    labels, new, _ = scored(200, seed)
    found = compare(labels, new, new.copy(), GatePolicy(metric=metric), alpha=0.05)
    assert found.gain == 0
    assert found.gain_low <= 1e-12


@pytest.mark.parametrize("metric", list(METRICS))
def test_swapping_the_models_turns_the_gain_round(metric: str) -> None:
    """The gain of A over B is the loss of B over A, and both bounds are below their gain."""
    labels, new, old = scored(500, seed=5)
    policy = GatePolicy(metric=metric)
    one, other = compare(labels, new, old, policy, alpha=0.05), compare(labels, old, new, policy, alpha=0.05)
    assert one.gain == pytest.approx(-other.gain)
    assert one.gain_low < one.gain
    assert other.gain_low < other.gain


@pytest.mark.parametrize("metric", ["roc_auc", "accuracy", "log_loss"])
def test_a_million_rows_are_compared_in_seconds(metric: str) -> None:
    """A million rows take less than ten seconds of one core."""
    labels, new, old = scored(1_000_000)
    began = time.process_time()
    compare(labels, new, old, GatePolicy(metric=metric), alpha=0.05)
    assert time.process_time() - began < 10
