"""What a job of Azure Machine Learning is doing, from its description and what its run history says. Pure.

Words: ``JobStatus`` of https://learn.microsoft.com/rest/api/azureml/jobs/get?view=rest-azureml-2024-10-01#jobstatus
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from airflow_mlops.training.contract import FailureReason, JobState, JobStatus

Json = dict[str, Any]

STATES = {
    "NotStarted": JobState.PENDING,
    "Starting": JobState.PENDING,
    "Provisioning": JobState.PENDING,
    "Preparing": JobState.PENDING,  # its environment is built
    "Queued": JobState.PENDING,
    "Scheduled": JobState.PENDING,  # a word of the preview versions of the API
    "Paused": JobState.PENDING,  # by a person, who can let it go on
    "Running": JobState.RUNNING,
    "Finalizing": JobState.RUNNING,  # its files are kept; it may still fail
    "CancelRequested": JobState.RUNNING,
    "Completed": JobState.SUCCEEDED,
    "Failed": JobState.FAILED,
    "Canceled": JobState.CANCELLED,
    "NotResponding": JobState.UNKNOWN,  # its heartbeat stopped; it may come back in any state
    "Unknown": JobState.UNKNOWN,
}
"""The platform's words and what they mean."""

PREEMPTED = ("PreemptionError", "got pre-empted")
"""What the error of a job says whose low-priority nodes were taken away and that was not queued again."""

REASONS = {
    "quota": FailureReason.QUOTA,
    "outofmemory": FailureReason.OUT_OF_MEMORY,
    "oomkilled": FailureReason.OUT_OF_MEMORY,
    "exit_codes": FailureReason.USER_CODE,
    "exited with status code": FailureReason.USER_CODE,
    "exited with code": FailureReason.USER_CODE,
}
"""Words in codes and messages of an error, in lower case, and the failure they tell of; the first that is found."""

CODES = {
    "UserError": FailureReason.USER_CODE,
    "ServiceError": FailureReason.PLATFORM,
    "SystemError": FailureReason.PLATFORM,
}
"""The outer code of an error: whose fault the platform takes it for."""

UNCLEAR = (JobState.FAILED, JobState.CANCELLED)
"""States of which the job's own description does not say enough."""

_DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?")


def job_status(job: Json) -> JobStatus:
    """Return the status of a job by its own description; one that cannot be read is UNKNOWN."""
    properties = job.get("properties")
    word = str(properties.get("status") or "") if isinstance(properties, dict) else ""
    return JobStatus(STATES.get(word, JobState.UNKNOWN), word or "unreadable")


def explained(job: Json, details: Mapping[str, Any], status: JobStatus) -> JobStatus:
    """Return the status of a job that failed or was cancelled, with why.

    The service cancels a job that ran for the whole of its ``limits.timeout``. Nothing but its times tells that apart
    from a person who cancels it.
    """
    status = replace(status, billed_seconds=billed_seconds(job, details))
    if status.state is JobState.CANCELLED:
        limit = _seconds(str(((job["properties"].get("limits") or {}).get("timeout")) or ""))
        ran = _ran(details)
        if limit is None or ran is None or ran < limit:
            return status
        detail = f"It ran {ran:.0f} s; its limit was {limit:.0f} s."
        return replace(status, state=JobState.FAILED, detail=detail, reason=FailureReason.TIMEOUT)
    codes, detail = told(details)
    if any(sign in detail for sign in PREEMPTED) or "PreemptionError" in codes:
        return replace(status, state=JobState.PREEMPTED, detail=detail)
    return replace(status, detail=detail, reason=_reason(codes, detail))


def billed_seconds(job: Json, details: Mapping[str, Any]) -> float | None:
    """Return the seconds that a job ran, times its nodes; ``None`` where the run history does not tell both its times.

    Azure tells no bill of one job. It bills a machine for as long as it is there, so a compute target costs more: its
    nodes idle before they are let go.
    """
    ran = _ran(details)
    nodes = (job["properties"].get("resources") or {}).get("instanceCount") or 1
    return None if ran is None else max(0.0, ran) * int(nodes)


def told(details: Mapping[str, Any]) -> tuple[list[str], str]:
    """Return the codes of an error, outer to inner, and what it says."""
    error = details.get("error") or {}
    root = error.get("error") or error
    codes, inner = [], root
    while isinstance(inner, Mapping):
        codes.append(str(inner.get("code") or ""))
        inner = inner.get("innerError")
    said = [str(root.get("message") or ""), *(str(one.get("message") or "") for one in root.get("details") or ())]
    detail = "\n".join(part for part in said if part)
    return [code for code in codes if code], f"{codes[0]}: {detail}" if detail else "The platform does not say why."


def _reason(codes: list[str], detail: str) -> FailureReason:
    text = " ".join([*codes, detail]).lower()
    for word, reason in REASONS.items():
        if word in text:
            return reason
    return next((CODES[code] for code in codes if code in CODES), FailureReason.NONE)


def _ran(details: Mapping[str, Any]) -> float | None:
    """Return the seconds from start to end, if the run history tells both."""
    try:
        began, ended = (datetime.fromisoformat(str(details[key])) for key in ("startTimeUtc", "endTimeUtc"))
        return (ended - began).total_seconds()
    except (KeyError, ValueError, TypeError):
        return None


def _seconds(duration: str) -> float | None:
    found = _DURATION.fullmatch(duration)
    if not duration or found is None:
        return None
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
