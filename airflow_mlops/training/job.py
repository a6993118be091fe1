"""Bring one task's job to its end: carry out the steps of :mod:`driver`, and write each one down first.

It may be killed anywhere and started again anywhere. It must never start a second job while the first may be alive.
It is the same for training jobs and pipeline runs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Generic, NoReturn

from airflow_mlops.core.errors import ConflictError, InvalidSpecError, MlopsError, PlatformUnavailableError
from airflow_mlops.core.identity import TaskIdentity, stable_name
from airflow_mlops.training.contract import HasLog, JobBackend, JobHandle, JobState, JobStatus
from airflow_mlops.training.driver import (
    Adopt,
    Collect,
    Fail,
    JobRecord,
    Phase,
    Rules,
    Start,
    Step,
    Submit,
    Wait,
    next_step,
)
from airflow_mlops.training.failed_work import with_failed_work
from airflow_mlops.training.launch import told_progress
from airflow_mlops.training.ports import Records, ResultT, SpecT, Tracking, summary

DEADLINE_MARGIN = 3600.0
"""Seconds for queueing, after which a job that its platform should have ended is stopped from here."""

STOP_PATIENCE = 300.0
"""Seconds a job has to be over after it was cancelled. Managed platforms give programs two minutes to end in peace."""

LOG_CHUNKS = 4
"""How many chunks of at most 1 MiB of the job's log are copied at one look."""

log = logging.getLogger(__name__)


@dataclass
class TrainingJob(Generic[SpecT, ResultT]):
    """The job of one task.

    :param spec: makes the spec of an attempt from its record
    :param say: takes the lines that the job printed
    :param rules: what the user allows
    :param limit: seconds a job may be active, from its submission on, whatever its spec says
    :param margin: seconds beyond ``max_runtime`` that the platform has for queueing
    """

    backend: JobBackend[SpecT, ResultT]
    records: Records
    owner: TaskIdentity
    generation: int
    spec: Callable[[JobRecord], SpecT]
    tracking: Tracking[SpecT, ResultT] | None = None
    say: Callable[[str], None] = log.info
    rules: Rules = field(default_factory=Rules)
    limit: float | None = None
    margin: float = DEADLINE_MARGIN

    def advance(self, *, entering: bool) -> JobRecord | ResultT:
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
            elif isinstance(step, Adopt):
                self.records.save(step.record)
            else:
                return self._conclude(step)

    def wait(
        self, found: JobRecord | ResultT, interval: float, *, patience: float | None = None
    ) -> JobRecord | ResultT:
        """Go on from *found* until there is a result, looking every *interval* seconds, at most *patience* seconds."""
        end = None if patience is None else time.monotonic() + patience
        while isinstance(found, JobRecord) and (end is None or time.monotonic() < end):
            time.sleep(interval)
            found = self.advance(entering=False)
        return found

    def kill(self) -> None:
        """Stop the job: first the cancel mark, so that the next try knows, then the order to the platform.

        The order is given also when the mark cannot be written: Airflow takes nothing more from a try that was cleared.
        """
        record = self.records.load()
        if record is None or record.phase is Phase.FAILED:
            return
        try:
            self.records.mark_cancelled(record.name)
        finally:
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
        status = self._look(handle) if handle else None
        if record is not None and handle and status:
            self.records.show(summary(record, handle, status))
        return next_step(
            record,
            status,
            generation=self.generation,
            entering=entering,
            now=time.time(),
            rules=self.rules,
        )

    def _handle(self, record: JobRecord) -> JobHandle | None:
        return record.job or self.backend.locate(record.name)

    def _look(self, handle: JobHandle) -> JobStatus | None:
        return self.backend.observe([handle]).get(handle)

    def _start(self, record: JobRecord, before: JobRecord | None) -> None:
        """Start the job of *record*, after the one *before* is certainly over."""
        if before is not None:
            ended = self._stop(before)
            record = with_failed_work(record, before, ended, spot=self.rules.spot)
            before = self._copy_log(before)
            if before.phase is not Phase.FAILED:
                self._close(before.run_id, ended.state if ended else JobState.CANCELLED)
        name = stable_name(self.owner, generation=record.generation, attempt=record.attempt)
        record = replace(record, name=name, checkpoint=record.checkpoint or name)
        self.records.save(record)
        self._submit(record)

    def _submit(self, record: JobRecord) -> None:
        spec, run_id = self.spec(record), ""
        if self.tracking is not None:
            spec, run_id = self.tracking.open(record.name, spec)
        try:
            handle = self.backend.submit(spec, name=record.name, owner=self.owner)
        except InvalidSpecError:
            self._close(run_id, JobState.FAILED)
            raise
        except ConflictError as error:
            self._fail(Fail(record, error, stop=True))
        self.records.save(
            replace(record, phase=Phase.SUBMITTED, job=handle, deadline=self._deadline(spec), run_id=run_id)
        )
        self.say(f"Job {handle.job_id} on {handle.backend}: {handle.console_url}")

    def _deadline(self, spec: SpecT) -> float | None:
        """Return when a job that was submitted now is stopped from here, in seconds since 1970."""
        limits = [] if spec.max_runtime is None else [spec.max_runtime + self.margin]
        limits += [] if self.limit is None else [self.limit]
        return time.time() + min(limits) if limits else None

    def _stop(self, record: JobRecord) -> JobStatus | None:
        """Cancel, wait until the platform says that it is over, and return how it ended."""
        handle = self._handle(record)
        end = time.monotonic() + STOP_PATIENCE
        while handle and (status := self._look(handle)):
            if status.state.terminal:
                return status
            self.backend.cancel(handle)
            if time.monotonic() > end:
                raise PlatformUnavailableError(
                    f"Job {record.name!r} is still {status.native!r} {STOP_PATIENCE:g} s after it was cancelled. "
                    "A new one is not started beside it. Try again later."
                )
            time.sleep(0.2)
        return None

    def _conclude(self, step: Wait | Collect | Fail) -> JobRecord | ResultT:
        if isinstance(step, Fail):
            self._fail(step)
        record = self._copy_log(step.record)
        if isinstance(step, Wait):
            return record
        result = self.backend.collect(step.job)
        if self.tracking is not None and record.run_id:
            result = self.tracking.complete(record.run_id, result)
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
        offset, progress = record.log_offset, record.progress
        for _ in range(LOG_CHUNKS):
            text, offset = self.backend.read_log(record.job, offset)
            if not text:
                break
            for line in text.splitlines():
                self.say(line)
                progress = told if (told := told_progress(line)) is not None else progress
        else:
            self.say(f"(The log goes on in {record.job.console_url}.)")
        if offset == record.log_offset:
            return record
        record = replace(record, log_offset=offset, progress=progress)
        self.records.save(record)
        return record
