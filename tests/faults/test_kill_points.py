"""Kill -9 at eight points of a task's life, on every backend, blocking and deferred: one job, and its whole result.

Each cell runs the real task runner in worker processes and the trigger in triggerer processes. What Airflow knows
(state store, XComs, states) is in this process and outlives them, as Airflow's own server does. One process of each
cell gets a SIGKILL; Airflow then does what it does: the next try in a new worker, or the same trigger in a new
triggerer.

Where the process dies: a *verb* is a call of the backend, which kills its own process (``mortal/mortal_backends.py``,
installed as a stranger's plugin); a *request* is one to the Execution API, which kills the worker that asks, before
it keeps the request or after it, and never answers. The names in brackets are those of blocking tasks.

| point                    | where                                                                                |
| ------------------------ | ------------------------------------------------------------------------------------ |
| before-submit            | verb: submit is called, nothing is sent; the record says "intent"                    |
| after-submit             | verb: submit has returned; the record still says "intent"                            |
| polling                  | verb: the second look of the worker begins                                           |
| before-defer             | request: PATCH of the state "deferred", before it is kept                            |
| (recorded)               | request: PUT of the record "submitted", after it is kept, before the wait begins     |
| in-trigger               | verb: the triggerer has looked at the job once, and it goes on                       |
| (asleep)                 | verb: a moment after the second look, while the worker sleeps                        |
| on-event                 | request: PATCH run, for a task that resumes with the trigger's event, after it       |
| (job-ended)              | verb: a look has returned that the job is over                                       |
| before-result            | request: POST of the XCom return_value, before it is kept                            |
| after-result             | request: PATCH of the state "success", before it is kept: the XCom is, the end is not |
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.operators.training import TrainModelOperator
from airflow_mlops.platforms.mlflow import MLflowClient
from airflow_mlops.testing.airflow_processes import Machine, Turn, run_triggerer, run_worker
from airflow_mlops.testing.execution_api import DagRunMemory, ExecutionApi
from airflow_mlops.testing.execution_api_server import execution_api_server
from airflow_mlops.testing.task_runner import resume_with

MORTAL = Path(__file__).parent / "mortal"
ENTRY_POINTS = """\
[airflow_mlops.training_backends]
mortal-local = mortal_backends:MortalLocal
"""
AT_ONCE = 8
"""Cells that run at the same time. A deferred one mostly waits: the trigger's first look comes after five seconds."""

SCRIPT = """\
echo $$ >> {marks}
while [ ! -e {gate} ]; do sleep 0.1; done
sleep 0.3
printf '{{"model_uri": "models:/m-1", "metrics": {{"auc": 0.75, "loss": 0.5}}}}' > "$MLOPS_OUTPUT"
"""


@dataclass(frozen=True)
class Point:
    """Where a process is killed.

    :param verb: where the backend kills its process, or
    :param request: the request at which the Execution API kills the one who asks, and
    :param kept: whether it keeps the request before
    :param victim: which process dies
    :param at_death: what is true at that time: jobs on the platform, the record's phase, whether the result is kept
    """

    verb: str = ""
    request: str = ""
    kept: bool = False
    victim: str = "worker"
    at_death: tuple[int, str, bool] = (1, "submitted", False)

    @property
    def late(self) -> bool:
        """Whether the job has to end before anybody is killed."""
        return self.verb == "observe:ended" or self.request in ("resumed", "result", "success")


BOTH = {
    "before-submit": Point(verb="submit:before:1", at_death=(0, "intent", False)),
    "after-submit": Point(verb="submit:after:1", at_death=(1, "intent", False)),
    "polling": Point(verb="observe:before:2"),
    "before-result": Point(request="result"),
    "after-result": Point(request="success", at_death=(1, "submitted", True)),
}
POINTS = {
    "deferred": {
        **BOTH,
        "before-defer": Point(request="deferred"),
        "in-trigger": Point(verb="observe:after:1", victim="triggerer"),
        "on-event": Point(request="resumed", kept=True),
    },
    "blocking": {
        **BOTH,
        "recorded": Point(request="recorded", kept=True),
        "asleep": Point(verb="observe:asleep:2"),
        "job-ended": Point(verb="observe:ended"),
    },
}


class Platform(Protocol):
    """One column of the matrix: where jobs run, and what is there."""

    def connection(self, cell: str) -> dict[str, Any]:
        """Return the connection to a place of the cell's own."""
        ...

    def arguments(self) -> dict[str, Any]:
        """Return what the operator needs here besides."""
        ...

    def jobs(self, cell: str) -> int:
        """Count the jobs that were ever made at the cell's place, as the platform knows them."""
        ...


class Local:
    """Jobs are folders, and processes of this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def connection(self, cell: str) -> dict[str, Any]:
        return {"conn_type": "mlops_local", "extra": {"workdir": str(self._folder / cell), "grace": 0.5}}

    def arguments(self) -> dict[str, Any]:
        return {}

    def jobs(self, cell: str) -> int:
        return len(list((self._folder / cell).glob("*/job.json")))


@contextmanager
def local(folder: Path) -> Iterator[Platform]:
    """Keep jobs in a folder."""
    yield Local(folder / "jobs")


PLATFORMS: dict[str, Callable[[Path], Any]] = {"local": local}
CELLS = [(backend, mode, point) for backend in PLATFORMS for mode, points in POINTS.items() for point in points]


def moment_of(request: httpx.Request, api: ExecutionApi) -> str:
    """Return which point of a task's life a request is, or nothing."""
    path, said = request.url.path, json.loads(request.content or b"null")
    if request.method == "PATCH" and path.endswith("/run"):
        return "resumed" if api.next_method else "begun"
    if request.method == "PATCH" and path.endswith("/state"):
        return str(said["state"])
    if request.method == "PUT" and path.endswith("/mlops_training_job"):
        return "recorded" if said["value"]["phase"] == "submitted" else "intended"
    return "result" if request.method == "POST" and path.endswith("/return_value") else ""


@dataclass
class Cell:
    """One life of one task, with one death in it.

    :param deaths: who was killed, and what was true at that time
    """

    platform: Platform
    backend: str
    mode: str
    point: Point
    name: str
    folder: Path
    mlflow: str
    deaths: list[tuple[str, tuple[int, str, bool]]] = field(default_factory=list)
    turns: int = 0
    worker: int = 0

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self.who = TaskIdentity(self.name, "manual__1", "train")
        self.api = ExecutionApi(DagRunMemory(self.name), "train", max_tries=1)
        connection = self.platform.connection(self.name)
        self.environment = {
            "AIRFLOW_CONN_PLATFORM": json.dumps(connection),
            "AIRFLOW_CONN_MLFLOW_DEFAULT": json.dumps({"conn_type": "mlflow", "host": self.mlflow}),
        }

    def live(self) -> Cell:
        """Do what scheduler, executor and triggerer do, until the task has ended."""
        with execution_api_server(self) as address:
            for try_number in (1, 2):
                self.api.should_retry, self.api.next_method, self.api.final = try_number == 1, None, {}
                while self._work(address, try_number) and self.api.final["state"] == "deferred":
                    self._wait()
                if self.api.final.get("state") == "success":
                    break
        return self

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer a request of the worker, or kill it."""
        moment = moment_of(request, self.api)
        if moment in ("begun", "resumed"):
            self.worker = json.loads(request.content)["pid"]
        is_late = self.point.late and self.mode == "blocking" and moment == "recorded"
        if is_late or (self.deaths and self.mode == "blocking"):
            self.open_gate()
        if moment and moment == self.point.request and not self.deaths:
            if self.point.kept:
                self.api(request)
            os.kill(self.worker, signal.SIGKILL)
            raise ConnectionAbortedError
        return self.api(request)

    def open_gate(self) -> None:
        """Let the job come to its end."""
        (self.folder / "gate").touch()

    def _work(self, address: str, try_number: int) -> bool:
        """Run a worker; return whether it lived."""
        script = SCRIPT.format(marks=self.folder / "marks", gate=self.folder / "gate")
        arguments: dict[str, Any] = {
            "task_id": "train",
            "backend": f"mortal-{self.backend}",
            "conn_id": "platform",
            "command": ["sh", "-c", script],
            "experiment": self.name,
            "deferrable": self.mode == "deferred",
            "poll_interval": 0.5,
            "retries": 1,
            **self.platform.arguments(),
        }
        turn = Turn(TrainModelOperator, arguments, self.who, address, try_number)
        return self._lived("worker", run_worker(turn, self._machine("worker")))

    def _wait(self) -> None:
        """Run a triggerer, and another if it dies, and let the task go on with the event."""
        event = self.folder / "event"
        if self.point.victim != "triggerer":
            self.open_gate()
        while not self._lived("triggerer", run_triggerer(self.api.final, self._machine("triggerer"), event)):
            self.open_gate()
        resume_with(self.api, self.api.final, json.loads(event.read_text()))

    def _machine(self, role: str) -> Machine:
        self.turns += 1
        is_doomed = self.point.verb and role == self.point.victim and not self.deaths
        death = {"MORTAL_BACKEND_DIES": self.point.verb} if is_doomed else {}
        return Machine(self.folder / f"{self.turns}-{role}.log", {**self.environment, **death})

    def _lived(self, role: str, code: int) -> bool:
        assert code in (0, -signal.SIGKILL), f"{role} ended with {code}: {self.log()}"
        if code:
            record = self.api.store().get("mlops_training_job", {})
            sight = (self.platform.jobs(self.name), record.get("phase", ""), self.result is not None)
            self.deaths.append((role, sight))
        return code == 0

    @property
    def result(self) -> dict[str, Any] | None:
        """What the task returned."""
        return self.api.memory.xcoms.get(("train", "return_value"))

    def tracked(self) -> list[tuple[str, str]]:
        """Return id and status of each run that the tracking server has for this task."""
        client = MLflowClient(ConnectionInfo(host=self.mlflow))
        runs = client.search_runs([client.experiment_id(self.name)], "", limit=10)
        return [(run["info"]["run_id"], run["info"]["status"]) for run in runs]

    def log(self) -> str:
        """Return what the processes logged."""
        return "\n".join(f"--- {path.name}\n{path.read_text()}" for path in sorted(self.folder.glob("*.log")))


@pytest.fixture(scope="module")
def cells(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, mlflow_server: str
) -> Iterator[dict[tuple[str, str, str], Future[Cell]]]:
    """Start all cells that were asked for: several at once, because each of them mostly waits."""
    folder = tmp_path_factory.mktemp("kill_points")
    info = folder / "site" / "mortal_backends-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mortal-backends\nVersion: 1\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    asked = [
        item.callspec.params["cell"] for item in request.session.items if "cells" in getattr(item, "fixturenames", ())
    ]
    with ExitStack() as stack:
        path = stack.enter_context(pytest.MonkeyPatch.context())
        for place in (MORTAL, info.parent):
            path.syspath_prepend(str(place))
        platforms = {name: stack.enter_context(PLATFORMS[name](folder)) for name in {cell[0] for cell in asked}}
        pool = stack.enter_context(ThreadPoolExecutor(AT_ONCE))
        stack.callback(pool.shutdown, cancel_futures=True)

        def live(backend: str, mode: str, point: str) -> Cell:
            name = f"{backend}-{mode}-{point}"
            where = (platforms[backend], backend, mode, POINTS[mode][point], name, folder / name, mlflow_server)
            return Cell(*where).live()

        yield {cell: pool.submit(live, *cell) for cell in asked}


@pytest.mark.parametrize("cell", CELLS, ids="-".join)
def test_killed_there_one_job_and_its_whole_result(cell: tuple[str, str, str], cells: Any) -> None:
    """Whoever is killed, and when: the platform has one job, one process of it ran, and the task has its result."""
    lived: Cell = cells[cell].result(timeout=200)
    assert lived.deaths == [(lived.point.victim, lived.point.at_death)]
    assert lived.api.final.get("state") == "success", lived.log()
    assert lived.platform.jobs(lived.name) == 1
    marks = (lived.folder / "marks").read_text()
    assert re.fullmatch(r"\d+\n", marks), marks
    assert lived.result is not None
    assert lived.tracked() == [(lived.result["run_id"], "FINISHED")]
    assert lived.result["model_uri"] == "models:/m-1"
    assert lived.result["metrics"] == {"auc": 0.75, "loss": 0.5}
