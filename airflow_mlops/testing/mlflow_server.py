"""A real MLflow server for tests: SQLite, served artifacts, one process, this machine only.

The process is the one that ``mlflow server`` starts in the end. The launcher in front of it is left out, because it
imports MLflow a second time: 4 s instead of 8 s until the first answer. Nothing here is meant for production, and
nothing may outlive the block: the server is ended by its own process group.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

START_SECONDS = 180.0
STOP_SECONDS = 10.0


@contextlib.contextmanager
def mlflow_server(root: Path) -> Iterator[str]:
    """Run a server that keeps everything below *root*, and yield its address, such as ``http://127.0.0.1:40123``.

    Runs and models are in ``mlflow.db``, artifacts in ``artifacts/`` and the log in ``mlflow.log``. A second server
    on the same *root* finds what the first one kept.

    :raises RuntimeError: it ended or was not healthy within 180 s; the message ends with the last lines of its log
    """
    root = root.resolve()
    (root / "artifacts").mkdir(parents=True, exist_ok=True)
    port = _free_port()
    with (root / "mlflow.log").open("ab") as log:
        where = ["--host", "127.0.0.1", "--port", str(port), "--no-access-log"]
        server = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", *where, "mlflow.server.fastapi_app:app"],
            cwd=root,
            env=_environment(root),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_until_healthy(server, address, root / "mlflow.log")
        yield address
    finally:
        _stop(server)


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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_healthy(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    """Return once the default experiment can be read: then the tables exist and the artifacts are served."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RuntimeError(f"The MLflow server ended with code {server.returncode}.\n{_tail(log)}")
        with contextlib.suppress(httpx.TransportError):
            answer = httpx.get(f"{address}/api/2.0/mlflow/experiments/get?experiment_id=0", timeout=30)
            if answer.is_success and "mlflow-artifacts:" in answer.text:
                return
            if answer.is_server_error:  # its first answer comes after the tables were made, or could not be
                raise RuntimeError(f"The MLflow server answered {answer.status_code}.\n{_tail(log)}")
        time.sleep(0.05)
    raise RuntimeError(f"The MLflow server was not healthy after {START_SECONDS:.0f} s.\n{_tail(log)}")


def _tail(log: Path, lines: int = 25) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def _stop(server: subprocess.Popen[bytes]) -> None:
    """End the server's process group, by force if it does not go on its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGTERM)
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
