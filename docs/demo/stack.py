"""The demo's servers: real Airflow, MLflow and the gateway, on free loopback ports, all below one folder.

Every server is started in a session of its own and remembered with its process id and start time, so that stopping
ends exactly what was started here and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

BIN = Path(sys.executable).parent
REPOSITORY = Path(__file__).resolve().parents[2]
START_SECONDS = 150


@dataclass(frozen=True)
class Server:
    """A program to start and the address that answers once it is ready (``None``: it has none)."""

    name: str
    command: tuple[str, ...]
    health: str | None = None


class Stack:
    """The servers of one demo folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.settings = _settings(root / "settings.json")
        self.airflow_url = f"http://127.0.0.1:{self.settings['airflow_port']}"
        self.mlflow_url = f"http://127.0.0.1:{self.settings['mlflow_port']}"
        self.gateway_url = f"http://127.0.0.1:{self.settings['gateway_port']}"
        self.password = str(self.settings["password"])

    def environment(self) -> dict[str, str]:
        """Return the environment of every server: Airflow's settings and the three connections of the templates."""
        home, port = self.root / "airflow", self.settings["airflow_port"]
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "MLFLOW", "_AIRFLOW"))}
        return kept | {
            "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.root / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(REPOSITORY / "plugins"),
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__MLOPS__DEPLOYMENT_ID": "demo",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__FERNET_KEY": str(self.settings["fernet_key"]),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__BASE_URL": self.airflow_url,
            "AIRFLOW__API__SECRET_KEY": str(self.settings["secret_key"]),
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API_AUTH__JWT_SECRET": str(self.settings["jwt_secret"]),
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "30",
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
            "AIRFLOW_CONN_MLFLOW_DEFAULT": json.dumps({"conn_type": "mlflow", "host": self.mlflow_url}),
            "AIRFLOW_CONN_GATEWAY_DEFAULT": json.dumps({"conn_type": "mlops_gateway", "host": self.gateway_url}),
            "AIRFLOW_CONN_DVC_DEFAULT": json.dumps(
                {
                    "conn_type": "dvc",
                    "host": str(self.root / "repository.git"),
                    "extra": {"workdir": str(self.root / "work")},
                }
            ),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "DO_NOT_TRACK": "true",
            "DVC_NO_ANALYTICS": "true",
            "GX_ANALYTICS_ENABLED": "false",
        }

    def servers(self) -> tuple[Server, ...]:
        """Return the programs, in the order of their start."""
        mlflow = self.root / "mlflow"
        return (
            Server(
                "mlflow",
                (
                    *(str(BIN / "mlflow"), "server", "--host", "127.0.0.1"),
                    *("--port", str(self.settings["mlflow_port"]), "--workers", "1"),
                    *("--backend-store-uri", f"sqlite:///{mlflow / 'mlflow.db'}"),
                    *("--artifacts-destination", str(mlflow / "artifacts")),
                ),
                f"{self.mlflow_url}/health",
            ),
            Server(
                "gateway",
                (
                    *(sys.executable, "-m", "airflow_mlops.serving", "--host", "127.0.0.1"),
                    *("--port", str(self.settings["gateway_port"]), "--root", str(self.root / "gateway")),
                ),
                f"{self.gateway_url}/health",
            ),
            Server("api-server", (str(BIN / "airflow"), "api-server"), f"{self.airflow_url}/api/v2/monitor/health"),
            Server("scheduler", (str(BIN / "airflow"), "scheduler", "--skip-serve-logs")),
            Server("dag-processor", (str(BIN / "airflow"), "dag-processor")),
            Server("triggerer", (str(BIN / "airflow"), "triggerer", "--skip-serve-logs")),
        )

    def start(self, say: Callable[[str], None]) -> None:
        """Start whatever does not run yet and wait until all of it answers."""
        for folder in ("mlflow", "gateway", "airflow", "logs", "pids"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        (self.root / "airflow" / "passwords.json").write_text(json.dumps({"admin": self.password}))
        servers = self.servers()
        for server in servers[:2]:
            self._start(server)
        if not self._alive("api-server"):
            say("preparing Airflow's database")
            self._run((str(BIN / "airflow"), "db", "migrate"), "migrate")
        for server in servers[2:]:
            self._start(server)
        for server in servers:
            self._wait(server)
            say(f"{server.name} is ready")

    def stop(self) -> list[str]:
        """End every server started here, newest first, and return their names."""
        running = {server.name: found for server in reversed(self.servers()) if (found := self._alive(server.name))}
        _end(list(running.values()))
        for server in self.servers():
            (self.root / "pids" / server.name).unlink(missing_ok=True)
        return list(running)

    def _start(self, server: Server) -> None:
        if self._alive(server.name):
            return
        with (self.root / "logs" / f"{server.name}.log").open("ab") as log:
            process = subprocess.Popen(
                server.command,
                cwd=self.root,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        started = psutil.Process(process.pid).create_time()
        (self.root / "pids" / server.name).write_text(json.dumps({"pid": process.pid, "started": started}))

    def _run(self, command: tuple[str, ...], name: str) -> None:
        done = subprocess.run(
            command, cwd=self.root, env=self.environment(), capture_output=True, text=True, check=False
        )
        (self.root / "logs" / f"{name}.log").write_text(done.stdout + done.stderr)
        if done.returncode:
            raise SystemExit(f"`{' '.join(command)}` failed:\n{(done.stdout + done.stderr)[-2000:]}")

    def _alive(self, name: str) -> psutil.Process | None:
        try:
            noted = json.loads((self.root / "pids" / name).read_text())
            process = psutil.Process(noted["pid"])
        except (FileNotFoundError, psutil.NoSuchProcess):
            return None
        same = abs(process.create_time() - noted["started"]) < 1 and process.status() != psutil.STATUS_ZOMBIE
        return process if same else None

    def _wait(self, server: Server) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if not self._alive(server.name):
                raise SystemExit(f"{server.name} ended while starting. Its log ends with:\n{self._log_tail(server)}")
            if server.health is None or _answers(server.health):
                return
            time.sleep(0.3)
        raise SystemExit(
            f"{server.name} was not ready in {START_SECONDS} s. Its log ends with:\n{self._log_tail(server)}"
        )

    def _log_tail(self, server: Server) -> str:
        log = self.root / "logs" / f"{server.name}.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-25:])


def _settings(file: Path) -> dict[str, str | int]:
    """Return the folder's ports and secrets; they are made once, so that a second start has the same addresses."""
    if file.exists():
        return dict(json.loads(file.read_text()))
    from cryptography.fernet import Fernet

    with contextlib.ExitStack() as held:
        ports = [held.enter_context(_bound()).getsockname()[1] for _ in range(3)]
    found: dict[str, str | int] = {
        **dict(zip(("airflow_port", "mlflow_port", "gateway_port"), ports, strict=True)),
        "password": secrets.token_urlsafe(9),
        "jwt_secret": secrets.token_hex(32),
        "secret_key": secrets.token_hex(32),
        "fernet_key": Fernet.generate_key().decode(),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(mode=0o600)
    file.write_text(json.dumps(found))
    return found


def _bound() -> socket.socket:
    held = socket.socket()
    held.bind(("127.0.0.1", 0))
    return held


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2, trust_env=False).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _end(servers: list[psutil.Process]) -> None:
    """Ask all *servers* to end at once; what is left of them and their children after 10 s is killed."""
    family = list(servers)
    for server in servers:
        with contextlib.suppress(psutil.NoSuchProcess):
            family += server.children(recursive=True)
            server.terminate()
    _, left = psutil.wait_procs(family, timeout=10)
    for survivor in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            survivor.kill()


def copy_templates(root: Path) -> None:
    """Put the template DAGs where the demo's Airflow looks for them, with the demo's project file."""
    shutil.copytree(
        REPOSITORY / "dags", root / "dags", dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
    )


def write_project(root: Path) -> None:
    """Point the template's project file to the demo's folders, with a rollout of seconds instead of minutes."""
    file = root / "dags" / "projects" / "flights.json"
    project = json.loads(file.read_text()) | {
        "landing": str(root / "landing" / "flights"),
        "capture_dir": str(root / "gateway" / "capture"),
        "defaults": {"steps": [30, 100], "bake": 5, "max_prediction_shift": 0.5},
    }
    file.write_text(json.dumps(project, indent=2))
