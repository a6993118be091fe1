"""The whole fake as one object: where it is, what it saw, and what a test can do to it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.testing.azureml.api import Api
from airflow_mlops.testing.azureml.command import Surroundings
from airflow_mlops.testing.azureml.faults import Faults
from airflow_mlops.testing.azureml.front import Front
from airflow_mlops.testing.azureml.identity import CLIENT, TENANT, Identities
from airflow_mlops.testing.azureml.problems import Json
from airflow_mlops.testing.azureml.store import Store
from airflow_mlops.testing.wire.calls import Calls
from airflow_mlops.testing.wire.certificates import write_certificates
from airflow_mlops.testing.wire.listener import Listener

SUBSCRIPTION = "00000000-1111-2222-3333-444444444444"
WORKSPACE = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/test-rg"
    "/providers/Microsoft.MachineLearningServices/workspaces/test-ws"
)
EXPERIMENT = "77777777-8888-9999-0000-111111111111"
"""Id of the only experiment; jobs may call it what they like."""
COMPUTES = {"cpu": False, "cheap": True}
"""Compute targets of the workspace, and whether each is of low priority."""


class AzureMLFake:
    """A running fake: ``connection()`` leads to it, ``calls`` counts, ``faults`` disturbs, ``vault`` holds secrets."""

    def __init__(self, folder: Path, *, pending: float, finalizing: float) -> None:
        self.ca_file, certificate = write_certificates(folder)
        self.calls, self.faults, self._identities = Calls(), Faults(), Identities()
        self._front: Front | None = None
        self._listener = Listener(self, certificate)
        self._folder, self._pending, self._finalizing = folder, pending, finalizing

    def answer(self, method: str, target: str, headers: Mapping[str, str], raw: bytes) -> Any:
        """Answer one request; nothing is served before :meth:`start`."""
        return self._parts.answer(method, target, headers, raw)

    @property
    def _parts(self) -> Front:
        if self._front is None:
            raise RuntimeError("The fake has not been started.")
        return self._front

    @property
    def _api(self) -> Api:
        return self._parts.api

    @property
    def address(self) -> str:
        """Return such as ``https://127.0.0.1:40123``."""
        return f"https://127.0.0.1:{self._listener.port}"

    @property
    def vault(self) -> dict[str, str]:
        """The secrets of the key vault, whose addresses are ``<address>/secrets/<name>``."""
        return self._identities.vault

    def shorten_run_tokens(self, seconds: float) -> None:
        """Make the tokens that jobs are given for their tracking runs good for so long from now on."""
        self._identities.run_token_seconds = seconds

    def runs(self, name: str) -> list[Json]:
        """Return the runs of a sweep's trials, with what they logged."""
        return self._api.store.children(name)

    @property
    def msi_secret(self) -> str:
        """What the machine of a managed identity knows: its endpoint is ``<address>/msi/token``."""
        return self._identities.msi_secret

    def extras(self, **more: Any) -> dict[str, Any]:
        """Return the extras of a connection that leads here."""
        where = {"resource_group": "test-rg", "workspace": "test-ws", "verify": str(self.ca_file)}
        who = {"tenantId": TENANT, "subscriptionId": SUBSCRIPTION}
        return {**who, **where, "endpoint": self.address, "authority": self.address, **more}

    def connection(self, **more: Any) -> ConnectionInfo:
        """Return a connection with a service principal."""
        secret = self._identities.secret
        return ConnectionInfo("azure", login=CLIENT, password=secret, extra=self.extras(**more))

    def airflow_connection(self, **more: Any) -> dict[str, Any]:
        """Return the same as Airflow writes it in a variable."""
        extra = self.extras(**more)
        return {"conn_type": "azure", "login": CLIENT, "password": self._identities.secret, "extra": extra}

    def start(self) -> None:
        """Serve."""
        self._listener.start()
        address = f"127.0.0.1:{self._listener.port}"
        around = Surroundings(self._env, self._folder / "storage")
        store = Store(WORKSPACE, address)
        folder, times = self._folder / "jobs", (self._pending, self._finalizing)
        api = Api(store, self.faults, folder, WORKSPACE, address, around, *times, COMPUTES, self._identities.issue_run)
        self._front = Front(api, self._identities, self.calls)

    def _env(self, name: str, properties: Json) -> dict[str, str]:
        """Return what the platform sets for a job: its own tracking, always, and where its identity gets tokens."""
        kind = properties.get("identity", {}).get("identityType", "Managed")
        tracking = {
            "MLFLOW_TRACKING_URI": f"azureml://127.0.0.1:{self._listener.port}/mlflow/v1.0{WORKSPACE}",
            "MLFLOW_TRACKING_TOKEN": self._identities.issue_run(name)["access_token"],
            "MLFLOW_RUN_ID": name,
            "MLFLOW_EXPERIMENT_ID": EXPERIMENT,
            "MLFLOW_EXPERIMENT_NAME": properties.get("experimentName", "Default"),
            "AZUREML_RUN_ID": name,
            "SSL_CERT_FILE": str(self.ca_file),
        }
        if kind == "Managed":
            own = {"MSI_ENDPOINT": f"{self.address}/msi/token", "MSI_SECRET": self._identities.msi_secret}
            return {**tracking, **own, "DEFAULT_IDENTITY_CLIENT_ID": CLIENT}
        return {**tracking, "OBO_ENDPOINT": f"{self.address}/obo/token"} if kind == "UserIdentity" else tracking

    def stop(self) -> None:
        """End the server and every process of a job."""
        self._listener.crash()
        if self._front is not None:
            for life in list(self._api.lives.values()):
                life.settle()

    def crash(self) -> None:
        """Let the service be away: connections break, new ones are refused; jobs go on."""
        self._listener.crash()

    def restart(self) -> None:
        """Serve again on the same port, with all that was."""
        self._listener.crash()
        self._listener.start()

    def jobs(self) -> list[Json]:
        """Return all jobs, newest first."""
        return self._api.store.jobs()

    def started(self) -> int:
        """Return how many jobs were ever started."""
        return len(self._api.lives)

    def going(self) -> list[str]:
        """Return the names of jobs of which something runs."""
        return [name for name, life in self._api.lives.items() if not life.is_over]

    def process_ids(self, name: str) -> list[int]:
        """Return the processes of a job's nodes, by rank."""
        return [found for command in self._api.lives[name].commands for found in command.process_ids]

    def preempt(self, name: str) -> None:
        """Take the nodes of a job away, as happens to low priority ones."""
        self._api.life(name).stop("preempt")

    def set_job(self, name: str, **properties: Any) -> None:
        """Write properties of a job, such as ``status="Paused"``, as the service would."""
        self._api.store.change(name, **properties)

    def set_run(self, name: str, **fields: Any) -> None:
        """Write what the run history tells of a job, such as its ``error``."""
        self._api.store.keep_run(name, **fields)

    def delete_job(self, name: str) -> None:
        """Delete a job as a person would."""
        self._api.store.remove(name)

    def add_component(self, name: str, version: str, spec: Json) -> str:
        """Publish a version of a component and return its id."""
        identifier = f"{WORKSPACE}/components/{name}/versions/{version}"
        self._api.store.components[identifier] = {"id": identifier, "properties": {"componentSpec": spec}}
        return identifier

    def shell_pipeline(self, steps: Mapping[str, str], **inputs: str) -> Json:
        """Return a pipeline job whose steps are shell scripts; a script sees inputs as ``${{parent.inputs.x}}``."""
        command = {"type": "command", "inputs": {"script": {"type": "string"}}, "command": "sh -c '${{inputs.script}}'"}
        component = self.add_component("shell", "1", command)
        return {
            "jobType": "Pipeline",
            "inputs": {key: {"jobInputType": "literal", "value": value} for key, value in inputs.items()},
            "jobs": {
                key: {
                    "type": "command",
                    "componentId": component,
                    "inputs": {"script": {"job_input_type": "literal", "value": script}},
                }
                for key, script in steps.items()
            },
        }


@contextlib.contextmanager
def azureml_fake(*, pending: float = 0.05, finalizing: float = 0.05) -> Iterator[AzureMLFake]:
    """Run a fake for the length of the block; nothing it started outlives it.

    :param pending: seconds a job is in the queue
    :param finalizing: seconds from the end of its program to the end of the job
    """
    with tempfile.TemporaryDirectory(prefix="azureml-fake-", ignore_cleanup_errors=True) as folder:
        fake = AzureMLFake(Path(folder), pending=pending, finalizing=finalizing)
        try:
            fake.start()
            yield fake
        finally:
            fake.stop()
