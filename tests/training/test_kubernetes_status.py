"""What a Job's own words and its pods mean, without a cluster."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.training.backends.kubernetes_job import CANCELLED
from airflow_mlops.training.backends.kubernetes_reasons import (
    culprit,
    failure_reason,
    warnings,
    why_failed,
    why_pending,
)
from airflow_mlops.training.backends.kubernetes_status import STATES, billed_seconds, job_status
from airflow_mlops.training.contract import FailureReason, JobState


def job(*conditions: tuple[str, str], cancelled: bool = False, suspend: bool = False, ready: int = 0) -> dict[str, Any]:
    """Return a Job with these true conditions and reasons."""
    found = [{"type": kind, "status": "True", "reason": reason} for kind, reason in conditions]
    notes = {CANCELLED: "true"} if cancelled else {}
    return {
        "metadata": {"name": "j", "annotations": notes},
        "spec": {"suspend": suspend},
        "status": {"conditions": found, "ready": ready, "active": 1},
    }


def pod(state: dict[str, Any], phase: str = "Failed", init: bool = False, **status: Any) -> dict[str, Any]:
    """Return a pod whose one interesting container is in *state*."""
    container = {"name": "fetch-0" if init else "main", "image": "train:1", "state": state}
    key = "initContainerStatuses" if init else "containerStatuses"
    return {"metadata": {"name": "p", "namespace": "n"}, "status": {"phase": phase, key: [container], **status}}


def ended(reason: str, code: int = 1, at: str = "2026-01-01T00:00:00Z") -> dict[str, Any]:
    """Return the state of a container that has ended."""
    return {"terminated": {"exitCode": code, "reason": reason, "finishedAt": at}}


@pytest.mark.parametrize(
    ("found", "state", "word"),
    [
        (job(), JobState.PENDING, "Pending"),
        (job(ready=1), JobState.RUNNING, "Running"),
        (job(suspend=True), JobState.PENDING, "Suspended"),
        (job(("SuccessCriteriaMet", "CompletionsReached")), JobState.RUNNING, "SuccessCriteriaMet"),
        (job(("FailureTarget", "BackoffLimitExceeded")), JobState.RUNNING, "FailureTarget"),
        (job(("Complete", "")), JobState.SUCCEEDED, "Complete"),
        (job(("Failed", "BackoffLimitExceeded")), JobState.FAILED, "BackoffLimitExceeded"),
        (job(("Failed", "DeadlineExceeded")), JobState.FAILED, "DeadlineExceeded"),
        (job(("Failed", "DeadlineExceeded"), cancelled=True), JobState.CANCELLED, "Cancelled"),
        (job(("Failed", "BackoffLimitExceeded"), cancelled=True), JobState.FAILED, "BackoffLimitExceeded"),
        (job(("Complete", ""), cancelled=True), JobState.SUCCEEDED, "Complete"),
        (job(("Failed", "PodFailurePolicy")), JobState.PREEMPTED, "PodFailurePolicy"),
        (job(("Failed", "SomethingNew")), JobState.FAILED, "Failed"),
        (job(("Failed", "Complete")), JobState.FAILED, "Failed"),
    ],
)
def test_words_of_a_job(found: dict[str, Any], state: JobState, word: str) -> None:
    """Each condition and reason has its state; a Job that is only about to end is not over."""
    status = job_status(found)
    assert (status.state, status.native) == (state, word)


def test_a_job_that_ran_too_long_says_so() -> None:
    """DeadlineExceeded is a timeout; why another Job failed is not in its own description."""
    assert job_status(job(("Failed", "DeadlineExceeded"))).reason is FailureReason.TIMEOUT
    assert job_status(job(("Failed", "BackoffLimitExceeded"))).reason is FailureReason.NONE


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["spec", "status", "conditions", "type", "ready"]), inner, max_size=3)
    ),
)


@given(st.dictionaries(st.sampled_from(["metadata", "spec", "status"]), json_values))
def test_an_odd_job_is_unknown_and_no_accident(found: dict[str, Any]) -> None:
    """Whatever a description looks like, there is a status, and it is never success by accident."""
    status = job_status(found)
    assert status.state is STATES.get(status.native, JobState.UNKNOWN)
    assert status.state is not JobState.SUCCEEDED


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (pod(ended("Error", 41)), FailureReason.USER_CODE),
        (pod(ended("OOMKilled", 137)), FailureReason.OUT_OF_MEMORY),
        (pod(ended("StartError", 128)), FailureReason.USER_CODE),
        (pod(ended("ContainerStatusUnknown", 137)), FailureReason.PLATFORM),
        (pod(ended("Error", 137), reason="NodeLost"), FailureReason.PLATFORM),
        (pod(ended("Error", 137), reason="Evicted"), FailureReason.PLATFORM),
        (pod(ended("Error", 143), conditions=[{"type": "DisruptionTarget", "status": "True"}]), FailureReason.PLATFORM),
        (pod(ended("Error", 255), init=True), FailureReason.PLATFORM),
        (pod(ended("NewWord", 1)), FailureReason.NONE),
        (pod({}), FailureReason.NONE),
    ],
)
def test_reasons_of_a_failure(found: dict[str, Any], reason: FailureReason) -> None:
    """The program's own exit code, memory, the node and the fetching of inputs are told apart."""
    assert failure_reason(found) is reason


def test_the_first_failure_counts() -> None:
    """Of many pods the one that failed first is to blame, not those that were ended because of it."""
    first, second = (
        pod(ended("OOMKilled", 137, "2026-01-01T00:00:01Z")),
        pod(ended("Error", 143, "2026-01-01T00:00:09Z")),
    )
    stopped = pod(ended("Error", 143, "2026-01-01T00:00:00Z"))
    stopped["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert culprit([stopped, second, first, pod({"running": {}}, "Running")]) is first
    assert culprit([stopped]) is stopped
    assert culprit([]) is None


def test_a_failure_tells_code_place_events_and_last_lines() -> None:
    """What a person needs is in one text."""
    event = {"type": "Warning", "reason": "BackOff", "message": "again"}
    text = why_failed(
        pod(ended("Error", 41)), "Traceback\nValueError", [event, {"type": "Normal", "reason": "Started"}]
    )
    assert text.startswith("exit code 41 (Error) of container 'main'; BackOff: again. Pod n/p.")
    assert text.endswith("Its last lines:\nTraceback\nValueError")


def test_why_a_pod_does_not_run() -> None:
    """No pod, no room, no image, no Secret, inputs on their way: each is told in the cluster's words."""
    quota = {"type": "Warning", "reason": "FailedCreate", "message": "exceeded quota: q"}
    assert "exceeded quota: q" in why_pending([], [quota])
    unplaced = pod(
        {},
        "Pending",
        conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3"}],
    )
    assert why_pending([unplaced], []) == "Unschedulable: 0/3"
    waiting = pod({"waiting": {"reason": "ImagePullBackOff", "message": "Back-off"}}, "Pending")
    assert "image 'train:1' cannot be pulled" in why_pending([waiting], [])
    missing = pod({"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "s" not found'}}, "Pending")
    assert why_pending([missing], []) == 'CreateContainerConfigError: secret "s" not found'
    assert "fetched" in why_pending([pod({"running": {}}, "Pending", init=True)], [])
    assert why_pending([pod({"waiting": {"reason": "ContainerCreating"}}, "Pending")], []) == ""


def test_only_the_last_warnings_are_told_and_each_once() -> None:
    """A pod that failed to start for hours does not fill the message."""
    events = [{"type": "Warning", "reason": "W", "message": str(n % 5), "lastTimestamp": f"{n:02d}"} for n in range(20)]
    assert warnings(events) == ["W: 2", "W: 3", "W: 4"]


@pytest.mark.parametrize(
    ("status", "billed"),
    [
        ({}, None),
        ({"startTime": "2026-01-01T00:00:00Z"}, None),
        ({"startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:01:40Z"}, 300.0),
        ({"startTime": "2026-01-01T00:00:00Z", "ended": "Failed"}, 180.0),
        ({"startTime": "2026-01-01T00:00:00Z", "ended": "Suspended"}, 180.0),
        ({"startTime": "2026-01-01T00:00:00Z", "ended": "FailureTarget"}, None),
        ({"startTime": "2026-01-01T01:00:00Z", "ended": "Failed"}, 0.0),
        ({"ended": "Failed"}, None),
    ],
)
def test_what_is_billed(status: dict[str, str], billed: float | None) -> None:
    """From start to end of a Job times its three nodes; nothing before its end, and never less than nothing."""
    kind = status.pop("ended", "")
    ending = {"type": kind, "status": "True", "lastTransitionTime": "2026-01-01T00:01:00Z"}
    found = {"spec": {"completions": 3}, "status": {**status, "conditions": [ending] if kind else []}}
    assert billed_seconds(found) == billed
