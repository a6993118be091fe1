"""What the promotion gate asks for, and what it found. Plain values: nothing here computes or acts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from airflow_mlops.core.decisions import GateDecision
from airflow_mlops.core.errors import InvalidSpecError, close_match
from airflow_mlops.core.records import Record


class Mode(StrEnum):
    """What the challenger has to show: that it is better, or that it is not worse by more than a margin."""

    SUPERIORITY = "superiority"
    NON_INFERIORITY = "non_inferiority"


@dataclass(frozen=True)
class Metric:
    """A figure of merit.

    :param binary: whether labels are 0 and 1 and scores are of the positive class; else both are numbers
    :param higher: whether more is better
    """

    binary: bool
    higher: bool


METRICS: Mapping[str, Metric] = {
    "roc_auc": Metric(binary=True, higher=True),
    "accuracy": Metric(binary=True, higher=True),
    "log_loss": Metric(binary=True, higher=False),
    "brier": Metric(binary=True, higher=False),
    "rmse": Metric(binary=False, higher=False),
    "mae": Metric(binary=False, higher=False),
}


@dataclass(frozen=True)
class GatePolicy(Record):
    """The rules of one gate.

    :param metric: one of ``METRICS``; floors may name further ones of the same kind
    :param mode: ``superiority`` or ``non_inferiority``
    :param min_effect: smallest gain worth a promotion, in units of the metric (superiority)
    :param margin: largest loss that is accepted, in units of the metric (non-inferiority)
    :param alpha: chance to promote a challenger that is not better, over all attempts on one champion together
    :param min_rows: rows below which the gate does not decide
    :param min_positives: rows of the rarer class below which the gate does not decide
    :param floors: metric -> the worst value that is accepted, whatever the champion does (a ceiling for losses)
    :param threshold: score from which on a row counts as positive, for ``accuracy``
    :param bootstrap: number of resamples, at least 2000
    """

    metric: str = "roc_auc"
    mode: Mode = Mode.SUPERIORITY
    min_effect: float = 0.0
    margin: float = 0.0
    alpha: float = 0.05
    min_rows: int = 500
    min_positives: int = 50
    floors: Mapping[str, float] = field(default_factory=dict)
    threshold: float = 0.5
    bootstrap: int = 2000

    def __post_init__(self) -> None:
        _require_metrics(self.metric, self.floors)
        if self.mode is Mode.NON_INFERIORITY and not self.margin > 0:
            raise InvalidSpecError(f"non_inferiority needs a margin above 0, got {self.margin!r}.")
        if not (0 < self.alpha < 0.5):
            raise InvalidSpecError(f"alpha is above 0 and below 0.5, got {self.alpha!r}. 0.05 is usual.")
        for name in ("min_effect", "margin", "min_rows", "min_positives"):
            if not getattr(self, name) >= 0:
                raise InvalidSpecError(f"{name} is not negative, got {getattr(self, name)!r}.")
        if self.bootstrap < 2000:
            raise InvalidSpecError(f"bootstrap is at least 2000 resamples, got {self.bootstrap!r}.")

    @property
    def binary(self) -> bool:
        """Whether the labels are two classes."""
        return METRICS[self.metric].binary

    def alpha_of(self, attempt: int) -> float:
        """Return the part of ``alpha`` that attempt number *attempt* (from 1) on the same champion may spend.

        ``alpha * 6 / (pi * attempt)**2``: the parts of all attempts, however many, sum to ``alpha``. Without this,
        retraining until it works promotes a worthless model sooner or later.
        """
        if attempt < 1:
            raise InvalidSpecError(f"Attempts are counted from 1, got {attempt!r}.")
        return self.alpha * 6 / (math.pi * attempt) ** 2


def _require_metrics(metric: str, floors: Mapping[str, float]) -> None:
    for name in (metric, *floors):
        if name not in METRICS:
            raise InvalidSpecError(
                f"No metric is called {name!r}: {close_match(name, METRICS)}Known: {', '.join(METRICS)}."
            )
        if METRICS[name].binary is not METRICS[metric].binary:
            raise InvalidSpecError(f"{name!r} and {metric!r} are for different kinds of models. Remove one of them.")


@dataclass(frozen=True)
class Estimate(Record):
    """A metric on the holdout with its 95 % confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Evaluation(Record):
    """What the gate found. Estimates are ``None`` where nothing was computed, and the gain where there is no champion.

    :param gain: how much better the challenger is, in units of the metric; negative when it is worse
    :param gain_low: lower end of the one-sided confidence interval of the gain at level ``1 - alpha``
    :param alpha: what this attempt was allowed to spend
    :param attempt: number of the attempt on this champion, from 1
    :param observed: metric -> value of the challenger, for the metric and all floors
    :param holdout_digest: digest of the data both were scored on
    """

    decision: GateDecision
    metric: str
    mode: Mode
    rows: int
    positives: int | None = None
    challenger: Estimate | None = None
    champion: Estimate | None = None
    gain: float | None = None
    gain_low: float | None = None
    alpha: float | None = None
    attempt: int = 1
    observed: Mapping[str, float] = field(default_factory=dict)
    holdout_digest: str = ""
    model_name: str = ""
    challenger_version: str = ""
    champion_version: str = ""
    evidence_digest: str = ""
    evidence_uri: str = ""
