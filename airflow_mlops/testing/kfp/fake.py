"""The whole fake as one object: where it is, what it saw, and what a test can do to it."""

from __future__ import annotations

import contextlib
import importlib
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.testing.kfp.api import Api
from airflow_mlops.testing.kfp.faults import Faults
from airflow_mlops.testing.kfp.front import Front
from airflow_mlops.testing.kfp.problems import Json
from airflow_mlops.testing.kfp.store import Store
from airflow_mlops.testing.wire.calls import Calls
from airflow_mlops.testing.wire.certificates import write_certificates
from airflow_mlops.testing.wire.listener import Listener


class KfpFake:
    """A running fake: ``connection()`` and ``configuration()`` lead to it, ``calls`` counts, ``faults`` disturbs."""

    def __init__(
        self, folder: Path, *, multi_user: bool, tells_errors: bool, pending_seconds: float, takes_run_ids: bool
    ) -> None:
        self.token = secrets.token_urlsafe(24)
        self.ca_file, certificate = write_certificates(folder)
        self.calls, self.faults = Calls(), Faults()
        self._store = Store()
        self._api = Api(self._store, self.faults, folder, multi_user, tells_errors, pending_seconds, takes_run_ids)
        self._listener = Listener(Front(self.token, self._api, self.calls), certificate)

    @property
    def address(self) -> str:
        """Return such as ``https://127.0.0.1:40123``."""
        return f"https://127.0.0.1:{self._listener.port}"

    def connection(self, **extras: Any) -> ConnectionInfo:
        """Return a connection with the address, the authority and the token."""
        return ConnectionInfo("kfp", self.address, password=self.token, extra={"verify": str(self.ca_file), **extras})

    def configuration(self) -> Any:
        """Return a ``kfp_server_api.Configuration`` with the address, the authority and the token."""
        client = importlib.import_module("kfp_server_api")
        configuration = client.Configuration(host=self.address, api_key={"authorization": f"Bearer {self.token}"})
        configuration.ssl_ca_cert = str(self.ca_file)
        return configuration

    def start(self) -> None:
        """Serve, with the experiment ``Default`` of a server for one user."""
        if not self._api.multi_user:
            self._store.add_experiment({"display_name": "Default"}, "")
        self._listener.start()

    def stop(self) -> None:
        """End the server and every process of a task."""
        self._listener.crash()
        self.faults.settle()
        for _, workflow in self._api.workflows:
            workflow.stop()

    def crash(self) -> None:
        """Let the API server die: connections break, new ones are refused; workflows go on."""
        self._listener.crash()

    def restart(self) -> None:
        """Start the API server again on the same port, with what it stored."""
        self._listener.crash()
        self._listener.start()

    def runs(self) -> list[Json]:
        """Return all runs, oldest first."""
        return self._store.runs()

    def workflows(self, run_id: str = "") -> int:
        """Return how many workflows were started, in all or for one run. More than one for a run is a double run."""
        return sum(run_id in {"", known} for known, _ in self._api.workflows)

    def going(self) -> int:
        """Return how many workflows have not ended."""
        return sum(not workflow.is_over for _, workflow in self._api.workflows)

    def upload(self, name: str, version: str, pipeline: Json, namespace: str = "") -> Json:
        """Keep a version of a pipeline, of one namespace or for all, and return it."""
        return self._store.upload(name, version, pipeline, namespace)

    def set_run(self, run_id: str, **fields: Any) -> None:
        """Write fields of a run, such as ``state="PAUSED"``, as the server would."""
        self._store.change_run(run_id, **fields)

    def delete_run(self, run_id: str) -> None:
        """Delete a run as a person would."""
        self._api.act("DeleteRun", [run_id], {}, None)


@contextlib.contextmanager
def kfp_fake(
    *,
    multi_user: bool = False,
    tells_errors: bool = True,
    pending_seconds: float = 0.05,
    takes_run_ids: bool = True,
) -> Iterator[KfpFake]:
    """Run a fake for the length of the block; nothing it started outlives it.

    :param multi_user: namespaces matter, and every run needs an experiment
    :param tells_errors: a failed task says why, as the API promises; released servers up to 2.17 do not fill it in
    :param pending_seconds: from the start of a run to its first task
    :param takes_run_ids: use the id that the client gives, as all releases do
    """
    with tempfile.TemporaryDirectory(prefix="kfp-fake-", ignore_cleanup_errors=True) as folder:
        fake = KfpFake(
            Path(folder),
            multi_user=multi_user,
            tells_errors=tells_errors,
            pending_seconds=pending_seconds,
            takes_run_ids=takes_run_ids,
        )
        try:
            fake.start()
            yield fake
        finally:
            fake.stop()
