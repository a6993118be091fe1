"""Run one operator with Airflow's real task runner, without a scheduler, a server or a database.

Templating, XCom, deferral, retries, the state store and asset events are the real thing. Connections come from
``AIRFLOW_CONN_<ID>`` environment variables. Set ``AIRFLOW__CORE__UNIT_TEST_MODE=True`` before Airflow is imported.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, field
from typing import Any, cast

import httpx

from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.testing.execution_api import DagRunMemory, ExecutionApi

__all__ = ["DagRunMemory", "TaskRun", "run_task", "run_trigger", "run_turn", "resume_with", "trigger_of"]


@dataclass
class TaskRun:
    """How one task ended.

    :param state: ``success``, ``failed``, ``skipped``, ``deferred``, ``up_for_retry`` or ``up_for_reschedule``
    :param xcoms: key -> value of this task; ``return_value`` is what ``execute`` returned
    :param error: the exception that ended it, if one did
    :param log: everything the task logged, one event a line, with tracebacks
    :param trigger: the trigger it waits for, when the state is ``deferred``
    :param asset_events: events it emitted, as the API got them
    :param state_store: the task's state store after the run
    :param deferrals: how many times it was deferred and resumed
    """

    state: str
    xcoms: dict[str, Any]
    error: BaseException | None
    log: str
    trigger: Any = None
    asset_events: list[dict[str, Any]] = field(default_factory=list)
    skipped_downstream: list[Any] = field(default_factory=list)
    state_store: dict[str, Any] = field(default_factory=dict)
    deferrals: int = 0
    api: ExecutionApi | None = None

    @property
    def result(self) -> Any:
        """What ``execute`` returned."""
        return self.xcoms.get("return_value")


def run_task(
    task: Any,
    *,
    memory: DagRunMemory | None = None,
    try_number: int = 1,
    max_tries: int | None = None,
    map_index: int = -1,
    follow: bool = True,
    resume: TaskRun | None = None,
    event: dict[str, Any] | None = None,
) -> TaskRun:
    """Run *task* as a worker would and return how it ended.

    :param task: an operator; one that belongs to no DAG is put into a DAG of its own
    :param memory: what the DAG run remembers; pass the same one again for a retry, a clear or a downstream task
    :param try_number: 1 for the first try
    :param max_tries: retries Airflow would allow in all; by default the task's ``retries``. A clear raises it
    :param follow: when the task defers, run its trigger to the first event and resume, until it ends
    :param resume: a deferred run (``follow=False``) to go on with *event*, the payload of its trigger
    """
    memory = memory or DagRunMemory()
    memory.dag_id = _ensure_dag(task, memory.dag_id)
    allowed = int(task.retries or 0) if max_tries is None else max_tries
    api = ExecutionApi(memory, task.task_id, map_index, allowed, should_retry=try_number <= allowed)
    lines: list[str] = []
    if resume is not None:
        assert resume.api is not None
        resume_with(api, resume.api.final, {"payload": event})
    run = _run_once(task, api, try_number, lines)
    while follow and run.state == "deferred":
        payload = run_trigger(run.trigger)
        resume_with(api, api.final, payload)
        deferrals = run.deferrals + 1
        run = _run_once(task, api, try_number, lines)
        run.deferrals = deferrals
    return run


def run_turn(task: Any, who: TaskIdentity, address: str, *, try_number: int = 1) -> TaskRun:
    """Run *task* once, until it ends or defers, with an Execution API at *address* (``execution_api_server``).

    What Airflow knows afterwards is over there: of the answer only state, error and log are filled.
    """
    from airflow.sdk.execution_time.supervisor import InProcessTestSupervisor

    _ensure_dag(task, who.dag_id)
    lines: list[str] = []
    client = InProcessTestSupervisor._Client(base_url=address, token="", timeout=10)
    outcome = _turn(task, who, client, try_number, lines)
    return TaskRun(state=_state(outcome), xcoms={}, error=outcome.error, log="\n".join(lines))


def run_trigger(trigger: Any, *, limit: float = 120) -> dict[str, Any]:
    """Run *trigger* until its first event and return ``{"payload": ...}``. At most *limit* seconds."""

    async def first_event() -> Any:
        async with asyncio.timeout(limit):
            async for found in trigger.run():
                return found.payload
        raise AssertionError(f"{trigger!r} ended without an event.")

    return {"payload": asyncio.run(first_event())}


def resume_with(api: ExecutionApi, deferred: dict[str, Any], event: dict[str, Any]) -> None:
    """Let the next turn go on where *deferred* said, with the event of its trigger, as the triggerer does."""
    from airflow.sdk.serde import deserialize, serialize

    kwargs = cast("dict[str, Any]", deserialize(deferred.get("next_kwargs") or {}) or {})
    api.next_method = deferred["next_method"]
    api.next_kwargs = cast("dict[str, Any]", serialize({**kwargs, "event": event["payload"]}))
    api.final = {}


def trigger_of(deferred: dict[str, Any]) -> Any:
    """Build the trigger that a deferred task waits for, as the triggerer does."""
    from importlib import import_module

    from airflow.sdk.serde import deserialize

    module, _, name = deferred["classpath"].rpartition(".")
    kwargs = cast("dict[str, Any]", deserialize(deferred.get("trigger_kwargs") or {}) or {})
    return getattr(import_module(module), name)(**kwargs)


def _ensure_dag(task: Any, dag_id: str) -> str:
    from airflow.sdk import DAG

    if not task.has_dag():
        DAG(dag_id, schedule=None).add_task(task)
    return str(task.dag_id)


def _run_once(task: Any, api: ExecutionApi, try_number: int, lines: list[str]) -> TaskRun:
    from airflow.sdk.execution_time.supervisor import InProcessTestSupervisor

    client = InProcessTestSupervisor._Client(
        base_url=None, dry_run=True, token="", transport=httpx.MockTransport(api), timeout=10
    )
    who = TaskIdentity(api.memory.dag_id, api.memory.run_id, api.task_id, api.map_index)
    return _task_run(_turn(task, who, client, try_number, lines), api, "\n".join(lines))


def _turn(task: Any, who: TaskIdentity, client: Any, try_number: int, lines: list[str]) -> Any:
    from airflow.sdk.api.datamodels._generated import TaskInstance
    from airflow.sdk.execution_time.supervisor import run_task_in_process

    name = f"{who.dag_id}/{who.run_id}/{who.task_id}/{who.map_index}"
    instance = TaskInstance(
        id=uuid.uuid5(uuid.NAMESPACE_URL, name),
        task_id=who.task_id,
        dag_id=who.dag_id,
        run_id=who.run_id,
        try_number=try_number,
        dag_version_id=uuid.uuid5(uuid.NAMESPACE_URL, who.dag_id),
        map_index=who.map_index,
    )
    with _captured(lines):
        return run_task_in_process(instance, _fresh(task), client=client)


def _fresh(task: Any) -> Any:
    """Return a copy to render, as a worker parses the DAG file anew for every turn."""
    return task.prepare_for_execution()


def _task_run(outcome: Any, api: ExecutionApi, log: str) -> TaskRun:
    state = _state(outcome)
    return TaskRun(
        state=state,
        xcoms={key: value for (task_id, key), value in api.memory.xcoms.items() if task_id == api.task_id},
        error=outcome.error,
        log=log,
        trigger=trigger_of(api.final) if state == "deferred" else None,
        asset_events=api.final.get("outlet_events") or [],
        skipped_downstream=api.skipped,
        state_store=dict(api.store()),
        api=api,
    )


def _state(outcome: Any) -> str:
    return str(getattr(outcome.state, "value", outcome.state))


@contextlib.contextmanager
def _captured(lines: list[str]) -> Iterator[None]:
    """Collect what is logged through structlog and through the standard library."""
    import logging

    import structlog

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    def collect(_: Any, __: str, event: MutableMapping[str, Any]) -> Any:
        error = event.get("exc_info")
        lines.append(" ".join(f"{key}={value}" if key != "event" else str(value) for key, value in event.items()))
        if isinstance(error, BaseException):
            lines.append(f"{type(error).__name__}: {error}")
        raise structlog.DropEvent

    before = structlog.get_config()
    handler = Collect()
    root = logging.getLogger()
    structlog.configure(processors=[structlog.processors.format_exc_info, collect], cache_logger_on_first_use=False)
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        structlog.configure(**before)
