"""Airflow's Execution API in memory: what a task asks its server for, without a server or a database.

The wire format is the real one: the task SDK's own client talks to this through an httpx transport. What a task may ask
and is not modelled here is answered with 501 and the path, never with an invented value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import httpx

JSON = {"content-type": "application/json"}


@dataclass
class DagRunMemory:
    """What one DAG run remembers between its tasks and their tries.

    :param xcoms: (task id, key) -> value
    :param mapped_xcoms: (task id, key, map index) -> value, of mapped tasks that a downstream task asks about
    :param state_store: (task id, map index) -> key -> value; survives retries and clears
    :param consumed: asset events that triggered the run, as ``{"uri", "name", "extra"}``
    :param task_states: (dag id, run id, task id, map index) -> state of every task instance that this Airflow has
    """

    dag_id: str = "test_dag"
    run_id: str = "manual__1"
    conf: dict[str, Any] = field(default_factory=dict)
    xcoms: dict[tuple[str, str], Any] = field(default_factory=dict)
    mapped_xcoms: dict[tuple[str, str, int], Any] = field(default_factory=dict)
    state_store: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    consumed: list[dict[str, Any]] = field(default_factory=list)
    task_states: dict[tuple[str, str, str, int], str | None] = field(default_factory=dict)

    def dag_run(self) -> dict[str, Any]:
        """Return the run as the API describes it: triggered by hand, so without a logical date."""
        now = datetime.now(UTC).isoformat()
        return {
            "dag_id": self.dag_id,
            "run_id": self.run_id,
            "logical_date": None,
            "data_interval_start": None,
            "data_interval_end": None,
            "run_after": now,
            "start_date": now,
            "end_date": None,
            "run_type": "asset_triggered" if self.consumed else "manual",
            "state": "running",
            "conf": self.conf,
            "consumed_asset_events": [_asset_event(event, now) for event in self.consumed],
            "partition_key": None,
        }


def _asset_event(event: dict[str, Any], now: str) -> dict[str, Any]:
    asset = {"name": event.get("name", event["uri"]), "uri": event["uri"], "extra": {}}
    return {
        "asset": asset,
        "extra": event.get("extra", {}),
        "source_task_id": None,
        "source_dag_id": None,
        "source_run_id": None,
        "source_map_index": None,
        "source_aliases": [],
        "timestamp": now,
        "partition_key": None,
    }


@dataclass
class ExecutionApi:
    """Answers one task instance's requests. ``final`` is the last state it reported, with all it said about it."""

    memory: DagRunMemory
    task_id: str
    map_index: int = -1
    max_tries: int = 0
    should_retry: bool = False
    next_method: str | None = None
    next_kwargs: dict[str, Any] | None = None
    final: dict[str, Any] = field(default_factory=dict)
    skipped: list[Any] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        path = unquote(request.url.raw_path.decode().split("?")[0]).lstrip("/")
        for method, pattern, answer in _ROUTES:
            if method == request.method and (match := re.fullmatch(pattern, path)):
                return answer(self, request, *match.groups())
        return httpx.Response(501, json={"detail": f"The test API does not model {request.method} {path}."})

    def run(self, request: httpx.Request) -> httpx.Response:
        """Start the task: hand over its run context. A new try begins without the XComs of the one before."""
        if not self.next_method:
            for key in [key for key in self.memory.xcoms if key[0] == self.task_id]:
                del self.memory.xcoms[key]
        return httpx.Response(
            200,
            json={
                "dag_run": self.memory.dag_run(),
                "max_tries": self.max_tries,
                "should_retry": self.should_retry,
                "next_method": self.next_method,
                "next_kwargs": self.next_kwargs,
                "xcom_keys_to_clear": [],
            },
        )

    def state(self, request: httpx.Request) -> httpx.Response:
        """Take the state the task ends this turn with."""
        self.final = json.loads(request.content)
        return httpx.Response(204)

    def skip_downstream(self, request: httpx.Request) -> httpx.Response:
        """Take the downstream tasks that are to be skipped."""
        self.skipped.extend(json.loads(request.content)["tasks"])
        return httpx.Response(204)

    def no_content(self, request: httpx.Request) -> httpx.Response:
        """Accept what needs no memory: heartbeats and rendered fields."""
        return httpx.Response(204)

    def inactive_assets(self, request: httpx.Request) -> httpx.Response:
        """Every asset is active."""
        return httpx.Response(200, json={"inactive_assets": []})

    def get_xcom(self, request: httpx.Request, task_id: str, key: str) -> httpx.Response:
        """Return one XCom value."""
        index = int(request.url.params.get("map_index", -1))
        if any(found[:2] == (task_id, key) for found in self.memory.mapped_xcoms):
            if (task_id, key, index) not in self.memory.mapped_xcoms:
                return _missing(f"XCom {key!r} of {task_id!r} at {index}")
            return httpx.Response(200, json={"key": key, "value": self.memory.mapped_xcoms[task_id, key, index]})
        if (task_id, key) not in self.memory.xcoms:
            return _missing(f"XCom {key!r} of {task_id!r}")
        return httpx.Response(200, json={"key": key, "value": self.memory.xcoms[task_id, key]})

    def get_xcom_slice(self, request: httpx.Request, task_id: str, key: str) -> httpx.Response:
        """Return one XCom value of all map indexes: here a list of one or none."""
        found = (task_id, key) in self.memory.xcoms
        return httpx.Response(200, json=[self.memory.xcoms[task_id, key]] if found else [])

    def set_xcom(self, request: httpx.Request, task_id: str, key: str) -> httpx.Response:
        """Keep one XCom value."""
        self.memory.xcoms[task_id, key] = json.loads(request.content)
        return httpx.Response(201, json="ok")

    def delete_xcom(self, request: httpx.Request, task_id: str, key: str) -> httpx.Response:
        """Forget one XCom value."""
        self.memory.xcoms.pop((task_id, key), None)
        return httpx.Response(204)

    def store(self) -> dict[str, Any]:
        """Return the task's state store."""
        return self.memory.state_store.setdefault((self.task_id, self.map_index), {})

    def get_state(self, request: httpx.Request, key: str) -> httpx.Response:
        """Return one value of the state store."""
        if key not in self.store():
            return _missing(f"state {key!r}")
        return httpx.Response(200, json={"value": self.store()[key]})

    def set_state(self, request: httpx.Request, key: str) -> httpx.Response:
        """Keep one value of the state store."""
        self.store()[key] = json.loads(request.content)["value"]
        return httpx.Response(204)

    def delete_state(self, request: httpx.Request, key: str) -> httpx.Response:
        """Forget one value of the state store."""
        self.store().pop(key, None)
        return httpx.Response(204)

    def clear_state(self, request: httpx.Request) -> httpx.Response:
        """Forget the whole state store of the task."""
        self.store().clear()
        return httpx.Response(204)

    def states(self, request: httpx.Request) -> httpx.Response:
        """Return states of task instances as the server does: of a mapped task under ``<task id>_<index>``."""
        asked = request.url.params
        tasks, runs, index = asked.get_list("task_ids"), asked.get_list("run_ids"), asked.get("map_index")
        found: dict[str, dict[str, str | None]] = {}
        for (dag_id, run_id, task_id, map_index), state in self.memory.task_states.items():
            wanted = dag_id == asked["dag_id"] and (not tasks or task_id in tasks) and (not runs or run_id in runs)
            if wanted and index in (None, str(map_index)):
                found.setdefault(run_id, {})[task_id if map_index < 0 else f"{task_id}_{map_index}"] = state
        return httpx.Response(200, json={"task_states": found})

    def missing(self, request: httpx.Request) -> httpx.Response:
        """Know no connection and no variable: they come from the environment."""
        return _missing(request.url.path)


def _missing(what: str) -> httpx.Response:
    return httpx.Response(404, json={"detail": {"reason": "not_found", "message": f"{what} not found"}})


_TI = r"task-instances/[^/]+"
_ROUTES: list[tuple[str, str, Callable[..., httpx.Response]]] = [
    ("PATCH", rf"{_TI}/run", ExecutionApi.run),
    ("PATCH", rf"{_TI}/state", ExecutionApi.state),
    ("PATCH", rf"{_TI}/skip-downstream", ExecutionApi.skip_downstream),
    ("GET", r"task-instances/states", ExecutionApi.states),
    ("PUT", rf"{_TI}/heartbeat", ExecutionApi.no_content),
    ("PUT", rf"{_TI}/rtif", ExecutionApi.no_content),
    ("PATCH", rf"{_TI}/rendered-map-index", ExecutionApi.no_content),
    ("GET", rf"{_TI}/validate-inlets-and-outlets", ExecutionApi.inactive_assets),
    ("GET", r"xcoms/[^/]+/[^/]+/([^/]+)/([^/]+)", ExecutionApi.get_xcom),
    ("GET", r"xcoms/[^/]+/[^/]+/([^/]+)/([^/]+)/slice", ExecutionApi.get_xcom_slice),
    ("POST", r"xcoms/[^/]+/[^/]+/([^/]+)/([^/]+)", ExecutionApi.set_xcom),
    ("DELETE", r"xcoms/[^/]+/[^/]+/([^/]+)/([^/]+)", ExecutionApi.delete_xcom),
    ("GET", r"store/ti/[^/]+/(.+)", ExecutionApi.get_state),
    ("PUT", r"store/ti/[^/]+/(.+)", ExecutionApi.set_state),
    ("DELETE", r"store/ti/[^/]+/(.+)", ExecutionApi.delete_state),
    ("DELETE", r"store/ti/[^/]+", ExecutionApi.clear_state),
    ("GET", r"connections/.+", ExecutionApi.missing),
    ("GET", r"variables/.+", ExecutionApi.missing),
]
