"""What an execution of a SageMaker pipeline says, in our words. Pure; an unknown word is UNKNOWN, never success.

Words: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribePipelineExecution.html
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from airflow_mlops.training.backends.sagemaker_status import failure_reason
from airflow_mlops.training.contract import FailureReason, JobState, JobStatus

Json = dict[str, Any]

STATES = {
    "Executing": JobState.RUNNING,
    "Stopping": JobState.RUNNING,
    "Stopped": JobState.CANCELLED,
    "Succeeded": JobState.SUCCEEDED,
    "Failed": JobState.FAILED,
    "CompletedWithFailures": JobState.FAILED,  # some of its steps failed
}

WRAPPED = "ClientError: "
"""What a step puts before the reason of the job that it ran."""


def execution_status(told: Mapping[str, Any], steps: Iterable[Json] = ()) -> JobStatus:
    """Return the status of an execution, as ``DescribePipelineExecution`` or a list tells it.

    :param steps: its steps, if they were asked for
    """
    native = str(told.get("PipelineExecutionStatus", ""))
    state = STATES.get(native, JobState.UNKNOWN)
    own = str(told.get("FailureReason") or told.get("PipelineExecutionFailureReason") or "")
    if state is not JobState.FAILED:
        return JobStatus(state, native, own)
    failed = {str(step.get("StepName", "")): _reason(step) for step in steps if step.get("StepStatus") == "Failed"}
    lines = [f"Step {name!r} failed: {reason or 'see its job.'}" for name, reason in failed.items()]
    reasons = (found for text in (*failed.values(), own) if (found := failure_reason(text)) is not FailureReason.NONE)
    return JobStatus(state, native, "\n".join([*lines, own]).strip(), reason=next(reasons, FailureReason.NONE))


def outputs_of(steps: Iterable[Json]) -> dict[str, Any]:
    """Return what steps tell of what they made, as ``<step>.<what>``: jobs, models, values of Lambda and callbacks."""
    found: dict[str, Any] = {}
    for step in steps:
        for kind, told in (step.get("Metadata") or {}).items():
            name = f"{step['StepName']}.{kind}"
            if arn := told.get("Arn"):
                found[name] = arn
            for one in told.get("OutputParameters") or ():
                found[f"{step['StepName']}.{one['Name']}"] = one["Value"]
            if outcome := told.get("Outcome"):
                found[name] = outcome
    return found


def _reason(step: Mapping[str, Any]) -> str:
    text = str(step.get("FailureReason", ""))
    inner = text.removeprefix(WRAPPED)
    return inner if failure_reason(inner) is not FailureReason.NONE else text
