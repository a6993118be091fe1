"""What SageMaker says of a training job, in our words. Pure; an unknown word is UNKNOWN, never success.

Words: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeTrainingJob.html
Failures: https://docs.aws.amazon.com/sagemaker/latest/dg/model-train-storage-env-var-summary.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from airflow_mlops.training.contract import FailureReason, JobState, JobStatus

IN_PROGRESS = {
    "Starting": JobState.PENDING,
    "Pending": JobState.PENDING,  # waits for capacity
    "LaunchingMLInstances": JobState.PENDING,
    "PreparingTrainingStack": JobState.PENDING,
    "Downloading": JobState.PENDING,
    "DownloadingTrainingImage": JobState.PENDING,
    "Interrupted": JobState.PENDING,  # a spot machine was taken away: SageMaker waits for the next one itself
    "Restarting": JobState.PENDING,
    "Training": JobState.RUNNING,
    "Updating": JobState.RUNNING,
    "Uploading": JobState.RUNNING,
    "Stopping": JobState.RUNNING,
}
"""The secondary status of a job that is ``InProgress`` -> state."""

STOPPED = {
    "Stopped": JobState.CANCELLED,  # SageMaker says this only when somebody ordered it
    "MaxRuntimeExceeded": JobState.FAILED,
    "MaxWaitTimeExceeded": JobState.PREEMPTED,  # no spot machine stayed, or came, for long enough
    "Interrupted": JobState.PREEMPTED,
}
"""The secondary status of a job that is ``Stopped`` -> state."""

STATES = {
    "Completed": JobState.SUCCEEDED,
    "Failed": JobState.FAILED,
    "Stopping": JobState.RUNNING,  # it has 120 s to end, and then uploads
    "Deleting": JobState.UNKNOWN,  # it will be gone
}
"""The status of any other job -> state, whatever its secondary status."""

REASONS = (
    (
        r"exit code:? 137\b",
        FailureReason.OUT_OF_MEMORY,
    ),  # killed: nobody else kills the program of a job that is wanted
    (r"OutOfMemory|instance type with more memory", FailureReason.OUT_OF_MEMORY),
    (r"^AlgorithmError", FailureReason.USER_CODE),
    (r"^ClientError", FailureReason.USER_CODE),  # such as data, an image or a right of its role that is not there
    (r"^InternalServerError", FailureReason.PLATFORM),
    (r"^CapacityError", FailureReason.PLATFORM),
    (r"ResourceLimitExceeded", FailureReason.QUOTA),
)
"""What stands in ``FailureReason`` and the kind of failure it tells of; the first that matches."""


def job_status(job: Mapping[str, Any]) -> JobStatus:
    """Return the status of a job as ``DescribeTrainingJob`` or a list tells it."""
    status, detail = str(job.get("TrainingJobStatus", "")), str(job.get("SecondaryStatus", ""))
    state = state_of(status, detail)
    reason = FailureReason.NONE
    if state is JobState.FAILED:
        reason = FailureReason.TIMEOUT if detail == "MaxRuntimeExceeded" else failure_reason(told(job))
    native = status if detail in ("", status) else f"{status}/{detail}"
    return JobStatus(state, native, told(job), reason=reason, billed_seconds=billed_seconds(job))


def state_of(status: str, detail: str) -> JobState:
    """Return the state for a status and its secondary status."""
    if status == "InProgress":
        return IN_PROGRESS.get(detail, JobState.UNKNOWN)
    if status == "Stopped":
        return STOPPED.get(detail, JobState.UNKNOWN)
    return STATES.get(status, JobState.UNKNOWN)


def is_over(job: Mapping[str, Any]) -> bool:
    """Say whether a job has ended: SageMaker will not change it any more."""
    return job.get("TrainingJobStatus") in ("Completed", "Failed", "Stopped")


def failure_reason(text: str) -> FailureReason:
    """Return what kind of failure a ``FailureReason`` tells of."""
    return next((reason for sign, reason in REASONS if re.search(sign, text, re.IGNORECASE)), FailureReason.NONE)


def told(job: Mapping[str, Any]) -> str:
    """Return what the job says of its failure, or of what it is doing."""
    if reason := job.get("FailureReason"):
        return str(reason)
    steps = job.get("SecondaryStatusTransitions") or ()
    return str(steps[-1].get("StatusMessage", "")) if steps else ""


def billed_seconds(job: Mapping[str, Any]) -> float | None:
    """Return what is billed of all machines together; SageMaker tells it when the job is over."""
    return _of_all_nodes(job, "BillableTimeInSeconds")


def ran_seconds(job: Mapping[str, Any]) -> float | None:
    """Return how long all machines together ran; of a spot job less is billed."""
    return _of_all_nodes(job, "TrainingTimeInSeconds")


def _of_all_nodes(job: Mapping[str, Any], key: str) -> float | None:
    nodes = (job.get("ResourceConfig") or {}).get("InstanceCount", 1)
    return None if job.get(key) is None else float(job[key] * nodes)
