"""What a job of Vertex AI says, in our words. Pure; an unknown word is UNKNOWN, never success.

States: https://cloud.google.com/vertex-ai/docs/reference/rest/v1/JobState and
https://cloud.google.com/vertex-ai/docs/reference/rest/v1/PipelineState. Codes: https://cloud.google.com/apis/design/errors
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from airflow_mlops.training.contract import FailureReason, JobState, JobStatus

Json = Mapping[str, Any]

STATES = {
    "JOB_STATE_UNSPECIFIED": JobState.UNKNOWN,
    "JOB_STATE_QUEUED": JobState.PENDING,
    "JOB_STATE_PENDING": JobState.PENDING,
    "JOB_STATE_RUNNING": JobState.RUNNING,
    "JOB_STATE_SUCCEEDED": JobState.SUCCEEDED,
    "JOB_STATE_FAILED": JobState.FAILED,
    "JOB_STATE_CANCELLING": JobState.RUNNING,  # it may still end in any way
    "JOB_STATE_CANCELLED": JobState.CANCELLED,
    "JOB_STATE_PAUSED": JobState.PENDING,  # it can be resumed
    "JOB_STATE_EXPIRED": JobState.FAILED,
    "JOB_STATE_UPDATING": JobState.RUNNING,  # only running jobs are updated
    "JOB_STATE_PARTIALLY_SUCCEEDED": JobState.FAILED,  # results may be missing
    "PIPELINE_STATE_UNSPECIFIED": JobState.UNKNOWN,
    "PIPELINE_STATE_QUEUED": JobState.PENDING,
    "PIPELINE_STATE_PENDING": JobState.PENDING,
    "PIPELINE_STATE_RUNNING": JobState.RUNNING,
    "PIPELINE_STATE_SUCCEEDED": JobState.SUCCEEDED,
    "PIPELINE_STATE_FAILED": JobState.FAILED,
    "PIPELINE_STATE_CANCELLING": JobState.RUNNING,
    "PIPELINE_STATE_CANCELLED": JobState.CANCELLED,
    "PIPELINE_STATE_PAUSED": JobState.PENDING,
}
"""The words for a custom job and for a pipeline job."""

ENDED = ("SUCCEEDED", "FAILED", "CANCELLED")
"""Ends of the words of jobs that a listing leaves out: they are asked for one by one, once."""

PREEMPTED = ("preempt", "stockout", "resources are insufficient")
"""Words in the error of a failed SPOT job that mean its machines were taken away, or could not be had.

The API has no state and no code for it.
"""

WORDS = {
    "out-of-memory": FailureReason.OUT_OF_MEMORY,
    "out of memory": FailureReason.OUT_OF_MEMORY,
    "low on memory": FailureReason.OUT_OF_MEMORY,
    "oomkilled": FailureReason.OUT_OF_MEMORY,
    "non-zero status": FailureReason.USER_CODE,
    "stockout": FailureReason.PLATFORM,
    "resources are insufficient": FailureReason.PLATFORM,
}
"""Words in a job's error and what kind of failure they tell of. The first that is found goes before the code."""

CODES = {
    0: FailureReason.NONE,  # OK: no code
    1: FailureReason.NONE,  # CANCELLED
    2: FailureReason.NONE,  # UNKNOWN
    3: FailureReason.USER_CODE,  # INVALID_ARGUMENT: also what a program's own error is reported as
    4: FailureReason.TIMEOUT,  # DEADLINE_EXCEEDED
    5: FailureReason.USER_CODE,  # NOT_FOUND: such as an image that does not exist
    6: FailureReason.NONE,  # ALREADY_EXISTS
    7: FailureReason.USER_CODE,  # PERMISSION_DENIED: the job's account lacks a right
    8: FailureReason.QUOTA,  # RESOURCE_EXHAUSTED
    9: FailureReason.USER_CODE,  # FAILED_PRECONDITION
    10: FailureReason.PLATFORM,  # ABORTED
    11: FailureReason.USER_CODE,  # OUT_OF_RANGE
    12: FailureReason.USER_CODE,  # UNIMPLEMENTED
    13: FailureReason.PLATFORM,  # INTERNAL
    14: FailureReason.PLATFORM,  # UNAVAILABLE
    15: FailureReason.PLATFORM,  # DATA_LOSS
    16: FailureReason.USER_CODE,  # UNAUTHENTICATED
}
"""``google.rpc.Code`` of a job's error and what kind of failure it tells of."""


def status_of(job: Json) -> JobStatus:
    """Return the status of a job of either kind; one that cannot be read is UNKNOWN."""
    try:
        return _status(job)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return JobStatus(JobState.UNKNOWN, "unreadable", f"its description cannot be read: {error!r}")


def is_over(job: Json) -> bool:
    """Say whether a job has ended."""
    return status_of(job).state.terminal


def _status(job: Json) -> JobStatus:
    native, detail = str(job["state"]), _told(job)
    state, reason = STATES.get(native, JobState.UNKNOWN), FailureReason.NONE
    if native == "JOB_STATE_EXPIRED" or (state is JobState.CANCELLED and _used_up(job)):
        state, reason = JobState.FAILED, FailureReason.TIMEOUT
    elif state is JobState.FAILED:
        reason = next(filter(None, map(failure_reason, errors(job))), FailureReason.NONE)
        if _is_spot(job) and any(word in detail.lower() for word in PREEMPTED):
            state, reason = JobState.PREEMPTED, FailureReason.NONE
    return JobStatus(state, native, detail, reason=reason, billed_seconds=billed_seconds(job))


def failure_reason(error: Json) -> FailureReason:
    """Return what kind of failure a ``google.rpc.Status`` tells of."""
    told = str(error.get("message", "")).lower()
    by_word = next((reason for word, reason in WORDS.items() if word in told), None)
    return by_word or CODES.get(int(error.get("code") or 0), FailureReason.NONE)


def billed_seconds(job: Json) -> float | None:
    """Return for how long an ended custom job ran, all its nodes together: Vertex AI does not tell what it bills.

    It bills from when machines are provisioned, which is a little earlier, and in steps of 30 seconds:
    https://cloud.google.com/vertex-ai/pricing
    """
    ran, pools = _ran(job), (job.get("job_spec") or {}).get("worker_pool_specs")
    return None if ran is None or not pools else ran * sum(int(pool.get("replica_count") or 0) for pool in pools)


def _ran(job: Json) -> float | None:
    began, ended = job.get("start_time"), job.get("end_time")
    if not began or not ended:
        return None
    return (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds()


def _used_up(job: Json) -> bool:
    """Say whether it ran as long as it was allowed to: then Vertex AI ended it, whatever word it has for that."""
    allowed, ran = str(_scheduling(job).get("timeout") or ""), _ran(job)
    return bool(allowed) and ran is not None and ran >= float(allowed.removesuffix("s"))


def _is_spot(job: Json) -> bool:
    return _scheduling(job).get("strategy") == "SPOT"


def _scheduling(job: Json) -> Json:
    return (job.get("job_spec") or {}).get("scheduling") or {}


def _told(job: Json) -> str:
    return "\n".join(dict.fromkeys(str(error["message"]) for error in errors(job) if error.get("message")))


def errors(job: Json) -> list[Json]:
    """Return what went wrong: in the failed tasks of a pipeline, the last one first, and then in the job itself."""
    tasks = (job.get("job_detail") or {}).get("task_details") or []
    failed = [task.get("error") or {} for task in reversed(tasks) if task.get("state") == "FAILED"]
    return [*failed, job.get("error") or {}]
