"""What a job needs from its surroundings: a memory that outlives workers, and perhaps an experiment tracker."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from airflow_mlops.core.records import Record
from airflow_mlops.training.contract import JobHandle, JobSpec, JobState, JobStatus
from airflow_mlops.training.driver import JobRecord

SpecT = TypeVar("SpecT", bound=JobSpec)
ResultT = TypeVar("ResultT", bound=Record)


class Records(Protocol):
    """Where one task's record is kept, across tries."""

    def load(self) -> JobRecord | None:
        """Return the record, or ``None`` before the first submission."""
        ...

    def save(self, record: JobRecord) -> None:
        """Keep *record* for ever. On return it is durable. ``cancelled`` is not taken from it."""
        ...

    def mark_cancelled(self, name: str) -> None:
        """Set the cancel mark of job *name*; from now on its record is loaded with ``cancelled``."""
        ...

    def show(self, summary: dict[str, Any]) -> None:
        """Let people see what the job is doing."""
        ...


class Tracking(Protocol[SpecT, ResultT]):
    """Follows attempts in an experiment tracker."""

    def open(self, name: str, spec: SpecT) -> tuple[SpecT, str]:
        """Return *spec* with what its program needs to report to its run, and the run. Same job name, same run."""
        ...

    def complete(self, run_id: str, result: ResultT) -> ResultT:
        """Return *result* with what the program told only to the run."""
        ...

    def close(self, run_id: str, state: JobState) -> None:
        """End the run."""
        ...


def summary(record: JobRecord, handle: JobHandle, status: JobStatus) -> dict[str, Any]:
    """Return what a person wants to know of a job at a glance."""
    return {
        "job": handle.job_id,
        "backend": handle.backend,
        "state": status.state.value,
        "native": status.native,
        "detail": status.detail,
        "progress": record.progress if status.progress is None else status.progress,
        "attempt": record.attempt,
        "preemptions": record.preemptions,
        "console_url": handle.console_url,
        "tracking_run": record.run_id,
    }
