"""One command job: a process a node, what it prints, what it leaves, how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Json = dict[str, Any]

GRACE = 0.5
"""Seconds between the request to end and the end by force."""

_OUTPUT = re.compile(r"\$\{\{\s*outputs\.(\w+)\s*\}\}")
_INPUT = re.compile(r"\$\{\{\s*inputs\.(\w+)\s*\}\}")


@dataclass(frozen=True)
class Surroundings:
    """What every node finds: *env* is what the platform sets last, *storage* stands for the workspace's datastores."""

    env: Callable[[str, Json], Mapping[str, str]]
    storage: Path


@dataclass
class Ending:
    """How a job ended: *why* is the platform's error, if it failed."""

    status: str
    why: Json | None = None


class Command:
    """The nodes of one job, each in a folder of its own below *folder*."""

    def __init__(self, name: str, properties: Json, folder: Path, surroundings: Surroundings) -> None:
        self._name, self._properties, self.folder, self._around = name, properties, folder, surroundings
        self._processes: list[subprocess.Popen[bytes]] = []
        self._lock = threading.Lock()
        self._order = ""

    @property
    def nodes(self) -> int:
        """How many there are."""
        return int(self._properties.get("resources", {}).get("instanceCount", 1))

    @property
    def log(self) -> tuple[str, Path]:
        """The name and the file of what node 0 printed."""
        name = "user_logs/std_log.txt" if self.nodes == 1 else "user_logs/std_log_process_0.txt"
        return name, self.folder / "node-0.log"

    @property
    def process_ids(self) -> list[int]:
        """The ids of the nodes' processes, in the order of their ranks."""
        with self._lock:
            return [process.pid for process in self._processes]

    def start(self) -> None:
        """Start every node."""
        port = _free_port()
        with self._lock:
            if not self._order:
                self._processes = [self._start(rank, port) for rank in range(self.nodes)]

    def wait(self, limit: float | None) -> Ending:
        """Wait for the end of all nodes: the first that fails ends the others."""
        end = None if limit is None else time.monotonic() + limit
        while None in (codes := [process.poll() for process in self._processes]):
            if any(codes):
                self._signal(signal.SIGKILL)
            if end is not None and time.monotonic() > end:
                self.stop("timeout")
            time.sleep(0.01)
        self._signal(signal.SIGKILL)
        return self._ending()

    def stop(self, order: str) -> None:
        """End the nodes: *order* is ``cancel``, ``timeout`` or ``preempt``. The first order counts."""
        with self._lock:
            if self._order:
                return
            self._order = order
        threading.Thread(target=self._end, daemon=True).start()

    def _end(self) -> None:
        self._signal(signal.SIGTERM)
        time.sleep(GRACE)
        self._signal(signal.SIGKILL)

    def _ending(self) -> Ending:
        if self._order in ("cancel", "timeout"):
            return Ending("Canceled")
        if self._order == "preempt":
            said = "Nodes of this job got pre-empted. Check if the run has failed or restarted."
            return Ending("Failed", error("UserError", f"AzureMLCompute job failed. PreemptionError: {said}"))
        codes = [process.returncode for process in self._processes if process.returncode]
        codes.sort(reverse=True)  # a node that was killed for another's failure is not the cause
        if not codes:
            return Ending("Completed")
        told = self.log[1].read_text(errors="replace")[-500:]
        said = (
            f"Execution failed. User process 'sh' exited with status code {codes[0]}. "
            f"Please check log file '{self.log[0]}' for error details. Error: {told}"
        )
        return Ending("Failed", error("UserError", said))

    def _start(self, rank: int, port: int) -> subprocess.Popen[bytes]:
        home = self.folder / f"node-{rank}"
        home.mkdir(parents=True)
        env = {"PATH": os.environ["PATH"], "HOME": str(home), **self._properties.get("environmentVariables", {})}
        env |= {**self._around.env(self._name, self._properties), **self._world(rank, port)}
        line = _OUTPUT.sub(lambda found: str(self._mounted(found[1])), self._properties["command"])
        line = _INPUT.sub(lambda found: self._properties["inputs"][found[1]]["value"], line)
        with (self.folder / f"node-{rank}.log").open("wb") as log:
            return subprocess.Popen(
                ["sh", "-c", line], env=env, cwd=home, stdout=log, stderr=log, start_new_session=True
            )

    def _mounted(self, output: str) -> Path:
        uri = self._properties["outputs"][output].get("uri", f"azureml://default/{self._name}/{output}")
        found = self._around.storage / re.sub(r"\W", "_", uri)
        found.mkdir(parents=True, exist_ok=True)
        return found

    def _world(self, rank: int, port: int) -> dict[str, str]:
        """Return the variables of the distribution.

        https://learn.microsoft.com/azure/machine-learning/how-to-train-distributed-gpu
        """
        size, kind = str(self.nodes), self._properties.get("distribution", {}).get("distributionType")
        if kind == "PyTorch":
            where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": str(rank)}
            return {**where, "RANK": str(rank), "LOCAL_RANK": "0", "WORLD_SIZE": size}
        if kind == "Mpi":
            own = {"OMPI_COMM_WORLD_RANK": str(rank), "OMPI_COMM_WORLD_SIZE": size}
            return {**own, "AZ_BATCH_MASTER_NODE": f"127.0.0.1:{port}"}
        if kind == "TensorFlow":
            workers = [f"127.0.0.1:{port + number}" for number in range(self.nodes)]
            config = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": rank}, "environment": "cloud"}
            return {"TF_CONFIG": json.dumps(config)}
        return {}

    def _signal(self, number: signal.Signals) -> None:
        with self._lock:
            for process in self._processes:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)


def error(code: str, message: str) -> Json:
    """Return an error as the run history tells it."""
    return {"error": {"code": code, "message": message, "messageParameters": {}, "details": []}}


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
