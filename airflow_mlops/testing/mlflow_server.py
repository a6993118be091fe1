"""A real MLflow server for tests: SQLite, served artifacts, one process, this machine only.

The process is the one that ``mlflow server`` starts in the end. The launcher in front of it is left out, because it
imports MLflow a second time: 4 s instead of 8 s until the first answer. Nothing here is meant for production, and
nothing may outlive the block: the server is ended by its own process group.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import httpx

from airflow_mlops.testing.local_server import tail, uvicorn_server

START_SECONDS = 180.0


@contextlib.contextmanager
def mlflow_server(root: Path) -> Iterator[str]:
    """Run a server that keeps everything below *root*, and yield its address, such as ``http://127.0.0.1:40123``.

    Runs and models are in ``mlflow.db``, artifacts in ``artifacts/`` and the log in ``mlflow.log``. A second server
    on the same *root* finds what the first one kept.

    :raises RuntimeError: it ended or was not healthy within 180 s; the message ends with the last lines of its log
    """
    root = root.resolve()
    (root / "artifacts").mkdir(parents=True, exist_ok=True)
    log = root / "mlflow.log"
    app = "mlflow.server.fastapi_app:app"

    def ready(address: str) -> bool:
        return _healthy(address, log)

    with uvicorn_server(
        "The MLflow server", app, log=log, env=_environment(root), ready=ready, seconds=START_SECONDS
    ) as address:
        yield address


def _environment(root: Path) -> dict[str, str]:
    """Return what ``mlflow server`` hands to its worker (names from ``mlflow.server.constants``)."""
    database = f"sqlite:///{root / 'mlflow.db'}"
    kept = {key: value for key, value in os.environ.items() if "MLFLOW" not in key}
    return kept | {
        "_MLFLOW_SERVER_FILE_STORE": database,
        "_MLFLOW_SERVER_REGISTRY_STORE": database,
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(root / "artifacts"),
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }


def _healthy(address: str, log: Path) -> bool:
    """Say whether the default experiment can be read: then the tables exist and the artifacts are served.

    :raises RuntimeError: it cannot and never will; the first answer comes after the tables were made, or could not be
    """
    try:
        answer = httpx.get(f"{address}/api/2.0/mlflow/experiments/get?experiment_id=0", timeout=30)
    except httpx.TransportError:
        return False
    if answer.is_server_error:
        raise RuntimeError(f"The MLflow server answered {answer.status_code}.\n{tail(log)}")
    return answer.is_success and "mlflow-artifacts:" in answer.text
