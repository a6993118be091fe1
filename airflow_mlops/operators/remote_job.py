"""A task that is one job of a platform: found again after a crash, watched without a worker, stopped with its task.

Only the way between Airflow and the job driver is here. It must never start or stop anything but through the driver.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType

from airflow_mlops.core.errors import MlopsError
from airflow_mlops.hooks.training import TaskRecords
from airflow_mlops.operators.base import MlopsOperator, task_identity
from airflow_mlops.training.contract import JobBackend
from airflow_mlops.training.driver import MAX_TRIGGER_FAILURES, JobRecord, OnClear, Rules
from airflow_mlops.training.job import DEADLINE_MARGIN, TrainingJob
from airflow_mlops.training.ports import Tracking
from airflow_mlops.triggers.training import TrainingJobTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["RemoteJobOperator"]

SETTLE = 1.0
"""Seconds a job has to end at once, before its task is deferred."""

KILL_BUDGET = 4.0
"""Seconds the cancellation has, before Airflow kills the worker's process."""

DEFERRAL_GRACE = 120.0
"""Seconds past the job's deadline that the triggerer has to fire, before Airflow itself wakes the task."""


class RemoteJobOperator(MlopsOperator):
    """Base of the operators that run one job. A subclass gives a backend, a spec and, if it likes, links and tracking.

    :param backend: name of an installed backend
    :param conn_id: connection of the platform
    :param max_runtime: seconds after which the platform ends the job
    :param deadline_margin: seconds beyond *max_runtime* for queueing, after which the job is stopped from here. The
        task's ``execution_timeout`` counts too, from the submission on, also while the task is deferred
    :param on_clear: what clearing the task means for its job: ``restart`` stops it and starts from nothing, ``resume``
        stops it and goes on from its checkpoints, ``reattach`` keeps it if it runs or has succeeded
    :param deferrable: wait in the triggerer instead of in the worker
    :param poll_interval: seconds between two looks at the job
    :param logging_interval: seconds after which a deferred task comes back to copy what the job printed; ``None`` to
        copy it when the job is over. Each time costs the start of a task
    """

    trigger_class: type[TrainingJobTrigger] = TrainingJobTrigger

    def __init__(
        self,
        *,
        backend: str,
        conn_id: str | None = None,
        max_runtime: float | str | None = None,
        deadline_margin: float = DEADLINE_MARGIN,
        on_clear: str = OnClear.RESTART,
        deferrable: bool = True,
        poll_interval: float = 10.0,
        logging_interval: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.backend, self.conn_id, self.max_runtime = backend, conn_id, max_runtime
        self.deadline_margin, self.on_clear, self.deferrable = deadline_margin, on_clear, deferrable
        self.poll_interval, self.logging_interval = poll_interval, logging_interval
        self._job: TrainingJob[Any, Any] | None = None
        self._linked = False

    # What a subclass gives

    def connect(self) -> JobBackend[Any, Any]:
        """Return the platform."""
        raise NotImplementedError

    def new_spec(self, record: JobRecord) -> Any:
        """Return the spec of the attempt that *record* is about, the same on every call."""
        raise NotImplementedError

    def tracking(self, context: Context) -> Tracking[Any, Any] | None:  # noqa: ARG002
        """Return what follows the job in an experiment tracker, if anything does."""
        return None

    def rules(self) -> Rules:
        """Return what the user allows."""
        return Rules(OnClear.of(self.on_clear))

    def surroundings(self) -> AbstractContextManager[None]:
        """Return what must hold in this process while the driver works."""
        return nullcontext()

    def push_links(self, context: Context, job: TrainingJob[Any, Any], record: JobRecord) -> None:
        """Push the addresses that the task's extra links show."""

    def told(self, job: TrainingJob[Any, Any], result: Any) -> dict[str, Any]:  # noqa: ARG002
        """Return the result of a job that succeeded as a dict, with what else is known of it."""
        return dict(result.to_dict())

    def finish(self, context: Context, result: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """Return what the task returns. Override it to look at the result of a job that succeeded, or to refuse it."""
        return result

    # What Airflow calls

    def execute(self, context: Context) -> dict[str, Any]:
        """Start the job or find it, and bring it to its end."""
        return self._go(context, self._new_job(context), entering=True, patience=SETTLE if self.deferrable else None)

    def resume(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Go on after the trigger fired. What it said is only why: the job itself is looked at again."""
        self.log.info("The trigger fired: %s.", event.get("why"))
        return self._go(context, self._new_job(context), entering=False, patience=0.0)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on even when waiting broke: the job did not. After five times the worker waits itself."""
        if next_method != "__fail__":
            return super().resume_execution(next_method, next_kwargs, context)
        job = self._new_job(context)
        failures = job.note_trigger_failure()
        self.log.warning("The trigger broke (%d times): %s", failures, (next_kwargs or {}).get("error"))
        return self._go(context, job, entering=False, patience=0.0 if failures <= MAX_TRIGGER_FAILURES else None)

    def on_kill(self) -> None:
        """Stop the job. In a thread: the signal may have come while this one was talking to Airflow."""
        if self._job is not None:
            thread = threading.Thread(target=self._kill, args=(self._job,))
            thread.start()
            thread.join(KILL_BUDGET)

    def _kill(self, job: TrainingJob[Any, Any]) -> None:
        try:
            job.kill()
        except (MlopsError, AirflowRuntimeError) as error:
            self.log.warning("The job could not be cancelled, or not marked as cancelled: %s", error)

    def _go(
        self, context: Context, job: TrainingJob[Any, Any], *, entering: bool, patience: float | None
    ) -> dict[str, Any]:
        self._job = job
        interval = self.poll_interval if patience is None else SETTLE / 5
        with self.surroundings():
            try:
                found = self._advance(context, job, entering=entering)
                found = job.wait(found, interval, patience=patience)
            except AirflowRuntimeError as error:
                if is_cleared(error) and self.on_clear != OnClear.REATTACH:
                    self.on_kill()
                raise
        return self._defer(found) if isinstance(found, JobRecord) else self.finish(context, self.told(job, found))

    def _advance(self, context: Context, job: TrainingJob[Any, Any], *, entering: bool) -> Any:
        try:
            return job.advance(entering=entering)
        finally:
            self._link(context, job)

    def _defer(self, record: JobRecord) -> NoReturn:
        job = record.job.to_dict() if record.job else {}
        now, deadline = time.time(), record.deadline
        alarms = [deadline, now + self.logging_interval if self.logging_interval else None]
        alarm = min((found for found in alarms if found is not None), default=None)
        where = (self.backend, job, self.conn_id, self.poll_interval, alarm)
        grace = min(self.deadline_margin, DEFERRAL_GRACE)
        timeout = None if deadline is None else timedelta(seconds=max(0.0, deadline - now) + grace)
        self.defer(trigger=self.trigger_class(*where, on_clear=self.on_clear), method_name="resume", timeout=timeout)

    def _new_job(self, context: Context) -> TrainingJob[Any, Any]:
        return TrainingJob(
            backend=self.connect(),
            records=TaskRecords(context["task_state_store"]),
            owner=task_identity(context),
            generation=generation(context["ti"]),
            spec=self.new_spec,
            tracking=self.tracking(context),
            say=self.log.info,
            rules=self.rules(),
            limit=self.execution_timeout.total_seconds() if self.execution_timeout else None,
            margin=self.deadline_margin,
        )

    def _link(self, context: Context, job: TrainingJob[Any, Any]) -> None:
        """Push the links, unless this try has."""
        record = job.records.load()
        if not self._linked and record is not None and record.job is not None:
            self._linked = True
            self.push_links(context, job, record)


def generation(ti: Any) -> int:
    """Return a number that a clear raises and a retry does not.

    Airflow raises ``max_tries`` when it clears a task. Of one that runs it may forget to; then the number of the try
    tells, if it was the last one.
    """
    return max(int(ti.max_tries), int(ti.try_number) - 1)


def is_cleared(error: AirflowRuntimeError) -> bool:
    """Return whether Airflow no longer knows this try: it moved it to its history, because the task was cleared."""
    answer = error.error.detail or {}
    return error.error.error is ErrorType.API_SERVER_ERROR and answer.get("status_code") == 404
