"""What the words of Azure Machine Learning mean, and its marks, without a workspace."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.training.backends.azureml_marks import LONGEST, read, written
from airflow_mlops.training.backends.azureml_status import STATES, billed_seconds, explained, job_status, told
from airflow_mlops.training.contract import FailureReason, JobState, JobStatus

WORDS = (
    "NotStarted",
    "Starting",
    "Provisioning",
    "Preparing",
    "Queued",
    "Running",
    "Finalizing",
    "CancelRequested",
    "Completed",
    "Failed",
    "Canceled",
    "NotResponding",
    "Paused",
    "Unknown",
    "Scheduled",
)
"""https://learn.microsoft.com/rest/api/azureml/jobs/get?view=rest-azureml-2024-10-01#jobstatus, and one of previews."""


def job(status: str = "Failed", timeout: str = "", nodes: int = 1) -> dict[str, Any]:
    """Return a job."""
    limits = {"limits": {"jobLimitsType": "Command", "timeout": timeout}} if timeout else {}
    return {"name": "j", "properties": {"status": status, "resources": {"instanceCount": nodes}, **limits}}


def details(message: str = "", code: str = "UserError", **fields: Any) -> dict[str, Any]:
    """Return what the run history says of a job that failed."""
    return {"error": {"error": {"code": code, "message": message, "details": []}}, **fields}


FAILED = JobStatus(JobState.FAILED, "Failed")
CANCELLED = JobStatus(JobState.CANCELLED, "Canceled")
TIMES = {"startTimeUtc": "2026-01-01T00:00:00.5+00:00", "endTimeUtc": "2026-01-01T00:05:01.5+00:00"}


@pytest.mark.parametrize("word", WORDS)
def test_every_word_of_the_platform_has_a_state(word: str) -> None:
    """The table has each word of the API; only Completed is success, and what may go on is not terminal."""
    found = job_status(job(word))
    assert found == JobStatus(STATES[word], word)
    assert (found.state is JobState.SUCCEEDED) == (word == "Completed")
    assert found.state.terminal == (word in ("Completed", "Failed", "Canceled"))


def test_the_table_has_no_word_of_its_own() -> None:
    """Every word in the table is one of the API's."""
    assert set(STATES) == set(WORDS)


@pytest.mark.parametrize("word", ["", "Exploded", "completed", None])
def test_an_unknown_word_is_unknown(word: Any) -> None:
    """A word that is not in the table is UNKNOWN, whatever it looks like."""
    assert job_status(job(word)).state is JobState.UNKNOWN


@pytest.mark.parametrize("found", [{}, {"properties": None}, {"properties": []}])
def test_a_job_that_cannot_be_read_is_unknown(found: dict[str, Any]) -> None:
    """One odd job is no accident of the look."""
    assert job_status(found).state is JobState.UNKNOWN


@pytest.mark.parametrize(
    ("told_by", "reason"),
    [
        (details("Execution failed. User process 'python' exited with status code 1."), FailureReason.USER_CODE),
        (details("Process exited with code 3", "SystemError"), FailureReason.USER_CODE),
        (details("An image could not be pulled", "UserError"), FailureReason.USER_CODE),
        (details("The node was lost", "ServiceError"), FailureReason.PLATFORM),
        (details("Something broke", "SystemError"), FailureReason.PLATFORM),
        (details("OutOfMemoryError: the container was OOMKilled"), FailureReason.OUT_OF_MEMORY),
        (details("The job exceeds the quota of 24 cores"), FailureReason.QUOTA),
        (details("Nobody knows", "Strange"), FailureReason.NONE),
        ({}, FailureReason.NONE),
    ],
)
def test_a_failure_has_its_kind(told_by: dict[str, Any], reason: FailureReason) -> None:
    """What a failure says decides whose fault it is; what says nothing is nobody's and is not tried again."""
    found = explained(job(), told_by, FAILED)
    assert (found.state, found.reason) == (JobState.FAILED, reason)


def test_nodes_that_were_taken_away_are_no_failure() -> None:
    """A job of low priority whose nodes were pre-empted is PREEMPTED."""
    text = "AzureMLCompute job failed. PreemptionError: Nodes of this job got pre-empted."
    assert explained(job(), details(text), FAILED).state is JobState.PREEMPTED


@pytest.mark.parametrize(
    ("timeout", "times", "state"),
    [
        ("PT301S", TIMES, JobState.FAILED),
        ("PT5M1S", TIMES, JobState.FAILED),
        ("PT302S", TIMES, JobState.CANCELLED),
        ("", TIMES, JobState.CANCELLED),
        ("PT1S", {}, JobState.CANCELLED),
        ("P1D", TIMES, JobState.CANCELLED),
    ],
)
def test_out_of_time_is_told_from_cancelled(timeout: str, times: dict[str, str], state: JobState) -> None:
    """A cancelled job that ran as long as it was allowed to was out of time; any other was cancelled by somebody."""
    found = explained(job("Canceled", timeout), times, CANCELLED)
    assert found.state is state
    assert (found.reason is FailureReason.TIMEOUT) == (state is JobState.FAILED)


def test_what_a_job_ran_counts_for_every_node() -> None:
    """The seconds from start to end, times the nodes; none where a time is missing."""
    assert billed_seconds(job(nodes=3), TIMES) == 903.0
    assert billed_seconds(job(), {"startTimeUtc": TIMES["startTimeUtc"], "endTimeUtc": None}) is None


def test_an_error_tells_its_parts() -> None:
    """Codes come from outer to inner; the text has the message and those of its details."""
    error = {"code": "UserError", "message": "a", "innerError": {"code": "Bad"}, "details": [{"message": "b"}]}
    assert told({"error": {"error": error}}) == (["UserError", "Bad"], "UserError: a\nb")


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=3000), max_size=5))
def test_marks_come_back_as_they_were(value: dict[str, str]) -> None:
    """What is written into properties is read back, and no property is longer than Azure takes."""
    properties = written("mlops.x", value)
    assert all(len(part) <= LONGEST for part in properties.values())
    assert read({"properties": {"properties": {**properties, "other": "1"}}}, "mlops.x") == value


@pytest.mark.parametrize("properties", [None, {}, {"mlops.x": "not json"}, {"mlops.x": "[1]"}])
def test_a_strangers_marks_are_none(properties: Any) -> None:
    """A job of somebody else says nothing."""
    assert read({"properties": {"properties": properties}}, "mlops.x") == {}
