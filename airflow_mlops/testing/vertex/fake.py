"""The whole fake as one object: where it is, what it saw, and what a test can do to it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.testing.vertex.api import Api
from airflow_mlops.testing.vertex.custom_run import CustomRun, Surroundings
from airflow_mlops.testing.vertex.faults import Faults
from airflow_mlops.testing.vertex.front import Front
from airflow_mlops.testing.vertex.problems import Json
from airflow_mlops.testing.vertex.services import Services
from airflow_mlops.testing.vertex.store import Entry, Store
from airflow_mlops.testing.wire.calls import Calls
from airflow_mlops.testing.wire.listener import Listener

PROJECT, REGION, BUCKET = "acme-ml", "europe-west4", "acme-staging"


class VertexFake:
    """A running fake: ``connection()`` leads to it, ``calls`` counts, ``faults`` disturbs."""

    def __init__(self, folder: Path, *, pending_seconds: float, stop_seconds: float) -> None:
        self.buckets = folder / "gcs"
        (self.buckets / BUCKET).mkdir(parents=True)
        self.calls, self.faults, self._store = Calls(), Faults(), Store()
        self._around = Surroundings(folder, pending_seconds=pending_seconds, stop_seconds=stop_seconds)
        self._api = Api(self._store, self._around)
        self.services = Services(self._store, self.buckets)
        self.templates = self._api.templates
        self._listener = Listener(Front(self._api, self.services, self.faults, self.calls))

    @property
    def address(self) -> str:
        """Return such as ``http://127.0.0.1:40123``."""
        return f"http://127.0.0.1:{self._listener.port}"

    def extras(self, **further: Any) -> Json:
        """Return the extras of a connection of Airflow's Google provider, with ours."""
        endpoints = dict.fromkeys(("aiplatform", "storage", "logging"), self.address)
        own = {"region": REGION, "staging_bucket": f"gs://{BUCKET}/jobs", "endpoints": endpoints}
        return {"project": PROJECT, "is_anonymous": True, "num_retries": 5, **own, **further}

    def connection(self, **further: Any) -> ConnectionInfo:
        """Return a connection."""
        return ConnectionInfo("vertex", extra=self.extras(**further))

    def start(self) -> None:
        """Serve."""
        self._listener.start()
        self._around.port = self._listener.port

    def stop(self) -> None:
        """End the server and every process of a job."""
        self._listener.crash()
        self.faults.settle()
        for entry in list(self._store.entries):
            entry.run.stop()

    def crash(self) -> None:
        """Let the API die: connections break, new ones are refused; jobs go on."""
        self._listener.crash()

    def restart(self) -> None:
        """Start the API again on the same port, with what it stored."""
        self._listener.crash()
        self._listener.start()

    def jobs(self, collection: str = "customJobs", *, label: str = "", project: str = "") -> list[Json]:
        """Return all jobs, oldest first, as the API shows them: of one project, with one stable name."""
        return [
            self._store.shown(entry)
            for entry in self._store.entries
            if entry.collection == collection
            and label in {"", entry.message.labels.get("airflow_mlops_job", "")}
            and project in {"", entry.project}
        ]

    def started(self, job_id: str) -> int:
        """Return how often the program of a CustomJob was started."""
        return len(self._run(job_id).attempts)

    def preempt(self, job_id: str) -> None:
        """Take the machines of a SPOT job away."""
        self._run(job_id).preempt()

    def set_job(self, job_id: str, **fields: Any) -> None:
        """Write fields of a job, such as ``state=8``, as the service would."""
        entry = self._entry(job_id)

        def change(job: Any) -> None:
            for key, value in fields.items():
                setattr(job, key, value)

        self._store.change(entry, change)

    def delete_job(self, job_id: str) -> None:
        """Delete a job as a person would."""
        entry = self._entry(job_id)
        entry.run.stop()
        with self._store.lock:
            self._store.entries.remove(entry)

    def freeze_lists(self, *, is_frozen: bool = True) -> None:
        """Let lists show from now on what there is now; single jobs are shown as they are."""
        self._store.freeze(is_frozen=is_frozen)

    def _run(self, job_id: str) -> CustomRun:
        run = self._entry(job_id).run
        assert isinstance(run, CustomRun)
        return run

    def _entry(self, job_id: str) -> Entry:
        return next(entry for entry in self._store.entries if entry.job_id == job_id.rpartition("/")[2])


@contextlib.contextmanager
def vertex_fake(*, pending_seconds: float = 0.05, stop_seconds: float = 5.0) -> Iterator[VertexFake]:
    """Run a fake for the length of the block; nothing it started outlives it.

    :param pending_seconds: how long a job is queued, and then pending
    :param stop_seconds: from the order to end to the end of a program that does not listen
    """
    with tempfile.TemporaryDirectory(prefix="vertex-fake-", ignore_cleanup_errors=True) as folder:
        fake = VertexFake(Path(folder), pending_seconds=pending_seconds, stop_seconds=stop_seconds)
        try:
            fake.start()
            yield fake
        finally:
            fake.stop()
