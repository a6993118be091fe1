"""Which trial was the best: by the values that SageMaker read, and not only because SageMaker says so. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow_mlops.core.errors import JobFailedError
from airflow_mlops.training.search import Direction
from airflow_mlops.training.search_space import Space
from airflow_mlops.training.tuning.contract import TunedTrial
from airflow_mlops.training.tuning.sagemaker_space import values_of


def read_trial(summary: Mapping[str, Any], space: Space) -> TunedTrial:
    """Return a trial as ``ListTrainingJobsForHyperParameterTuningJob`` tells of it. Its value has seven digits."""
    state, told = summary["TrainingJobStatus"], summary.get("FinalHyperParameterTuningJobObjectiveMetric")
    has_value = told and state == "Completed" and summary.get("ObjectiveStatus") == "Succeeded"
    value = float(f"{told['Value']:.7g}") if told and has_value else None
    return TunedTrial(
        summary["TrainingJobName"], state, values_of(space, summary.get("TunedHyperParameters") or {}), value
    )


def best_of(job: Mapping[str, Any], trials: Sequence[TunedTrial]) -> TunedTrial:
    """Return the trial with the best value; of equal ones the one that SageMaker chose.

    :raises JobFailedError: no trial has a value, or SageMaker chose one with a worse value
    """
    name, chosen = job["HyperParameterTuningJobName"], (job.get("BestTrainingJob") or {}).get("TrainingJobName")
    kind = job["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]["Type"]
    sign = 1 if kind.lower() == Direction.MAXIMIZE else -1
    valued = [(sign * trial.value, trial.trial_id == chosen, trial) for trial in trials if trial.value is not None]
    if not valued:
        raise JobFailedError(f"The search {name!r} ended and none of its {len(trials)} trials has a value.")
    _, is_chosen, best = max(valued, key=lambda found: found[:2])
    worse = [trial for _, was_chosen, trial in valued if was_chosen and not is_chosen]
    if worse:
        raise JobFailedError(
            f"SageMaker calls trial {chosen!r} of {name!r} with {worse[0].value} the best, but {best.trial_id!r} has "
            f"{best.value}. Check the direction of the search."
        )
    return best
