"""What a run of Kubeflow Pipelines says, in our words. Pure; an unknown word is UNKNOWN, never success.

Words: ``RuntimeState`` of https://www.kubeflow.org/docs/components/pipelines/reference/api/kubeflow-pipeline-api-spec/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from airflow_mlops.training.contract import FailureReason, JobState, JobStatus
from airflow_mlops.training.pipelines.compiled import task_names

STATES = {
    "PENDING": JobState.PENDING,
    "RUNNING": JobState.RUNNING,
    "CANCELING": JobState.RUNNING,
    "PAUSED": JobState.PENDING,  # it can be resumed
    "SUCCEEDED": JobState.SUCCEEDED,
    "SKIPPED": JobState.FAILED,  # nothing of it was executed
    "FAILED": JobState.FAILED,
    "CANCELED": JobState.CANCELLED,
    "RUNTIME_STATE_UNSPECIFIED": JobState.UNKNOWN,
}

CAN_END = ("PENDING", "RUNNING", "PAUSED", "RUNTIME_STATE_UNSPECIFIED", "")
"""In which a run can be terminated; the server refuses it in all others."""

REASONS = {
    "OOMKilled": FailureReason.OUT_OF_MEMORY,
    "exceeded quota": FailureReason.QUOTA,
    "exit code": FailureReason.USER_CODE,
}
"""Words of Kubernetes and Argo in what a task says, and the kind of failure they tell of; the first that is found."""

_MACHINERY = ("root", "executor")
"""Nodes of the workflow that are no tasks of the pipeline."""


def status_of(run: Mapping[str, Any]) -> JobStatus:
    """Return what a run is doing."""
    native = str(run.get("state", ""))
    state = STATES.get(native, JobState.UNKNOWN)
    if state is JobState.FAILED and _was_cancelled(run):
        state = JobState.CANCELLED
    if state is not JobState.FAILED:
        return JobStatus(state, native, _message(run) if state is JobState.UNKNOWN else "")
    detail = failure(run)
    return JobStatus(state, native, detail, reason=_reason(detail))


def _was_cancelled(run: Mapping[str, Any]) -> bool:
    """Say whether it was told to end: the server then reports CANCELING first and FAILED in the end."""
    return any(moment.get("state") == "CANCELING" for moment in run.get("state_history", ()))


def _reason(detail: str) -> FailureReason:
    return next((reason for word, reason in REASONS.items() if word in detail), FailureReason.NONE)


def failure(run: Mapping[str, Any]) -> str:
    """Return which tasks failed and what they say, a line each, and what the run itself says."""
    if run.get("state") == "SKIPPED":
        return "The platform skipped the run: nothing of it was executed."
    failed = [task for task in tasks(run) if task.get("state") == "FAILED"]
    lines = [f"Task {task.get('display_name', '')!r} failed: {_message(task) or 'see its log.'}" for task in failed]
    if own := _message(run):
        lines.append(own)
    return "\n".join(dict.fromkeys(lines)) or "The platform does not say which task failed. See the run's page."


def tasks(run: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the tasks of the pipeline among the nodes of the workflow, or all nodes when none can be told apart."""
    nodes = list(run.get("run_details", {}).get("task_details", ()))
    known = task_names(run.get("pipeline_spec") or {})
    named = [node for node in nodes if node.get("display_name") in known]
    if named and (run.get("state") != "FAILED" or any(node.get("state") == "FAILED" for node in named)):
        return iter(named)
    return (node for node in nodes if node.get("display_name") not in _MACHINERY)


def _message(thing: Mapping[str, Any]) -> str:
    """Return what a run or task says of its error: its own, or the last in its history."""
    moments = [thing, *reversed(list(thing.get("state_history", ())))]
    return next((text for moment in moments if (text := str((moment.get("error") or {}).get("message", "")))), "")
