"""What a Job is doing, from its own description alone. Pure, and the same for a look and for the stream.

Conditions and reasons: https://kubernetes.io/docs/concepts/workloads/controllers/job/#job-termination-and-cleanup
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from airflow_mlops.training.backends.kubernetes_job import CANCELLED
from airflow_mlops.training.contract import FailureReason, JobState, JobStatus

Json = dict[str, Any]

STATES = {
    "Suspended": JobState.PENDING,  # spec.suspend, for example by a queue
    "Pending": JobState.PENDING,  # no pod of it runs yet
    "Running": JobState.RUNNING,
    "SuccessCriteriaMet": JobState.RUNNING,  # it will be Complete when its last pod has ended
    "FailureTarget": JobState.RUNNING,  # it will be Failed when its last pod has ended
    "Complete": JobState.SUCCEEDED,
    "BackoffLimitExceeded": JobState.FAILED,  # a pod failed, and ours are not tried again by Kubernetes
    "DeadlineExceeded": JobState.FAILED,
    "Failed": JobState.FAILED,  # for a reason that is not in this table
    "Cancelled": JobState.CANCELLED,  # DeadlineExceeded after our cancel mark
    "PodFailurePolicy": JobState.PREEMPTED,  # our only rule that fails a Job is for pods that are taken away
}
"""The words for a Job and what they mean: conditions, the reason of the condition Failed, and three of our own."""

FAILURES = (JobState.FAILED, JobState.PREEMPTED)
"""States that a reason of the condition Failed can mean."""

REASONS = {"DeadlineExceeded": FailureReason.TIMEOUT}
"""What kind of failure the Job itself tells of. Of others only its pods can."""


def job_status(job: Json) -> JobStatus:
    """Return the status of a Job; one that cannot be read is UNKNOWN."""
    try:
        word = job_word(job)
        reason = REASONS.get(word, FailureReason.NONE)
        return JobStatus(STATES[word], word, told(job), reason=reason, billed_seconds=billed_seconds(job))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return JobStatus(JobState.UNKNOWN, "unreadable", f"its description cannot be read: {error!r}")


def job_word(job: Json) -> str:
    """Return the word of :data:`STATES` for a Job."""
    status = job.get("status") or {}
    if condition(job, "Complete"):
        return "Complete"
    if failed := condition(job, "Failed"):
        reason = failed.get("reason", "")
        is_ours = reason == "DeadlineExceeded" and CANCELLED in (job["metadata"].get("annotations") or {})
        return "Cancelled" if is_ours else reason if STATES.get(reason) in FAILURES else "Failed"
    if job["spec"].get("suspend"):
        return "Suspended"
    for ending in ("FailureTarget", "SuccessCriteriaMet"):
        if condition(job, ending):
            return ending
    return "Running" if int(status.get("ready") or 0) > 0 else "Pending"


def told(job: Json) -> str:
    """Return what the Job says about its end, or an empty text."""
    failed = condition(job, "Failed")
    return ": ".join(part for part in (failed.get("reason"), failed.get("message")) if part) if failed else ""


def condition(item: Json, kind: str, status: str = "True") -> Json:
    """Return the condition of this type of a Job or pod if it has this status, or an empty one."""
    found = (item.get("status") or {}).get("conditions") or []
    return next((one for one in found if one.get("type") == kind and one.get("status") == status), {})


def billed_seconds(job: Json) -> float | None:
    """Return the seconds from a Job's start to its end, times its nodes; ``None`` before its end.

    Kubernetes bills nothing; whoever pays for its nodes pays for these. A Job starts when its controller takes it on or
    when it is resumed: waiting for a node counts.
    """
    status = job.get("status") or {}
    ending = condition(job, "Failed") or condition(job, "Suspended")
    ended = status.get("completionTime") or ending.get("lastTransitionTime")
    if not status.get("startTime") or not ended:
        return None
    took = datetime.fromisoformat(ended) - datetime.fromisoformat(status["startTime"])
    return max(0.0, took.total_seconds()) * int(job["spec"].get("completions") or 1)


def is_over(job: Json) -> bool:
    """Say whether a Job has ended."""
    return bool(condition(job, "Complete") or condition(job, "Failed"))
