"""What SageMaker says of a tuning job, in our words. Pure; an unknown word is UNKNOWN, never success.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeHyperParameterTuningJob.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from airflow_mlops.training.backends.sagemaker_status import failure_reason
from airflow_mlops.training.contract import FailureReason, JobState, JobStatus

STATES = {
    "InProgress": JobState.RUNNING,
    "Completed": JobState.SUCCEEDED,  # if a trial has a value
    "Failed": JobState.FAILED,
    "Stopping": JobState.RUNNING,  # its trials have 120 s to end
    "Stopped": JobState.CANCELLED,  # unless its time was up
    "Deleting": JobState.UNKNOWN,  # it will be gone
    "DeleteFailed": JobState.UNKNOWN,
}
"""``HyperParameterTuningJobStatus`` -> state."""

OVER = ("Completed", "RetryableError", "NonRetryableError", "Stopped")
"""Counters of trials that have ended."""


def search_status(job: Mapping[str, Any]) -> JobStatus:
    """Return the status of a search as ``DescribeHyperParameterTuningJob`` or a list tells it."""
    word, told = str(job.get("HyperParameterTuningJobStatus", "")), str(job.get("FailureReason", ""))
    state = STATES.get(word, JobState.UNKNOWN)
    if state is JobState.RUNNING:
        return JobStatus(state, word, progress=_progress(job))
    if word == "Stopped" and _is_late(job):
        told = f"The search ran longer than its max_runtime of {_limits(job)['MaxRuntimeInSeconds']} s."
        return JobStatus(JobState.FAILED, word, told, reason=FailureReason.TIMEOUT)
    if word == "Completed" and not (job.get("ObjectiveStatusCounters") or {}).get("Succeeded"):
        return JobStatus(JobState.FAILED, word, "The search ended and no trial has a value.")
    reason = failure_reason(told) if state is JobState.FAILED else FailureReason.NONE
    return JobStatus(state, word, told, reason=reason)


def explained(status: JobStatus, job: Mapping[str, Any], trials: Sequence[Mapping[str, Any]]) -> JobStatus:
    """Return the status of a failed search with what its trials say; all of them must agree on a kind of failure."""
    if status.reason is FailureReason.TIMEOUT:
        return status
    if failed := [trial for trial in trials if trial.get("FailureReason")]:
        reasons = {failure_reason(trial["FailureReason"]) for trial in failed}
        told = f"Trial {failed[0]['TrainingJobName']!r}: {failed[0]['FailureReason']}"
        reason = reasons.pop() if len(reasons) == 1 else FailureReason.NONE
        return replace(status, detail=f"{status.detail} {told}".strip(), reason=reason)
    config = job.get("HyperParameterTuningJobConfig") or {}
    metric = (config.get("HyperParameterTuningJobObjective") or {}).get("MetricName")
    hint = f"A trial ends well and reports the metric {metric!r} in MLOPS_OUTPUT; the image's 'train' runs MLOPS_START."
    return replace(status, detail=f"{status.detail} {hint}".strip())


def _limits(job: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the limits: a list has them elsewhere than a description."""
    return job.get("ResourceLimits") or (job.get("HyperParameterTuningJobConfig") or {}).get("ResourceLimits") or {}


def _progress(job: Mapping[str, Any]) -> float | None:
    counters, most = job.get("TrainingJobStatusCounters") or {}, _limits(job).get("MaxNumberOfTrainingJobs")
    return min(1.0, sum(counters.get(word, 0) for word in OVER) / most) if most else None


def _is_late(job: Mapping[str, Any]) -> bool:
    limit, end = _limits(job).get("MaxRuntimeInSeconds"), job.get("HyperParameterTuningEndTime")
    return bool(limit and end and end - job["CreationTime"] >= timedelta(seconds=limit))
