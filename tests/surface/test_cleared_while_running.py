"""A task that is cleared while it runs: what Airflow then says, and what it no longer takes."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time.comms import ErrorResponse

from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.operators.remote_job import generation, is_cleared
from airflow_mlops.training.backends.local import LocalBackend
from airflow_mlops.training.contract import JobState, TrainingSpec
from airflow_mlops.training.driver import JobRecord, Phase
from airflow_mlops.training.job import TrainingJob

OWNER = TaskIdentity("dag", "run", "train")


def gone(status_code: int = 404) -> AirflowRuntimeError:
    """Return what a worker gets from Airflow."""
    return AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"status_code": status_code}))


class Deaf:
    """Records of a try that was cleared: they can be read from memory, and no longer be written."""

    def __init__(self, record: JobRecord) -> None:
        self.record = record

    def load(self) -> JobRecord:
        return self.record

    def mark_cancelled(self, name: str) -> None:
        raise gone()


@pytest.mark.parametrize(
    ("max_tries", "try_number", "expected"),
    [(0, 1, 0), (2, 1, 2), (2, 3, 2), (1, 2, 1), (0, 2, 1), (2, 4, 3)],
)
def test_a_clear_is_seen_also_when_max_tries_did_not_grow(max_tries: int, try_number: int, expected: int) -> None:
    """A retry never raises the generation; a try beyond the last one does."""
    assert generation(SimpleNamespace(max_tries=max_tries, try_number=try_number)) == expected


def test_only_an_unknown_try_was_cleared() -> None:
    """An Airflow that has trouble has not cleared anything."""
    assert is_cleared(gone())
    assert not is_cleared(gone(500))
    assert not is_cleared(AirflowRuntimeError(ErrorResponse(error=ErrorType.GENERIC_ERROR)))


def test_the_job_is_stopped_although_the_mark_cannot_be_written(tmp_path: Path) -> None:
    """The order to the platform does not depend on Airflow."""
    backend = LocalBackend(tmp_path, grace=0.2)
    handle = backend.submit(TrainingSpec(("sleep", "60")), name="aml-cleared", owner=OWNER)
    records = Deaf(JobRecord("aml-cleared", Phase.SUBMITTED, 0, job=handle))
    job = TrainingJob(backend, records, OWNER, 0, lambda record: TrainingSpec(("true",)))
    with pytest.raises(AirflowRuntimeError):
        job.kill()
    while not (status := backend.observe([handle])[handle]).state.terminal:
        time.sleep(0.05)
    assert status.state is JobState.CANCELLED
