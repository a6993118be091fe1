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
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from airflow_mlops.testing.local_server import tail, uvicorn_server

START_SECONDS = 120.0

USERS: Mapping[str, str] = {"admin": "admin", "viewer": "viewer", "stranger": ""}
"""User -> role. The stranger has no role: they can sign in and may see nothing."""


@dataclass(frozen=True)
class AirflowServer:
    """A running server.

    :param url: address of the UI, without a slash at the end
    :param home: its ``AIRFLOW_HOME``; the log of the server is ``api-server.log``
    :param passwords: user -> password
    :param environment: what another part of this Airflow needs, and more: it holds secrets
    """

    url: str
    home: Path
    passwords: Mapping[str, str] = field(repr=False)
    environment: Mapping[str, str] = field(repr=False)

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
    passwords = {user: secrets.token_urlsafe(12) for user in users}
    variables = _environment(home, passwords, users) | dict(env or {})
    log = home / "api-server.log"
    _migrate(variables, log)
    app = "airflow.api_fastapi.main:app"
    with uvicorn_server("The API server", app, log=log, env=variables, ready=_healthy, seconds=START_SECONDS) as url:
        yield AirflowServer(url, home, passwords, variables)


def _environment(home: Path, passwords: Mapping[str, str], users: Mapping[str, str]) -> dict[str, str]:
    """Return a clean Airflow environment: nothing of the caller's own Airflow gets in."""
    known = home / "passwords.json"
    known.write_text(json.dumps(dict(passwords)))
    known.chmod(0o600)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")}
    return kept | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}?timeout=30",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{user}:{role}" for user, role in users.items()),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(known),
        "AIRFLOW__CORE__FERNET_KEY": "",
        "AIRFLOW__API__SECRET_KEY": secrets.token_hex(32),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
        "DO_NOT_TRACK": "true",
    }


def _migrate(variables: Mapping[str, str], log: Path) -> None:
    command = [sys.executable, "-m", "airflow", "db", "migrate"]
    with log.open("ab") as out:
        done = subprocess.run(command, env=dict(variables), stdout=out, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise RuntimeError(f"Airflow could not prepare its database.\n{tail(log)}")


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/api/v2/version", timeout=30).is_success
    except httpx.TransportError:
        return False
