"""One life of one task, with one death in it: what scheduler, executor and Airflow's server do about it is here.

Supervisor and task runner are one process, so both die. What Airflow knows is in this process and is never touched by
the one that dies.
"""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from kill_platforms import Platform
from mortal_backends import DEATH

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.operators.training import TrainModelOperator
from airflow_mlops.platforms.mlflow import MLflowClient
from airflow_mlops.testing.airflow_processes import Machine, Turn, run_triggerer, run_worker
from airflow_mlops.testing.execution_api import DagRunMemory, ExecutionApi
from airflow_mlops.testing.execution_api_server import execution_api_server
from airflow_mlops.testing.task_runner import resume_with

SCRIPT = """\
echo $$ >> {marks}
while [ ! -e {gate} ]; do sleep 0.1; done
sleep 0.3
printf '{{"model_uri": "models:/m-1", "metrics": {{"auc": 0.75, "loss": 0.5}}}}' > "$MLOPS_OUTPUT"
"""


@dataclass(frozen=True)
class Point:
    """Where a process is killed.

    :param modes: of which tasks
    :param verb: where the backend kills its process, or
    :param request: the request at which the Execution API kills the one who asks, and
    :param kept: whether it keeps the request before
    :param victim: which process dies
    :param at_death: what is true at that time: jobs on the platform, the record's phase, whether the result is kept
    """

    modes: tuple[str, ...] = ("deferred", "blocking")
    verb: str = ""
    request: str = ""
    kept: bool = False
    victim: str = "worker"
    at_death: tuple[int, str, bool] = (1, "submitted", False)

    @property
    def late(self) -> bool:
        """Whether the job has to end before anybody is killed."""
        return self.verb == "observe:ended" or self.request in ("resumed", "result", "success")


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
                while self._work(address, try_number) and self.api.final.get("state") == "deferred":
                    self._wait()
                if self.api.final.get("state") == "success":
                    break
        return self

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer a request of the worker, or kill it."""
        moment = moment_of(request, self.api)
        if moment in ("begun", "resumed"):
            self.worker = json.loads(request.content)["pid"]
        if self.mode == "blocking" and (self.deaths or (self.point.late and moment == "recorded")):
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
        death = {DEATH: self.point.verb} if is_doomed else {}
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
