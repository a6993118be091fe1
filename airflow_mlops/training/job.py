"""Bring one task's training job to its end: carry out the steps of :mod:`driver`, and write each one down first.

It may be killed anywhere and started again anywhere. It must never start a second job while the first may be alive.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NoReturn, Protocol

from airflow_mlops.core.errors import InvalidSpecError, MlopsError, PlatformUnavailableError
from airflow_mlops.core.identity import TaskIdentity, stable_name
from airflow_mlops.training.contract import (
    HasLog,
    JobHandle,
    JobState,
    JobStatus,
    TrainingBackend,
    TrainingResult,
    TrainingSpec,
)
from airflow_mlops.training.driver import (
    MAX_PREEMPTIONS,
    Collect,
    Fail,
    JobRecord,
    Phase,
    Start,
    Step,
    Submit,
    Wait,
    next_step,
)
from airflow_mlops.training.launch import RUN_ID

DEADLINE_MARGIN = 3600.0
"""Seconds for queueing, after which a job that its platform should have ended is stopped from here."""

STOP_PATIENCE = 60.0
LOG_CHUNKS = 4
"""How many chunks of at most 1 MiB of the job's log are copied at one look."""

log = logging.getLogger(__name__)


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


class Tracking(Protocol):
    """Follows attempts in an experiment tracker."""

    def open(self, name: str, spec: TrainingSpec) -> TrainingSpec:
        """Return *spec* with what its program needs to report to the run of job *name*. Same name, same run."""
        ...

    def close(self, run_id: str, state: JobState) -> None:
        """End the run."""
        ...


@dataclass
class TrainingJob:
    """The job of one task.

    :param spec: the spec of an attempt, by its number
    :param say: takes the lines that the job printed
    """

    backend: TrainingBackend
    records: Records
    owner: TaskIdentity
    generation: int
    spec: Callable[[int], TrainingSpec]
    tracking: Tracking | None = None
    say: Callable[[str], None] = log.info
    max_preemptions: int = MAX_PREEMPTIONS
    margin: float = DEADLINE_MARGIN

    def advance(self, *, entering: bool) -> JobRecord | TrainingResult:
        """Go on as far as possible: return the record of a job to wait for, or the result.

        :param entering: whether a try begins
        :raises MlopsError: the job failed; the class says what the caller may do about it
        """
        while True:
            record = self.records.load()
            step = self._decide(record, entering)
            entering = False
            if isinstance(step, Start):
                self._start(step.record, before=record)
            elif isinstance(step, Submit):
                self._submit(step.record)
            else:
                return self._conclude(step)

    def wait(
        self, found: JobRecord | TrainingResult, interval: float, *, patience: float | None = None
    ) -> JobRecord | TrainingResult:
        """Go on from *found* until there is a result, looking every *interval* seconds, at most *patience* seconds."""
        end = None if patience is None else time.monotonic() + patience
        while isinstance(found, JobRecord) and (end is None or time.monotonic() < end):
            time.sleep(interval)
            found = self.advance(entering=False)
        return found

    def kill(self) -> None:
        """Stop the job: first the cancel mark, so that the next try knows, then the order to the platform."""
        record = self.records.load()
        if record is not None and record.phase is not Phase.FAILED:
            self.records.mark_cancelled(record.name)
            if handle := self._handle(record):
                self.backend.cancel(handle)

    def note_trigger_failure(self) -> int:
        """Count that waiting broke, and return how often it has."""
        record = self.records.load()
        if record is None:
            return 0
        record = replace(record, trigger_failures=record.trigger_failures + 1)
        self.records.save(record)
        return record.trigger_failures

    def _decide(self, record: JobRecord | None, entering: bool) -> Step:
        handle = None if record is None else self._handle(record)
        return next_step(
            record,
            self._look(handle) if handle else None,
            generation=self.generation,
            entering=entering,
            now=time.time(),
            max_preemptions=self.max_preemptions,
        )

    def _handle(self, record: JobRecord) -> JobHandle | None:
        return record.job or self.backend.locate(record.name)

    def _look(self, handle: JobHandle) -> JobStatus | None:
        return self.backend.observe([handle]).get(handle)

    def _start(self, record: JobRecord, before: JobRecord | None) -> None:
        """Start the job of *record*, after the one *before* is certainly over."""
        if before is not None:
            state = self._stop(before)
            if before.phase is not Phase.FAILED:
                self._close(before.run_id, state or JobState.CANCELLED)
        name = stable_name(self.owner, generation=record.generation, attempt=record.attempt)
        record = replace(record, name=name)
        self.records.save(record)
        self._submit(record)

    def _submit(self, record: JobRecord) -> None:
        spec = self.spec(record.attempt)
        if self.tracking is not None:
            spec = self.tracking.open(record.name, spec)
        run_id = spec.env.get(RUN_ID, "")
        try:
            handle = self.backend.submit(spec, name=record.name, owner=self.owner)
        except InvalidSpecError:
            self._close(run_id, JobState.FAILED)
            raise
        deadline = None if spec.max_runtime is None else time.time() + spec.max_runtime + self.margin
        self.records.save(replace(record, phase=Phase.SUBMITTED, job=handle, deadline=deadline, run_id=run_id))
        self.say(f"Job {handle.job_id} on {handle.backend}: {handle.console_url}")

    def _stop(self, record: JobRecord) -> JobState | None:
        """Cancel, wait until the platform says that it is over, and return how it ended."""
        handle = self._handle(record)
        end = time.monotonic() + STOP_PATIENCE
        while handle and (status := self._look(handle)):
            if status.state.terminal:
                return status.state
            self.backend.cancel(handle)
            if time.monotonic() > end:
                raise PlatformUnavailableError(
                    f"Job {record.name!r} is still {status.native!r} {STOP_PATIENCE:g} s after it was cancelled. "
                    "A new one is not started beside it. Try again later."
                )
            time.sleep(0.2)
        return None

    def _conclude(self, step: Wait | Collect | Fail) -> JobRecord | TrainingResult:
        if isinstance(step, Fail):
            self._fail(step)
        record = self._copy_log(step.record)
        if isinstance(step, Wait):
            return record
        result = self.backend.collect(step.job)
        if self.tracking is not None and record.run_id:
            self.tracking.close(record.run_id, JobState.SUCCEEDED)
        return result

    def _fail(self, step: Fail) -> NoReturn:
        if step.stop:
            self._stop(step.record)
        record = self._copy_log(step.record)
        self.records.save(replace(record, phase=Phase.FAILED))
        self._close(record.run_id, JobState.CANCELLED if record.cancelled else JobState.FAILED)
        raise step.error

    def _close(self, run_id: str, state: JobState) -> None:
        """End the run of a job that brought no result. What went wrong with the job matters more than this."""
        if self.tracking is None or not run_id:
            return
        try:
            self.tracking.close(run_id, state)
        except MlopsError as error:
            log.warning("The tracking run %s could not be ended: %s", run_id, error)

    def _copy_log(self, record: JobRecord) -> JobRecord:
        """Say what the job printed since the last look, and remember how far that is."""
        if not isinstance(self.backend, HasLog) or record.job is None:
            return record
        offset = record.log_offset
        for _ in range(LOG_CHUNKS):
            text, offset = self.backend.read_log(record.job, offset)
            if not text:
                break
            for line in text.splitlines():
                self.say(line)
        else:
            self.say(f"(The log goes on in {record.job.console_url}.)")
        if offset == record.log_offset:
            return record
        record = replace(record, log_offset=offset)
        self.records.save(record)
        return record
