"""Drives a canary roll-out while its task is deferred, so that no worker waits and every step happens on time.

Each turn runs in a thread: nothing here blocks the triggerer. A triggerer that starts it again finds its place from
what serves. It ends with one event, the result; whoever gets it decides whether the task failed.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_mlops.core.errors import PlatformUnavailableError
from airflow_mlops.deployment.driver import RolloutDriver, restore
from airflow_mlops.deployment.rollout import RolloutPlan
from airflow_mlops.hooks.deployment import DeploymentHook

__all__ = ["CanaryRolloutTrigger"]

EARLIEST_EVENT = 5.0
"""Seconds before the first event: one that comes at once can race the executor."""

_RESTORING: set[asyncio.Task[None]] = set()
"""Restorations under way, held so that they are not collected before their end."""


class CanaryRolloutTrigger(BaseTrigger):
    """Carry out a plan to its end.

    :param plan: a ``RolloutPlan`` as a dict
    :param deadline: when it is rolled back if it is not over (seconds since 1970)
    :param poll: longest pause between two turns in seconds
    """

    def __init__(self, *, plan: Mapping[str, Any], target: str, conn_id: str, deadline: float, poll: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.plan, self.target, self.conn_id = dict(plan), target, conn_id
        self.deadline, self.poll = deadline, poll
        self._turn = threading.Lock()
        self._killed = False

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return all that another triggerer needs to go on."""
        arguments = {name: getattr(self, name) for name in ("plan", "target", "conn_id", "deadline", "poll")}
        return f"{type(self).__module__}.{type(self).__qualname__}", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Take turns until there is a result, and yield it as a dict."""
        began = time.monotonic()
        driver = RolloutDriver(await self._hook().aget_target(), RolloutPlan.from_dict(self.plan))
        await self._until_answered(driver.begin)
        while (result := driver.result) is None:
            if time.time() >= self.deadline:
                await self._until_answered(lambda: driver.give_up("The time for the whole roll-out is over."))
                continue
            await asyncio.sleep(min(driver.wait(), self.poll, max(0.0, self.deadline - time.time())))
            await self._until_answered(driver.turn)
        await asyncio.sleep(max(0.0, EARLIEST_EVENT - (time.monotonic() - began)))
        yield TriggerEvent(result.to_dict())  # type: ignore[no-untyped-call]

    async def _until_answered(self, act: Callable[[], None]) -> None:
        """Do one blocking piece of work, again and again while the platform is away and there is time."""
        while True:
            try:
                return await asyncio.to_thread(self._unless_killed, act)
            except PlatformUnavailableError as error:
                if time.time() >= self.deadline:
                    raise
                self.log.warning("%s Trying again in %g s.", error, self.poll)
            await asyncio.sleep(self.poll)

    def _unless_killed(self, act: Callable[[], None]) -> None:
        with self._turn:
            if not self._killed:
                act()

    async def on_kill(self) -> None:
        """Put the traffic back when a person ended the task. Outlives the second that Airflow allows for it."""
        self._killed = True
        task = asyncio.create_task(self._restore())
        _RESTORING.add(task)
        task.add_done_callback(_RESTORING.discard)
        await asyncio.shield(task)

    async def _restore(self) -> None:
        """Restore the prior split, unless the task is still deferred: then another triggerer goes on with it."""
        try:
            if await asyncio.to_thread(self._still_deferred):
                return
        except Exception as error:  # noqa: BLE001 - whatever Airflow answers, the old revision is the safe side
            self.log.warning("Airflow did not say whether the task is still deferred: %s", error)
        target = await self._hook().aget_target()
        plan = RolloutPlan.from_dict(self.plan)
        await asyncio.to_thread(self._after_the_turn, lambda: restore(target, plan))
        self.log.info("The task was ended by hand: %r serves as before.", plan.endpoint)

    def _after_the_turn(self, act: Callable[[], object]) -> None:
        """Wait for a turn that is under way, so that it cannot undo *act*."""
        with self._turn:
            act()

    def _still_deferred(self) -> bool:
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        ti: Any = self.task_instance
        if ti is None:
            return False
        states = RuntimeTaskInstance.get_task_states(
            dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index
        )
        return "deferred" in states.get(ti.run_id, {}).values()

    def _hook(self) -> DeploymentHook:
        return DeploymentHook(self.target, self.conn_id)
