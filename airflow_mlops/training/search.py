"""What a sweep knows and decides: its trials so far, whether to go on, which one is the best.

Pure. There is no database: everything follows from the search and the trials that are over. A failed trial is one
without a value, never one with a bad value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_mlops.core.errors import InvalidSpecError, JobFailedError, close_match
from airflow_mlops.core.records import Record
from airflow_mlops.training.search_space import Space, read_space
from airflow_mlops.training.words import Word


class Direction(Word):
    """Which value of the metric is better, in Optuna's words."""

    MAXIMIZE = "maximize"
    MINIMIZE = "minimize"


class Sampler(Word):
    """How parameter sets are chosen."""

    TPE = "tpe"
    """Near what was good so far (tree-structured Parzen estimator); at random until there are a few trials."""
    RANDOM = "random"
    GRID = "grid"
    """Every parameter set once, in an order that the seed shuffles. What is left over is not tried."""


@dataclass(frozen=True)
class Search:
    """What is searched for.

    :param metric: name of the metric that a trial reports
    :param seed: the same seed and the same trials so far lead to the same proposals
    :param initial: parameter sets that are tried before any other, for example those in use; what one leaves out is
        sampled
    """

    space: Space
    metric: str
    direction: Direction = Direction.MAXIMIZE
    sampler: Sampler = Sampler.TPE
    seed: int = 0
    initial: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def of(
        cls,
        space: Any,
        metric: str,
        *,
        direction: str = Direction.MAXIMIZE,
        sampler: str = Sampler.TPE,
        seed: int = 0,
        initial: Sequence[Mapping[str, Any]] = (),
    ) -> Search:
        """Return the search that plain values describe.

        :raises InvalidSpecError: one of them is wrong; the message names it
        """
        if not metric:
            raise InvalidSpecError("The search has no metric. Name the metric that every trial reports.")
        found = read_space(space)
        for wanted in initial:
            _check_initial(found, wanted)
        words = (Direction.of(direction), Sampler.of(sampler))
        return cls(found, metric, *words, seed=seed, initial=tuple(initial))


@dataclass(frozen=True)
class Trial(Record):
    """One parameter set that was tried.

    :param number: counts all trials of the sweep, from 0
    :param round: number of its round, from 1
    :param map_index: which of the mapped tasks of its round it was
    :param parameters: what the job was given, fixed ones too
    :param value: the metric; ``None`` when the trial failed
    :param why: of a failed trial, why it counts as failed
    :param run_id: its tracking run, if it has one
    """

    number: int
    round: int
    map_index: int
    parameters: Mapping[str, Any]
    value: float | None = None
    why: str = ""
    run_id: str = ""


@dataclass(frozen=True)
class SweepSummary(Record):
    """How a sweep ended.

    :param trials: all of them, in the order of their numbers
    """

    metric: str
    direction: Direction
    best: Trial
    finished: int
    failed: int
    run_id: str = ""
    trials: tuple[Trial, ...] = field(default=())


def read_trial(
    number: int, place: tuple[int, int], parameters: Mapping[str, Any], result: Any, *, metric: str
) -> Trial:
    """Return a trial from its training result as a dict, ``None`` for a job that brought none.

    :param place: its round and map index
    """
    if not isinstance(result, Mapping):
        return Trial(number, *place, parameters, why="its task brought no result")
    metrics, run_id = result.get("metrics") or {}, str(result.get("run_id") or "")
    if metric not in metrics:
        names = ", ".join(sorted(metrics)) or "none"
        why = f"it reported no metric {metric!r}: {close_match(metric, metrics)}It reported {names}"
        return Trial(number, *place, parameters, why=why, run_id=run_id)
    value = metrics[metric]
    if value is None or not math.isfinite(float(value)):
        return Trial(number, *place, parameters, why=f"its metric {metric!r} is {value!r}", run_id=run_id)
    return Trial(number, *place, parameters, value=float(value), run_id=run_id)


def require_enough(trials: Sequence[Trial], max_failed: float) -> None:
    """Return if the sweep can go on from *trials*.

    :param max_failed: largest share of trials that may fail, 0 to 1
    :raises JobFailedError: no trial finished at all, or more than that failed; with the first reasons
    """
    if not 0 <= max_failed <= 1:
        raise InvalidSpecError(f"max_failed is {max_failed!r}. It is a share from 0 to 1.")
    failed = [trial for trial in trials if trial.value is None]
    if not failed or (len(failed) < len(trials) and len(failed) <= max_failed * len(trials)):
        return
    what = "No trial finished" if len(failed) == len(trials) else "Too many trials failed"
    reasons = "; ".join(f"{trial.number} {dict(trial.parameters)!r}: {trial.why}" for trial in failed[:3])
    raise JobFailedError(
        f"{what}: {len(failed)} of {len(trials)} failed, allowed is a share of {max_failed}. {reasons}. "
        "Look at their logs, then clear them."
    )


def best_trial(trials: Sequence[Trial], direction: Direction) -> Trial:
    """Return the best finished trial, of equals the first."""
    finished = [trial for trial in trials if trial.value is not None]
    if not finished:
        raise JobFailedError("No trial finished, so there is no best one.")
    sign = -1 if direction is Direction.MAXIMIZE else 1
    return min(finished, key=lambda trial: (sign * (trial.value or 0.0), trial.number))


def summarise(metric: str, direction: Direction, trials: Sequence[Trial], run_id: str = "") -> SweepSummary:
    """Return how a sweep ended that has at least one finished trial."""
    failed = sum(trial.value is None for trial in trials)
    best = best_trial(trials, direction)
    return SweepSummary(metric, direction, best, len(trials) - failed, failed, run_id, tuple(trials))


def _check_initial(space: Space, wanted: Any) -> None:
    if not isinstance(wanted, Mapping):
        raise InvalidSpecError(f"An initial parameter set is {wanted!r}. It is a mapping of parameters to values.")
    for name, value in wanted.items():
        if name not in space:
            raise InvalidSpecError(f"The search space has no parameter {name!r}: {close_match(str(name), space)}")
        if value not in space[name]:
            raise InvalidSpecError(f"The initial value {value!r} of {name!r} is not in its search space.")
