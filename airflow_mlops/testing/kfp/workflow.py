"""One workflow: the processes of a run's tasks, one after the other, and what it reports to the server meanwhile.

A workflow that has started goes on until it ends or is terminated, whether or not the server knows its run.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from airflow_mlops.testing.kfp.plan import Step, command_line, inputs_of
from airflow_mlops.testing.kfp.problems import Json

Report = Callable[[str, list[Json]], bool]
"""Takes the state of the whole and of each node so far; false when the server does not know the run."""

REPORT_SECONDS = 5.0
"""How long an end is reported again to a server that does not know the run yet."""

TOLD_BYTES = 500


class Workflow:
    """Runs *steps* in a thread of its own."""

    def __init__(self, steps: list[Step], given: Json, folder: Path, report: Report, *, pause: float) -> None:
        self._steps, self._given, self._folder, self._report, self._pause = steps, given, folder, report, pause
        self._nodes: list[Json] = [{"display_name": "root", "state": "RUNNING"}]
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._ordered = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def terminate(self) -> None:
        """Order the end: the task that runs is killed, and no other begins."""
        with self._lock:
            self._ordered.set()
            if self._process is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)

    def stop(self) -> None:
        """End it and wait for its end."""
        self.terminate()
        self._thread.join(10)

    @property
    def is_over(self) -> bool:
        """Whether its last report was made."""
        return not self._thread.is_alive()

    def _run(self) -> None:
        made: dict[str, Json] = {}
        self._ordered.wait(self._pause)
        for step in self._steps:
            self._nodes += [{"display_name": f"{step.name}-driver", "state": "SUCCEEDED"}]
            node: Json = {"display_name": step.name, "state": "RUNNING"}
            self._nodes += [node]
            self._tell("RUNNING")
            why = "terminated" if self._ordered.is_set() else self._work(step, made)
            node |= {"state": "FAILED", "error": {"code": 13, "message": why}} if why else {"state": "SUCCEEDED"}
            self._nodes += [{"display_name": "executor", "state": node["state"]}]
            if why:
                break
        state = "FAILED" if self._ordered.is_set() or (self._steps and why) else "SUCCEEDED"
        self._nodes[0]["state"] = state
        end = time.monotonic() + REPORT_SECONDS
        while not self._tell(state) and not self._ordered.is_set() and time.monotonic() < end:
            time.sleep(0.02)

    def _tell(self, state: str) -> bool:
        """Report; a run that was told to end is CANCELING before it is anything else."""
        nodes, is_known = [dict(node) for node in self._nodes], True
        if self._ordered.is_set() and state != "SUCCEEDED":
            is_known = self._report("CANCELING", nodes)
        if state != "RUNNING" or not self._ordered.is_set():
            is_known = self._report(state, nodes)
        return is_known

    def _work(self, step: Step, made: dict[str, Json]) -> str:
        """Run one task and return why it failed, or an empty text."""
        folder = self._folder / step.name
        folder.mkdir(parents=True)
        command = command_line(step, inputs_of(step, self._given, made), str(folder))
        env = {"PATH": os.environ["PATH"], **{one["name"]: one["value"] for one in step.container.get("env", [])}}
        with (folder / ".log").open("wb") as log:
            code = self._wait(command, env, folder, log.fileno())
        if code:
            told = (folder / ".log").read_text(errors="replace")[-TOLD_BYTES:].strip()
            return f"Error (exit code {code}): {told}"
        made[step.name] = {name: _value(folder / name) for name in step.outputs}
        return ""

    def _wait(self, command: list[str], env: dict[str, str], folder: Path, log: int) -> int:
        with self._lock:
            if self._ordered.is_set():
                return -signal.SIGKILL
            try:
                self._process = subprocess.Popen(
                    command, env=env, cwd=folder, stdout=log, stderr=log, start_new_session=True
                )
            except OSError as error:
                os.write(log, f"{error}\n".encode())
                return 127
        return self._process.wait()


def _value(path: Path) -> object:
    """Return an output parameter: JSON where it is some, else text. A missing one is empty."""
    found = path.read_text() if path.exists() else ""
    try:
        return json.loads(found)
    except ValueError:
        return found
