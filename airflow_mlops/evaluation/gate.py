"""The champion/challenger gate: both were scored on the same rows, and this says whether the challenger may take over.

Pure: the same scores give the same answer. It fails closed, and it never says PASS where nothing was checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np  # noqa: TID253 - a leaf that computes; operators import it when they run

from airflow_mlops.core.decisions import GateDecision, Reason, Verdict
from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.evaluation.measures import compare, measure
from airflow_mlops.evaluation.policy import METRICS, Evaluation, GatePolicy, Mode
from airflow_mlops.evaluation.statistics import Comparison, Floats


def decide(
    champion_scores: Any, challenger_scores: Any, labels: Any, policy: GatePolicy, *, attempt: int = 1
) -> Evaluation:
    """Compare two models on the same rows.

    :param champion_scores: one number a row, or ``None`` when there is no champion yet: then only floors are checked
    :param challenger_scores: scores of the positive class, or predicted numbers
    :param labels: 0 and 1, or numbers
    :param attempt: how many challengers this champion has met, this one included
    :raises InvalidSpecError: lengths differ, or the labels do not fit the metric
    """
    rows = _Rows(
        _column("labels", labels),
        _column("challenger", challenger_scores),
        None if champion_scores is None else _column("champion", champion_scores),
    )
    _require_same_length(rows)
    _require_labels(rows.truth, policy)
    positives = int(rows.truth.sum()) if policy.binary else None
    base = Evaluation(
        GateDecision.of(_usable(rows, policy)), policy.metric, policy.mode, len(rows.truth), positives, attempt=attempt
    )
    return _measured(base, rows, policy) if base.decision.passed else base


class _Rows(NamedTuple):
    """The same rows: what was true and what each model said."""

    truth: Floats
    new: Floats
    old: Floats | None


def _measured(base: Evaluation, rows: _Rows, policy: GatePolicy) -> Evaluation:
    """Add the metrics and the reasons that rest on them."""
    own = measure(policy.metric, rows.truth, rows.new, policy)
    observed = {name: measure(name, rows.truth, rows.new, policy).value for name in policy.floors}
    observed[policy.metric] = own.value
    reasons = [*base.decision.reasons, *_floors(observed, policy)]
    if rows.old is None:
        decision = GateDecision.of([*reasons, _first(policy)])
        return replace(base, decision=decision, challenger=own, observed=observed)
    alpha = policy.alpha_of(base.attempt)
    found = compare(rows.truth, rows.new, rows.old, policy, alpha=alpha)
    return replace(
        base,
        decision=GateDecision.of([*reasons, *_better(found, policy, alpha)]),
        challenger=found.challenger,
        champion=found.champion,
        gain=found.gain,
        gain_low=found.gain_low,
        alpha=alpha,
        observed=observed,
    )


def _usable(rows: _Rows, policy: GatePolicy) -> Iterator[Reason]:
    """Say whether there is enough to decide on, before any metric is looked at."""
    yield from _enough(rows.truth, policy)
    yield from _sound("challenger", rows.new, policy)
    if rows.old is not None:
        yield from _sound("champion", rows.old, policy)


def _enough(truth: Floats, policy: GatePolicy) -> Iterator[Reason]:
    yield _at_least("rows", len(truth), max(policy.min_rows, 2), "rows in the holdout")
    if policy.binary:
        rarer = int(min(truth.sum(), len(truth) - truth.sum()))
        yield _at_least("positives", rarer, max(policy.min_positives, 2), "rows of the rarer class in the holdout")


def _at_least(rule: str, observed: int, required: int, what: str) -> Reason:
    enough = observed >= required
    message = f"{observed} {what}, {required} are needed{'' if enough else ' to decide anything'}."
    return Reason(rule, Verdict.PASS if enough else Verdict.INCONCLUSIVE, observed, required, message)


def _sound(who: str, scores: Floats, policy: GatePolicy) -> Iterator[Reason]:
    """Refuse scores that are no numbers, and for losses of probabilities those that are no probabilities."""
    bad = int((~np.isfinite(scores)).sum())
    if bad:
        yield Reason("scores", Verdict.FAIL, bad, 0, f"The {who} gave {bad} scores that are not finite numbers.")
    outside = int(((scores < 0) | (scores > 1)).sum())
    if outside and {"log_loss", "brier"} & {policy.metric, *policy.floors}:
        message = f"The {who} gave {outside} scores outside 0 to 1, which are no probabilities."
        yield Reason("probabilities", Verdict.FAIL, outside, 0, message)


def _floors(observed: dict[str, float], policy: GatePolicy) -> Iterator[Reason]:
    for name, worst in policy.floors.items():
        higher = METRICS[name].higher
        good = observed[name] >= worst if higher else observed[name] <= worst
        word = "least" if higher else "most"
        message = f"{name} of the challenger is {observed[name]:.4g}, at {word} {worst:.4g} is required."
        yield Reason(f"floor:{name}", Verdict.PASS if good else Verdict.FAIL, observed[name], worst, message)


def _first(policy: GatePolicy) -> Reason:
    if policy.floors:
        message = "There is no champion yet: only the floors were checked."
        return Reason("first_model", Verdict.PASS, None, None, message)
    message = "There is no champion yet and no floor was given, so nothing was checked. Give floors."
    return Reason("first_model", Verdict.INCONCLUSIVE, None, "floors", message)


def _better(found: Comparison, policy: GatePolicy, alpha: float) -> Iterator[Reason]:
    bound = 0.0 if policy.mode is Mode.SUPERIORITY else -policy.margin
    sure = found.gain_low > bound
    message = (
        f"The gain in {policy.metric} is {found.gain:+.4g} and with confidence {1 - alpha:.2%} "
        f"above {found.gain_low:+.4g}; that bound has to be above {bound:+.4g}."
    )
    yield Reason(policy.mode.value, Verdict.PASS if sure else Verdict.FAIL, found.gain_low, bound, message)
    if policy.mode is Mode.SUPERIORITY and policy.min_effect:
        large = found.gain >= policy.min_effect
        message = (
            f"The gain in {policy.metric} is {found.gain:+.4g}, at least {policy.min_effect:+.4g} is worth a change."
        )
        yield Reason("min_effect", Verdict.PASS if large else Verdict.FAIL, found.gain, policy.min_effect, message)


def _column(name: str, values: Any) -> Floats:
    try:
        found = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidSpecError(f"The {name} are not numbers: {error}. Say which label is positive_label.") from error
    if found.ndim != 1:
        raise InvalidSpecError(f"The {name} have shape {found.shape!r}. One number a row is needed.")
    return found


def _require_same_length(rows: _Rows) -> None:
    for name, scores in (("challenger", rows.new), ("champion", rows.old)):
        if scores is not None and len(scores) != len(rows.truth):
            raise InvalidSpecError(
                f"The {name} has {len(scores)} scores for {len(rows.truth)} labels. Score all rows of the same holdout."
            )


def _require_labels(truth: Floats, policy: GatePolicy) -> None:
    if not np.isfinite(truth).all():
        raise InvalidSpecError("The labels hold missing values. Remove such rows from the holdout.")
    if policy.binary and not np.isin(truth, (0.0, 1.0)).all():
        raise InvalidSpecError(
            f"{policy.metric!r} needs labels 0 and 1, got {np.unique(truth)[:5].tolist()!r}. "
            "Say which one is positive_label."
        )
