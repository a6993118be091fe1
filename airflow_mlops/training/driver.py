"""What to do next about one training job: pure decisions, the same for blocking and deferred tasks.

A worker may be killed between any two steps. The record says how far it came, the platform says what is true; from
both follows one step. Nothing here acts, and nothing here depends on the number of the try.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from airflow_mlops.core.errors import (
    JobFailedError,
    JobTimeoutError,
    MlopsError,
    PlatformUnavailableError,
    PreemptedError,
)
from airflow_mlops.core.records import Record
from airflow_mlops.training.contract import JobHandle, JobState, JobStatus
from airflow_mlops.training.failures import FAILURES
from airflow_mlops.training.words import Word

MAX_PREEMPTIONS = 3
MAX_TRIGGER_FAILURES = 5


class Phase(StrEnum):
    """How far a worker came with a job."""

    INTENT = "intent"
    """Written before the submission: the job may exist."""
    SUBMITTED = "submitted"
    """Written after it: the job did exist."""
    FAILED = "failed"
    """Its end was reported as this task's failure. The next try starts a new job."""


class OnClear(Word):
    """What clearing a task means for the job it had."""

    RESTART = "restart"
    """Stop it and start from nothing."""
    RESUME = "resume"
    """Stop it and start a new one from its checkpoints."""
    REATTACH = "reattach"
    """Keep it if it runs or has succeeded."""

    @classmethod
    def called(cls) -> str:
        """Return the argument that it is given by."""
        return "on_clear"


@dataclass(frozen=True)
class Rules:
    """What the user allows.

    :param max_preemptions: how often a preempted job is started again on machines of the same kind
    :param spot: whether the spec asks for spot machines; then one last attempt runs on machines that stay
    """

    on_clear: OnClear = OnClear.RESTART
    max_preemptions: int = MAX_PREEMPTIONS
    spot: bool = False


@dataclass(frozen=True)
class JobRecord(Record):
    """What a task remembers about its job across tries.

    :param name: the job's stable name
    :param generation: changes when the task is cleared, not when it is retried
    :param attempt: our own count of resubmissions within one generation
    :param deadline: seconds since 1970 after which the job is stopped from here; ``None`` for never
    :param log_offset: byte up to which the job's log was copied into a task log
    :param cancelled: the cancel mark: a worker was told to stop this job
    :param preemptions: how often the platform took the machine away in this generation
    :param lost: how often the platform did not know a job it had accepted
    :param trigger_failures: how often waiting broke although the job went on
    :param checkpoint: name under which the checkpoints of this attempt and those it goes on from are kept
    :param on_demand: spot machines were taken away too often: from now on machines that stay
    :param progress: share done from 0 to 1 that the job last told
    :param failed_seconds: what the platform bills for the attempts of this generation that brought no result
    :param failed_spot_seconds: the same of attempts on spot machines, which are not in *failed_seconds*
    """

    name: str
    phase: Phase
    generation: int
    attempt: int = 0
    job: JobHandle | None = None
    run_id: str = ""
    deadline: float | None = None
    log_offset: int = 0
    cancelled: bool = False
    preemptions: int = 0
    lost: int = 0
    trigger_failures: int = 0
    checkpoint: str = ""
    on_demand: bool = False
    progress: float | None = None
    failed_seconds: float = 0.0
    failed_spot_seconds: float = 0.0


@dataclass(frozen=True)
class Start:
    """Make sure the job before is over, then start a new one. ``record`` carries the counts; name and job are new."""

    record: JobRecord


@dataclass(frozen=True)
class Submit:
    """Submit under the recorded name: the platform either has the job or starts it."""

    record: JobRecord


@dataclass(frozen=True)
class Adopt:
    """Take the recorded job over as this generation's own, and look again."""

    record: JobRecord


@dataclass(frozen=True)
class Wait:
    """The job is active: look again later."""

    record: JobRecord


@dataclass(frozen=True)
class Collect:
    """The job succeeded: fetch what it left behind."""

    record: JobRecord
    job: JobHandle


@dataclass(frozen=True)
class Fail:
    """Report *error*. The job is over, or ``stop`` it first."""

    record: JobRecord
    error: MlopsError
    stop: bool = False


Step = Start | Submit | Adopt | Wait | Collect | Fail


def next_step(
    record: JobRecord | None,
    status: JobStatus | None,
    *,
    generation: int,
    entering: bool,
    now: float,
    rules: Rules = Rules(),
) -> Step:
    """Return what to do next.

    :param record: what this task remembers; ``None`` before its first submission
    :param status: what the platform says now; ``None`` when it does not know the job
    :param entering: a try begins; false while the try that submitted or adopted the job goes on
    :param now: seconds since 1970
    """
    if record is None:
        return Start(JobRecord("", Phase.INTENT, generation))
    if record.generation != generation:
        return _cleared(record, status, generation, rules.on_clear)
    if entering and (record.cancelled or record.phase is Phase.FAILED or _was_stopped(status)):
        return Start(_again(record))
    if record.phase is Phase.INTENT or record.job is None:
        return Submit(record)
    if status is None or not status.state.terminal:
        return _gone(record) if status is None else _active(record, now)
    return _ended(record, record.job, status, rules)


def _cleared(record: JobRecord, status: JobStatus | None, generation: int, on_clear: OnClear) -> Step:
    keeps = status is not None and (not status.state.terminal or status.state is JobState.SUCCEEDED)
    if on_clear is OnClear.REATTACH and keeps and not record.cancelled:
        return Adopt(replace(record, generation=generation))
    kept = record.checkpoint if on_clear is OnClear.RESUME else ""
    return Start(JobRecord("", Phase.INTENT, generation, checkpoint=kept))


def _was_stopped(status: JobStatus | None) -> bool:
    """Return whether a job was stopped with the try before this one, which could not write that down."""
    return status is not None and status.state is JobState.CANCELLED


def _again(record: JobRecord) -> JobRecord:
    """Return the record of the next attempt: counts and checkpoints kept, everything about the old job forgotten."""
    return JobRecord(
        "",
        Phase.INTENT,
        record.generation,
        attempt=record.attempt + 1,
        preemptions=record.preemptions,
        lost=record.lost,
        checkpoint=record.checkpoint,
        on_demand=record.on_demand,
        failed_seconds=record.failed_seconds,
        failed_spot_seconds=record.failed_spot_seconds,
    )


def _gone(record: JobRecord) -> Step:
    if record.lost == 0 and not record.cancelled:
        return Start(replace(_again(record), lost=1))
    text = f"The platform no longer knows job {record.name!r}. Another try starts a new one."
    return Fail(record, PlatformUnavailableError(text))


def _active(record: JobRecord, now: float) -> Step:
    if record.cancelled:
        return Fail(record, _cancelled(record), stop=True)
    if record.deadline is None or now <= record.deadline:
        return Wait(record)
    text = (
        f"Job {record.name!r} was still active at its deadline and was stopped. Raise the task's execution_timeout, "
        "or max_runtime and deadline_margin, whichever was shorter."
    )
    return Fail(record, JobTimeoutError(text), stop=True)


def _ended(record: JobRecord, job: JobHandle, status: JobStatus, rules: Rules) -> Step:
    if status.state is JobState.SUCCEEDED:
        return Collect(record, job)
    if status.state is JobState.CANCELLED:
        return Fail(record, _cancelled(record))
    about = f"Job {record.name!r} is {status.state.value} ({status.native}): {status.detail}"
    if status.state is JobState.PREEMPTED:
        return _preempted(record, about, rules)
    error, advice = FAILURES[status.reason]
    return Fail(record, error(f"{about}\n{advice}".rstrip()))


def _preempted(record: JobRecord, about: str, rules: Rules) -> Step:
    again = replace(_again(record), preemptions=record.preemptions + 1)
    if record.preemptions < rules.max_preemptions:
        return Start(again)
    if rules.spot and not record.on_demand:
        return Start(replace(again, on_demand=True))
    return Fail(record, PreemptedError(f"{about}\nIt was preempted {again.preemptions} times."))


def _cancelled(record: JobRecord) -> JobFailedError:
    return JobFailedError(f"Job {record.name!r} was cancelled. Clear the task to start a new one.")
