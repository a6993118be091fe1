"""One CustomJob at work: queued, pending, running, and its containers as processes of this machine.

It ends when the first node ends, or any node fails. A failed or preempted attempt is made again by the service unless
the job says ``disableRetries``. What runs longer than it may is cancelled by the service.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_mlops.testing.kubernetes.container import Container, Line
from airflow_mlops.testing.vertex.store import Entry, Store

QUEUED, PENDING, RUNNING, SUCCEEDED, FAILED, CANCELLING, CANCELLED = range(1, 8)
SPOT = 4
RESTARTS = 5
"""How often a failed attempt is made again by the service."""

PREEMPTED = "STOCKOUT: a Spot VM of the job was preempted and no other was available."


@dataclass
class Surroundings:
    """What containers find around them.

    :param folder: below it are the buckets, as folders of ``gcs``
    :param port: where the metadata server and Secret Manager are
    """

    folder: Path
    port: int = 0
    pending_seconds: float = 0.05
    stop_seconds: float = 5.0


@dataclass(frozen=True)
class Outcome:
    """How a job ends."""

    state: int
    code: int = 0
    message: str = ""


class CustomRun:
    """Runs one job in a thread of its own."""

    def __init__(self, store: Store, entry: Entry, around: Surroundings) -> None:
        self._store, self._entry, self._around = store, entry, around
        self._changed = threading.Condition()
        self._is_cancelled = self._is_preempted = False
        self.attempts: list[list[Container]] = []
        self._thread = threading.Thread(target=self._go, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._set(QUEUED)
        self._thread.start()

    def cancel(self) -> None:
        """Order the end."""
        with self._store.lock:
            if self._entry.message.state < SUCCEEDED:
                self._set(CANCELLING)
        with self._changed:
            self._is_cancelled = True
            self._changed.notify_all()

    def preempt(self) -> None:
        """Take the machines away, as the service may with those of a SPOT job."""
        assert self._entry.message.job_spec.scheduling.strategy == SPOT, "only SPOT jobs are preempted"
        with self._changed:
            self._is_preempted = True
            self._changed.notify_all()

    def stop(self) -> None:
        """End it now and wait for that."""
        self._around.stop_seconds = 0
        self.cancel()
        self._thread.join(10)

    def wait(self) -> Any:
        """Wait for its end and return the job."""
        self._thread.join()
        return self._entry.message

    @property
    def lines(self) -> list[Line]:
        """Return what the first node printed, in all attempts."""
        return [line for containers in list(self.attempts) for line in containers[0].lines]

    def _go(self) -> None:
        outcome = self._queue() or self._attempts()

        def end(job: Any) -> None:
            job.state = outcome.state
            job.error.code, job.error.message = outcome.code, outcome.message
            if not outcome.code:
                job.ClearField("error")
            job.end_time.GetCurrentTime()

        self._store.change(self._entry, end)

    def _queue(self) -> Outcome | None:
        """Wait for machines."""
        for state in (PENDING, RUNNING):
            with self._changed:
                if self._changed.wait_for(lambda: self._is_cancelled, self._around.pending_seconds):
                    return Outcome(CANCELLED, 1, "CANCELED")
            if state == PENDING:
                self._set(PENDING)
        return None

    def _attempts(self) -> Outcome:
        left = 0 if self._entry.message.job_spec.scheduling.disable_retries else RESTARTS
        while True:
            outcome = self._attempt()
            if outcome.state != FAILED or not left:
                return outcome
            left, self._is_preempted = left - 1, False

    def _attempt(self) -> Outcome:
        """Run all nodes once, until the job is over."""
        try:
            containers = self._nodes()
        except OSError as error:
            return Outcome(FAILED, 3, f"The replica workerpool0-0 exited with a non-zero status of 127. {error}")
        self.attempts.append(containers)
        self._begin()
        allowed = self._entry.message.job_spec.scheduling.timeout.ToNanoseconds() / 1e9 or None
        end = None if allowed is None else time.monotonic() + allowed
        with self._changed:
            while (outcome := self._outcome(containers, end)) is None:
                self._changed.wait(0.5 if end is None else max(0.0, min(0.5, end - time.monotonic())))
        self._end(containers)
        return outcome

    def _outcome(self, containers: list[Container], end: float | None) -> Outcome | None:
        if self._is_cancelled:
            return Outcome(CANCELLED, 1, "CANCELED")
        if self._is_preempted:
            return Outcome(FAILED, 8, PREEMPTED)
        for number, container in enumerate(containers):
            if code := container.exit_code:
                replica = "workerpool0-0" if number == 0 else f"workerpool1-{number - 1}"
                said = f"The replica {replica} exited with a non-zero status of {code}. Termination reason: Error."
                return Outcome(FAILED, 3, f"{said} To find out more about why your job exited please check the logs.")
        if containers[0].exit_code == 0:
            return Outcome(SUCCEEDED)
        if end is not None and time.monotonic() >= end:
            return Outcome(CANCELLED, 1, "CANCELED")
        return None

    def _end(self, containers: list[Container]) -> None:
        """End what still runs: in peace if it can, then by force."""
        end = time.monotonic() + self._around.stop_seconds
        for container in containers:
            container.signal(signal.SIGTERM)
        while any(container.exit_code is None for container in containers):
            if time.monotonic() >= end:
                for container in containers:
                    container.signal(signal.SIGKILL)
            time.sleep(0.02)

    def _begin(self) -> None:
        def begin(job: Any) -> None:
            if job.state != CANCELLING:
                job.state = RUNNING
            if not job.HasField("start_time"):
                job.start_time.GetCurrentTime()

        self._store.change(self._entry, begin)

    def _set(self, state: int) -> None:
        def change(job: Any) -> None:
            if job.state != CANCELLING:
                job.state = state

        self._store.change(self._entry, change)

    def _nodes(self) -> list[Container]:
        pools = self._entry.message.job_spec.worker_pool_specs
        names = [(number, index) for number, pool in enumerate(pools) for index in range(pool.replica_count)]
        hosts = {name: f"127.0.0.1:{_free_port()}" for name in names}
        return [self._container(pools[name[0]].container_spec, name, hosts) for name in names]

    def _container(self, spec: Any, name: tuple[int, int], hosts: Mapping[tuple[int, int], str]) -> Container:
        folder = self._around.folder / "machines" / f"{self._entry.job_id}-{len(self.attempts)}-{name[0]}-{name[1]}"
        (folder / "tmp").mkdir(parents=True)
        environment = self._environment(spec, folder) | {"CLUSTER_SPEC": _cluster(name, hosts)}
        return Container([*spec.command, *spec.args], environment, folder, self._woken)

    def _environment(self, spec: Any, folder: Path) -> dict[str, str]:
        base = self._entry.message.job_spec.base_output_directory.output_uri_prefix.rstrip("/")
        own = {"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(folder / "tmp")}
        own |= {"CLOUD_ML_JOB_ID": self._entry.job_id, "CLOUD_ML_PROJECT_ID": self._entry.project}
        if base:
            parts = (("MODEL_DIR", "model"), ("CHECKPOINT_DIR", "checkpoints"), ("TENSORBOARD_LOG_DIR", "logs"))
            own |= {f"AIP_{key}": f"{base}/{part}/" for key, part in parts}
        service = f"127.0.0.1:{self._around.port}"
        own |= {"GCE_METADATA_HOST": service, "CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER": f"http://{service}/"}
        return own | {one.name: self._mounted(one.value) for one in spec.env}

    def _mounted(self, value: str) -> str:
        """Return a variable's value; a path below ``/gcs`` as it is on this machine, where nothing can be mounted."""
        return f"{self._around.folder}{value}" if value.startswith("/gcs/") else value

    def _woken(self) -> None:
        with self._changed:
            self._changed.notify_all()


def _cluster(name: tuple[int, int], hosts: Mapping[tuple[int, int], str]) -> str:
    """Return ``CLUSTER_SPEC``: https://cloud.google.com/vertex-ai/docs/training/distributed-training."""
    pools: dict[str, list[str]] = {}
    for (pool, _), host in hosts.items():
        pools.setdefault(f"workerpool{pool}", []).append(host)
    task = {"type": f"workerpool{name[0]}", "index": name[1]}
    return json.dumps({"cluster": pools, "environment": "cloud", "task": task})


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
