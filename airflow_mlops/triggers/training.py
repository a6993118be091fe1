"""Wait for a training job in the triggerer, without a worker. It only looks; the worker decides what it means.

A trigger that ends or moves to another triggerer must never stop a job: only a person's action on the task does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any, ClassVar

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_mlops.hooks.jobs import JobHook
from airflow_mlops.hooks.training import TrainingHook
from airflow_mlops.training.contract import JobBackend, JobHandle
from airflow_mlops.training.driver import OnClear
from airflow_mlops.training.watch import Place, watch

__all__ = ["TrainingJobTrigger"]

ENDED = {"failed", "success", "skipped", "upstream_failed", "removed"}
"""States of a task that a person or the end of its run gave it while it waited. A cleared task is in none of them."""

log = logging.getLogger(__name__)
_cancelling: set[asyncio.Task[None]] = set()


class TrainingJobTrigger(BaseTrigger):
    """Fires once: the job is over or gone, its deadline has passed, or the platform has not answered for 15 minutes.

    :param backend: name of the training backend
    :param job: the job's handle as a dict
    :param conn_id: connection of the platform
    :param poll_interval: seconds between two looks; the shortest that is asked for at one place counts for all there
    :param deadline: seconds since 1970 after which to fire in any case; ``None`` for never
    :param on_clear: ``reattach`` when a job is to outlive the clearing of its task
    """

    hook_class: ClassVar[type[JobHook]] = TrainingHook

    def __init__(
        self,
        backend: str,
        job: dict[str, Any],
        conn_id: str | None = None,
        poll_interval: float = 10.0,
        deadline: float | None = None,
        *,
        on_clear: str = OnClear.RESTART,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.backend, self.job, self.conn_id = backend, job, conn_id
        self.poll_interval, self.deadline, self.on_clear = poll_interval, deadline, on_clear

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what another triggerer needs to go on."""
        names = ("backend", "job", "conn_id", "poll_interval", "deadline", "on_clear")
        return f"{type(self).__module__}.{type(self).__name__}", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait until there is something for the worker to do, together with all triggers that wait at one place."""
        handle = JobHandle.from_dict(self.job)
        place = Place.of(f"{self.hook_class.group}:{self.backend}", self.conn_id, handle)
        found = await watch(handle, place, self._connect, interval=self.poll_interval, deadline=self.deadline)
        if found.detail:
            log.warning("The last look at job %s failed: %s", handle.job_id, found.detail)
        yield TriggerEvent({"why": found.word})  # type: ignore[no-untyped-call]

    async def _connect(self) -> JobBackend[Any, Any]:
        return await self.hook_class(self.backend, self.conn_id).aget_backend()

    async def on_kill(self) -> None:
        """Stop the job when a person cleared, failed or passed the task while it waited here.

        Airflow also calls this when another triggerer takes over; then the task is still deferred and the job goes on.
        It grants about a second, so the work goes on detached.
        """
        task = asyncio.create_task(self._cancel_if_left())
        _cancelling.add(task)
        task.add_done_callback(_cancelling.discard)
        await asyncio.shield(task)

    async def _cancel_if_left(self) -> None:
        states = await asyncio.to_thread(self._states)
        if "deferred" in states or (self.on_clear == OnClear.REATTACH and not states & ENDED):
            log.info("Job %s goes on: its task still waits, or keeps it although it was cleared.", self.job["job_id"])
            return
        backend = await self._connect()
        await asyncio.to_thread(backend.cancel, JobHandle.from_dict(self.job))
        log.info("Job %s is cancelled, because its task was ended from outside.", self.job["job_id"])

    def _states(self) -> set[str | None]:
        """Ask Airflow for the state of the task that waits here."""
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        ti: Any = self.task_instance
        found = RuntimeTaskInstance.get_task_states(
            dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index
        )
        return {state for states in found.values() for state in states.values()}
