"""A whole real Airflow for tests, on SQLite and this machine only: what a task lives through is not played.

API server, scheduler with ``LocalExecutor``, DAG processor and as many triggerers as a test asks for, each a process of
its own session with a log of its own. Intervals are tight, so that a lost triggerer or worker is noticed in seconds.
Nothing outlives the block, also not what a killed part leaves behind: a session's processes are ended with it. It finds
them in ``/proc``, so it needs Linux. Never for production.

What workers talk to (the Execution API) is a server apart from the one for people. One server for both comes to a halt
on SQLite: the audit entry of a person's request is written in its event loop, which blocks there for a worker's
request, whose transaction only that loop could end.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from airflow_mlops.testing.airflow_server import AirflowServer, airflow_server
from airflow_mlops.testing.local_server import free_port, tail

__all__ = ["airflow_stack", "AirflowStack", "AirflowClient", "Part"]

START_SECONDS = 120.0
STOP_SECONDS = 3.0
TRIGGERER_LOST_SECONDS = 8
"""A triggerer without a heartbeat for that long has lost its triggers to the next one that asks."""
WORKER_LOST_SECONDS = 20
"""A worker without a heartbeat for that long has lost its task."""

PRELOAD = """import importlib
import os

for name in filter(None, os.environ.get("STACK_PRELOAD", "").split(",")):
    importlib.import_module(name)
"""


@dataclass(frozen=True)
class AirflowClient:
    """Airflow's REST API, as one signed-in user."""

    http: httpx.Client = field(repr=False)

    def call(self, method: str, path: str, **kwargs: Any) -> Any:
        """Return the JSON answer of ``/api/v2/<path>``, or ``None`` when it has no body.

        :raises RuntimeError: the answer is an error; the message holds it
        """
        answer = self.http.request(method, f"/api/v2/{path}", **kwargs)
        if answer.is_error:
            raise RuntimeError(f"Airflow answered {answer.status_code} to {method} {path}: {answer.text[:500]}")
        return answer.json() if answer.content else None

    def get(self, path: str, **params: Any) -> Any:
        """Read something."""
        return self.call("GET", path, params=params)


@dataclass(frozen=True)
class Part:
    """One program of the stack, leader of a session of its own."""

    name: str
    process: subprocess.Popen[bytes] = field(repr=False)
    log: Path

    def pids(self) -> list[int]:
        """Return the living processes of its session, whether or not the program itself still lives."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(ValueError, ProcessLookupError):
                if os.getsid(int(entry.name)) == self.process.pid and not _zombie(entry):
                    found.append(int(entry.name))
        return found

    def signal(self, number: int) -> None:
        """Send a signal to the program itself, not to what it started."""
        self.process.send_signal(number)

    def signal_all(self, number: int) -> None:
        """Send a signal to everything in its session."""
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """Kill its whole session."""
        self.signal_all(signal.SIGKILL)
        self.process.wait()


class AirflowStack:
    """A running Airflow.

    ``url`` and ``home`` are those of the API server, ``api`` is the REST API as an admin. DAG files are in ``dags``
    below ``home``; the log of each part is ``<name>.log`` there.
    """

    def __init__(self, server: AirflowServer, environment: Mapping[str, str]) -> None:
        self.url, self.home, self._environment = server.url, server.home, dict(environment)
        token = {"authorization": f"Bearer {server.token('admin')}"}
        self.api = AirflowClient(httpx.Client(base_url=server.url, headers=token, timeout=60, trust_env=False))
        self.parts: dict[str, Part] = {}

    def start(self, name: str, *command: str, **env: str) -> Part:
        """Start the program ``airflow <command>`` under *name*; it need not be ready on return."""
        log = self.home / f"{name}.log"
        with log.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "airflow", *command],
                cwd=self.home,
                env=self._environment | env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.parts[name] = Part(name, process, log)
        return self.parts[name]

    def start_triggerer(self, name: str) -> tuple[int, Part]:
        """Start one more triggerer, wait until it lives, and return the id of its job in Airflow, and it."""
        before = self.triggerers()
        part = self.start(name, "triggerer", "--skip-serve-logs")
        self.wait(f"triggerer {name!r}", lambda: self.triggerers() - before)
        return (self.triggerers() - before).pop(), part

    def triggerers(self) -> set[int]:
        """Return the ids of all triggerers' jobs that have not ended, also of those that were killed."""
        found = self.api.get("jobs", job_type="TriggererJob", job_state="running", limit=100)["jobs"]
        return {job["id"] for job in found}

    def healthy(self) -> bool:
        """Return whether every kind of part reports to be healthy."""
        found = self.api.get("monitor/health")
        return all(found[kind]["status"] == "healthy" for kind in ("scheduler", "dag_processor", "triggerer"))

    def wait_for_dags(self, dag_ids: set[str]) -> None:
        """Return once all *dag_ids* are known."""
        try:
            self.wait("the DAGs", lambda: dag_ids <= {dag["dag_id"] for dag in self._dags()})
        except RuntimeError as error:
            problems = [each["stack_trace"] for each in self.api.get("importErrors")["import_errors"]]
            raise RuntimeError(f"{error}\nImport errors: {problems}") from None

    def wait(self, what: str, ready: Callable[[], Any], seconds: float = START_SECONDS) -> None:
        """Return once *ready* says so.

        :raises RuntimeError: it did not in time; the message ends with the last lines of every log
        """
        deadline = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > deadline:
                logs = "\n".join(f"== {part.name}\n{tail(part.log)}" for part in self.parts.values())
                raise RuntimeError(f"Waited {seconds:.0f} s for {what}.\n{logs}")
            time.sleep(0.2)

    def end(self) -> None:
        """Ask every part to end; what is left of their sessions after a moment is killed."""
        self.api.http.close()
        for part in self.parts.values():
            part.signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while any(part.process.poll() is None for part in self.parts.values()) and time.monotonic() < deadline:
            time.sleep(0.1)
        for part in self.parts.values():
            part.kill()

    def _dags(self) -> list[dict[str, Any]]:
        return list(self.api.get("dags", limit=200)["dags"])


@contextlib.contextmanager
def airflow_stack(
    home: Path, *, env: Mapping[str, str] | None = None, parallelism: int = 8, preload: Iterable[str] = ()
) -> Iterator[AirflowStack]:
    """Run a whole Airflow that keeps everything below *home*, and yield it when all of it is healthy.

    :param env: further environment variables of every part, such as ``AIRFLOW_CONN_...``
    :param parallelism: how many tasks run at once
    :param preload: modules that the scheduler imports once for all tasks, which are forked off it
    :raises RuntimeError: it was not healthy within 120 s; the message ends with the last lines of every log
    """
    home = home.resolve()
    for folder in ("dags", "config"):
        (home / folder).mkdir(parents=True, exist_ok=True)
    (home / "config" / "airflow_local_settings.py").write_text(PRELOAD)
    port = free_port()
    execution = f"http://127.0.0.1:{port}/execution/"
    settings = _settings(home, parallelism) | {"AIRFLOW__CORE__EXECUTION_API_SERVER_URL": execution} | dict(env or {})
    with airflow_server(home, env=settings | {"AIRFLOW_API_APPS": "core"}) as server:
        stack = AirflowStack(server, server.environment)
        try:
            where = ("--host", "127.0.0.1", "--port", str(port))
            stack.start("execution-api", "api-server", "--apps", "execution", "--workers", "1", *where)
            stack.start("scheduler", "scheduler", "--skip-serve-logs", STACK_PRELOAD=",".join(preload))
            stack.start("dag-processor", "dag-processor")
            stack.start("triggerer", "triggerer", "--skip-serve-logs")
            stack.wait("the Execution API", lambda: _answers(f"{execution}health"))
            stack.wait("all parts to be healthy", stack.healthy)
            yield stack
        finally:
            stack.end()


def _settings(home: Path, parallelism: int) -> dict[str, str]:
    return {
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": str(parallelism),
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
        "AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "1",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": str(WORKER_LOST_SECONDS),
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "1",
        "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
        "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": str(TRIGGERER_LOST_SECONDS),
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
        "no_proxy": "127.0.0.1,localhost",
        "NO_PROXY": "127.0.0.1,localhost",
    }


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=30, trust_env=False).is_success
    except httpx.TransportError:
        return False


def _zombie(entry: Path) -> bool:
    try:
        return (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
