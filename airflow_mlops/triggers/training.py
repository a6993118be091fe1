"""Wait for a training job in the triggerer, without a worker. It only looks; the worker decides what it means.

A trigger that ends or moves to another triggerer must never stop a job: only a person's action on the task does.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_mlops.core.errors import PlatformUnavailableError
from airflow_mlops.hooks.training import TrainingHook
from airflow_mlops.training.contract import JobHandle, TrainingBackend

__all__ = ["TrainingJobTrigger"]

FIRST_LOOK = 5.0
"""Seconds before the first look. An event that overtakes the executor's own report of the deferral fails the task: the
scheduler then sees a queued task whose process has ended. Seen with 2 s on a busy machine."""

LONGEST_PAUSE = 60.0
UNSEEN = 900.0
"""Seconds without one answer of the platform after which the worker is asked to decide."""

log = logging.getLogger(__name__)
_cancelling: set[asyncio.Task[None]] = set()


class TrainingJobTrigger(BaseTrigger):
    """Fires once: the job is over or gone, its deadline has passed, or the platform has not answered for 15 minutes.

    :param backend: name of the training backend
    :param job: the job's handle as a dict
    :param conn_id: connection of the platform
    :param poll_interval: seconds between two looks
    :param deadline: seconds since 1970 after which to fire in any case; ``None`` for never
    """

    def __init__(
        self,
        backend: str,
        job: dict[str, Any],
        conn_id: str | None = None,
        poll_interval: float = 10.0,
        deadline: float | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.backend, self.job, self.conn_id = backend, job, conn_id
        self.poll_interval, self.deadline = poll_interval, deadline

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what another triggerer needs to go on."""
        names = ("backend", "job", "conn_id", "poll_interval", "deadline")
        return f"{type(self).__module__}.{type(self).__name__}", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until there is something for the worker to do."""
        backend = await self._connect()
        handle = JobHandle.from_dict(self.job)
        pause, seen = FIRST_LOOK, time.monotonic()
        while True:
            await asyncio.sleep(self._until_deadline(pause))
            try:
                status = (await asyncio.to_thread(backend.observe, [handle])).get(handle)
                seen, pause = time.monotonic(), self.poll_interval
            except PlatformUnavailableError as error:
                log.warning("The look at job %s failed: %s", handle.job_id, error)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                if status is None or status.state.terminal:
                    yield _event(status.state.value if status else "gone")
                    return
            if why := self._why_stop(seen):
                yield _event(why)
                return

    def _until_deadline(self, pause: float) -> float:
        return pause if self.deadline is None else max(0.0, min(pause, self.deadline - time.time()))

    def _why_stop(self, seen: float) -> str:
        if self.deadline is not None and time.time() >= self.deadline:
            return "deadline"
        return "unseen" if time.monotonic() - seen > UNSEEN else ""

    async def _connect(self) -> TrainingBackend:
        return await TrainingHook(self.backend, self.conn_id).aget_backend()

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
        if await asyncio.to_thread(self._still_deferred):
            log.info("The task still waits: job %s goes on under another triggerer.", self.job["job_id"])
            return
        backend = await self._connect()
        await asyncio.to_thread(backend.cancel, JobHandle.from_dict(self.job))
        log.info("Job %s is cancelled, because its task was ended from outside.", self.job["job_id"])

    def _still_deferred(self) -> bool:
        """Ask Airflow for the state of the task that waits here."""
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        ti: Any = self.task_instance
        found = RuntimeTaskInstance.get_task_states(
            dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index
        )
        return any(state == "deferred" for states in found.values() for state in states.values())


def _event(why: str) -> TriggerEvent:
    return TriggerEvent({"why": why})  # type: ignore[no-untyped-call]
