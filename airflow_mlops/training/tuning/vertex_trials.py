"""What a search on Vertex AI says about itself and its trials, in our words. Pure.

States of a trial: https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.studies.trials#state.
A search has the states of all jobs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from airflow_mlops.training.backends.vertex_status import status_of
from airflow_mlops.training.contract import FailureReason, JobState, JobStatus
from airflow_mlops.training.search_space import Space
from airflow_mlops.training.tuning.contract import TunedTrial
from airflow_mlops.training.tuning.vertex_study import value_of

Json = Mapping[str, Any]

TRIAL_STATES = {
    "STATE_UNSPECIFIED": JobState.UNKNOWN,
    "REQUESTED": JobState.PENDING,
    "ACTIVE": JobState.RUNNING,
    "STOPPING": JobState.RUNNING,
    "SUCCEEDED": JobState.SUCCEEDED,
    "INFEASIBLE": JobState.FAILED,  # it ended without a final measurement
}


def search_status(job: Json) -> JobStatus:
    """Return the status of a search. One without a value has not succeeded, whatever Vertex AI calls it."""
    status = status_of(job)
    if not status.state.terminal or "study_spec" not in job:
        return status
    try:
        return replace(_ended(job, status), billed_seconds=billed_seconds(job))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return JobStatus(JobState.UNKNOWN, "unreadable", f"its trials cannot be read: {error!r}")


def trial_state(trial: Json) -> JobState:
    """Return the state of a trial."""
    return TRIAL_STATES.get(str(trial.get("state")), JobState.UNKNOWN)


def metric_of(job: Json) -> str:
    """Return the metric of a search."""
    return str(job["study_spec"]["metrics"][0]["metric_id"])


def value(trial: Json, metric: str) -> float | None:
    """Return the metric of a trial that ended well."""
    if trial_state(trial) is not JobState.SUCCEEDED:
        return None
    told = (trial.get("final_measurement") or {}).get("metrics") or []
    found = next((float(each["value"]) for each in told if each.get("metric_id") == metric), math.nan)
    return found if math.isfinite(found) else None


def tuned_trial(trial: Json, metric: str, space: Space) -> TunedTrial:
    """Return a trial with what it was given, typed as the space has it."""
    told = {each["parameter_id"]: each.get("value") for each in trial.get("parameters") or []}
    parameters = {name: value_of(space[name], given) for name, given in told.items() if name in space}
    return TunedTrial(str(trial["id"]), str(trial["state"]), parameters, value(trial, metric))


def billed_seconds(job: Json) -> float | None:
    """Return for how long the trials of an ended search ran, all nodes together; ``None`` if it does not tell."""
    found = [trial_seconds(trial, job) for trial in job.get("trials") or [] if trial.get("start_time")]
    known = [seconds for seconds in found if seconds is not None]
    return sum(known) if len(known) == len(found) else None


def trial_seconds(trial: Json, job: Json) -> float | None:
    """Return for how long a trial ran, all its nodes together. One that was stopped ran until its search ended."""
    began, ended = trial.get("start_time"), trial.get("end_time") or job.get("end_time")
    if not began or not ended:
        return None
    nodes = sum(int(pool.get("replica_count") or 0) for pool in job["trial_job_spec"]["worker_pool_specs"])
    return max(0.0, (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds()) * nodes


def first_failed(job: Json) -> Json | None:
    """Return the first trial that failed and has a job of its own, which tells why."""
    failed = (trial for trial in job.get("trials") or [] if trial_state(trial) is JobState.FAILED)
    return next((trial for trial in failed if trial.get("custom_job")), None)


def _ended(job: Json, status: JobStatus) -> JobStatus:
    metric = metric_of(job)
    has_value = any(value(trial, metric) is not None for trial in job.get("trials") or [])
    if status.state is JobState.CANCELLED and _used_up(job):
        status = replace(status, state=JobState.FAILED, reason=FailureReason.TIMEOUT)
    if has_value or status.state is JobState.CANCELLED:
        return status
    detail = f"{status.detail} No trial has a value of the metric {metric!r}.".strip()
    reason = FailureReason.USER_CODE if status.state is JobState.SUCCEEDED else status.reason
    return replace(status, state=JobState.FAILED, detail=detail, reason=reason)


def _used_up(job: Json) -> bool:
    """Say whether a search ran as long as it was allowed to."""
    longest = (job["study_spec"].get("study_stopping_config") or {}).get("maximum_runtime_constraint") or {}
    allowed, began, ended = longest.get("max_duration"), job.get("create_time"), job.get("end_time")
    if not allowed or not began or not ended:
        return False
    ran = (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds()
    return ran >= float(str(allowed).removesuffix("s"))
