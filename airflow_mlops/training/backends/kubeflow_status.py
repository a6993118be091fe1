"""What a TrainJob is doing, from its own description alone. Pure, and the same for a look and for the stream.

The controller copies the end of the JobSet into the TrainJob: why a program failed, and whether a node was taken away,
only the Job and the pods below it know.

https://github.com/kubeflow/trainer/blob/v2.3.0/pkg/apis/trainer/v1alpha1/trainjob_types.go (conditions, ``jobsStatus``)
"""

from __future__ import annotations

from typing import Any

from airflow_mlops.training.backends.kubernetes_job import CANCELLED
from airflow_mlops.training.backends.kubernetes_status import FAILURES, condition
from airflow_mlops.training.contract import FailureReason, JobState, JobStatus

Json = dict[str, Any]

STATES = {
    "Created": JobState.PENDING,  # no pod of it is ready
    "Suspended": JobState.PENDING,  # by somebody else, for example a queue
    "Ready": JobState.RUNNING,  # all nodes run, or have ended well
    "Suspending": JobState.RUNNING,  # by us: its nodes are being ended
    "Deleting": JobState.RUNNING,  # with its pods; then it is gone
    "Cancelled": JobState.CANCELLED,  # by us, and the controller counts no active node
    "Complete": JobState.SUCCEEDED,
    "Failed": JobState.FAILED,  # FailedJobs and the like
    "DeadlineExceeded": JobState.FAILED,
    "TrainingRuntimeNotSupported": JobState.FAILED,
    "Preempted": JobState.PREEMPTED,  # the Job below failed because a node was taken away
}
"""The words for a TrainJob and what they mean: conditions, reasons of Failed, and six of our own."""

REASONS = {
    "DeadlineExceeded": FailureReason.TIMEOUT,
}
"""What kind of failure the TrainJob itself tells of. Of others only its pods can."""


def train_job_status(train_job: Json) -> JobStatus:
    """Return the status of a TrainJob; one that cannot be read is UNKNOWN."""
    try:
        word = train_job_word(train_job)
        reason = REASONS.get(word, FailureReason.NONE)
        return JobStatus(STATES[word], word, told(train_job), progress=_progress(train_job), reason=reason)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return JobStatus(JobState.UNKNOWN, "unreadable", f"its description cannot be read: {error!r}")


def train_job_word(train_job: Json) -> str:
    """Return the word of :data:`STATES` for a TrainJob. That it is preempted, it cannot tell."""
    if condition(train_job, "Complete"):
        return "Complete"
    if failed := condition(train_job, "Failed"):
        reason = failed.get("reason", "")
        return "Cancelled" if is_ours(train_job) else reason if STATES.get(reason) in FAILURES else "Failed"
    if train_job["metadata"].get("deletionTimestamp"):
        return "Deleting"
    if train_job["spec"].get("suspend"):
        if not is_ours(train_job):
            return "Suspended"
        is_told = bool(condition(train_job, "Suspended"))
        return "Cancelled" if is_told and not _count(train_job, "active") else "Suspending"
    return "Ready" if _count(train_job, "ready") + _count(train_job, "succeeded") else "Created"


def is_ours(train_job: Json) -> bool:
    """Say whether we ordered its end."""
    return CANCELLED in (train_job["metadata"].get("annotations") or {})


def is_over(train_job: Json) -> bool:
    """Say whether a TrainJob has ended by itself."""
    return bool(condition(train_job, "Complete") or condition(train_job, "Failed"))


def told(train_job: Json) -> str:
    """Return what the TrainJob says about its end, or an empty text."""
    failed = condition(train_job, "Failed")
    return ": ".join(part for part in (failed.get("reason"), failed.get("message")) if part)


def is_preempted(job: Json) -> bool:
    """Say whether the Job below failed because a node was taken away: by the rule of the runtime, with its words."""
    failed = condition(job, "Failed")
    return failed.get("reason") == "PodFailurePolicy" and "DisruptionTarget" in str(failed.get("message"))


def is_stopping(job: Json) -> bool:
    """Say whether the Job below makes no more pods: it is suspended, has ended or is being deleted."""
    ended = condition(job, "Complete") or condition(job, "Failed")
    return bool(job["spec"].get("suspend") or ended or job["metadata"].get("deletionTimestamp"))


def _count(train_job: Json, key: str) -> int:
    jobs = (train_job.get("status") or {}).get("jobsStatus") or []
    return sum(int(job.get(key) or 0) for job in jobs)


def _progress(train_job: Json) -> float | None:
    """Return the share done, if the program tells the Trainer (an alpha feature of it)."""
    percent = ((train_job.get("status") or {}).get("trainerStatus") or {}).get("progressPercentage")
    return None if percent is None else int(percent) / 100
