"""Which computation belongs to which metric. One table; a metric that is not in it does not exist."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np  # noqa: TID253 - a leaf that computes; operators import it when they run

from airflow_mlops.evaluation.policy import Estimate, GatePolicy
from airflow_mlops.evaluation.statistics import (
    Comparison,
    Floats,
    compare_accuracy,
    compare_auc,
    compare_losses,
    estimate_auc,
    estimate_loss,
    estimate_share,
    placements,
)

_TINY = float(np.finfo(np.float64).eps)


def _log_loss(labels: Floats, scores: Floats) -> Floats:
    likely = np.clip(np.where(labels == 1, scores, 1 - scores), _TINY, 1.0)
    losses: Floats = -np.log(likely)
    return losses


def _squared(labels: Floats, scores: Floats) -> Floats:
    return (scores - labels) ** 2


def _absolute(labels: Floats, scores: Floats) -> Floats:
    return np.abs(scores - labels)


def _mean(means: Floats) -> Floats:
    return means


def _root(means: Floats) -> Floats:
    roots: Floats = np.sqrt(means)
    return roots


LOSSES: dict[str, tuple[Callable[[Floats, Floats], Floats], Callable[[Floats], Floats]]] = {
    "log_loss": (_log_loss, _mean),
    "brier": (_squared, _mean),
    "rmse": (_squared, _root),
    "mae": (_absolute, _mean),
}
"""Metric -> loss of each row, and what turns their mean into the metric."""


def measure(metric: str, labels: Floats, scores: Floats, policy: GatePolicy) -> Estimate:
    """Return one model's value with its 95 % interval."""
    if metric == "roc_auc":
        return estimate_auc(*placements(labels, scores))
    if metric == "accuracy":
        return estimate_share(_right(labels, scores, policy.threshold))
    loss, of_mean = LOSSES[metric]
    return estimate_loss(loss(labels, scores), resamples=policy.bootstrap, of_mean=of_mean)


def compare(labels: Floats, challenger: Floats, champion: Floats, policy: GatePolicy, *, alpha: float) -> Comparison:
    """Return both values of the policy's metric, and the gain with its one-sided lower bound at level ``1 - alpha``."""
    if policy.metric == "roc_auc":
        return compare_auc(labels, challenger, champion, alpha)
    if policy.metric == "accuracy":
        cut = policy.threshold
        return compare_accuracy(_right(labels, challenger, cut), _right(labels, champion, cut), alpha)
    loss, of_mean = LOSSES[policy.metric]
    new, old = loss(labels, challenger), loss(labels, champion)
    return compare_losses(new, old, alpha, resamples=policy.bootstrap, of_mean=of_mean)


def _right(labels: Floats, scores: Floats, threshold: float) -> Floats:
    right: Floats = ((scores >= threshold) == (labels == 1)).astype(np.float64)
    return right
