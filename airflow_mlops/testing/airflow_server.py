"""A real Airflow API server for tests and the demo: SQLite, known users, this machine only.

It is Airflow's own ``api-server`` with its ``SimpleAuthManager``, in an ``AIRFLOW_HOME`` of its own. No scheduler runs
beside it. Nothing here is meant for production, and nothing may outlive the block: the server is ended by its own
process group.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

START_SECONDS = 120.0
STOP_SECONDS = 10.0

USERS: Mapping[str, str] = {"admin": "admin", "viewer": "viewer", "stranger": ""}
"""User -> role. The stranger has no role: they can sign in and may see nothing."""


@dataclass(frozen=True)
class AirflowServer:
    """A running server.

    :param url: address of the UI, without a slash at the end
    :param home: its ``AIRFLOW_HOME``; the log of the server is ``api-server.log``
    :param passwords: user -> password
    """

    url: str
    home: Path
    passwords: Mapping[str, str] = field(repr=False)

    def token(self, user: str) -> str:
        """Sign *user* in and return the token for an ``Authorization: Bearer`` header."""
        body = {"username": user, "password": self.passwords[user]}
        answer = httpx.post(f"{self.url}/auth/token", json=body, timeout=30).raise_for_status()
        return str(answer.json()["access_token"])


@contextlib.contextmanager
def airflow_server(
    home: Path, *, env: Mapping[str, str] | None = None, users: Mapping[str, str] = USERS
) -> Iterator[AirflowServer]:
    """Run an API server that keeps everything below *home*, and yield it when it answers.

    :param env: further environment variables, for example ``AIRFLOW_CONN_MLFLOW_DEFAULT``
    :param users: user -> role (``viewer``, ``user``, ``op``, ``admin``, or empty for none)
    :raises RuntimeError: it ended or was not healthy within 120 s; the message ends with the last lines of its log
    """
    home = home.resolve()
    home.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    passwords = {user: secrets.token_urlsafe(12) for user in users}
    variables = _environment(home, passwords, users) | dict(env or {})
    log = home / "api-server.log"
    with log.open("ab") as out:
        _migrate(variables, out.fileno(), log)
        where = ["--host", "127.0.0.1", "--port", str(port)]
        server = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", *where, "--no-access-log", "airflow.api_fastapi.main:app"],
            cwd=home,
            env=variables,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_healthy(server, url, log)
        yield AirflowServer(url, home, passwords)
    finally:
        _stop(server)


def _environment(home: Path, passwords: Mapping[str, str], users: Mapping[str, str]) -> dict[str, str]:
    """Return a clean Airflow environment: nothing of the caller's own Airflow gets in."""
    known = home / "passwords.json"
    known.write_text(json.dumps(dict(passwords)))
    known.chmod(0o600)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")}
    return kept | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{user}:{role}" for user, role in users.items()),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(known),
        "AIRFLOW__CORE__FERNET_KEY": "",
        "AIRFLOW__API__SECRET_KEY": secrets.token_hex(32),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "DO_NOT_TRACK": "true",
    }


def _migrate(variables: Mapping[str, str], out: int, log: Path) -> None:
    command = [sys.executable, "-m", "airflow", "db", "migrate"]
    done = subprocess.run(command, env=dict(variables), stdout=out, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise RuntimeError(f"Airflow could not prepare its database.\n{_tail(log)}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_healthy(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RuntimeError(f"The API server ended with code {server.returncode}.\n{_tail(log)}")
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/api/v2/version", timeout=30).is_success:
                return
        time.sleep(0.1)
    raise RuntimeError(f"The API server was not healthy after {START_SECONDS:.0f} s.\n{_tail(log)}")


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
