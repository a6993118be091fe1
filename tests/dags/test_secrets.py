"""No secret is left anywhere: the templates run with planted ones, then every byte they left behind is searched.

The run has an Airflow of its own, in processes of its own: the planted values are in its environment and nowhere else.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import census
import pytest
from conftest import NOBODY, ROOT, make_repository

from airflow_mlops.testing.gateway import running_gateway
from airflow_mlops.testing.mlflow_server import mlflow_server as serve_mlflow

PLANTED = {
    what: f"{what.replace('_', '-')}-{secrets.token_hex(12)}"
    for what in ("git_password", "remote_option", "gateway_token", "mlflow_token", "licence")
}

SCRIPT = '''
"""Train as the demo does, after saying which secrets came through, by their digests."""

import hashlib
import os
import runpy
import sys
from pathlib import Path

for name in ("LICENCE_KEY", "MLFLOW_TRACKING_TOKEN"):
    print(name, hashlib.sha256(os.environ[name].encode()).hexdigest(), flush=True)
runpy.run_path(str(Path(sys.argv[0]).with_name("train.py")), run_name="__main__")
'''

ASKING = {"data_revision": "2015", "training_secret_env": {"LICENCE_KEY": "PLANTED_LICENCE"}}
"""The form of the training DAG: the job wants a secret of the worker, by its name."""

RUN = """
import json, os, runpy, sys
dag = runpy.run_path(os.environ["AIRFLOW_HOME"] + f"/dags/{sys.argv[1]}.py")["dag"]
found = dag.test(run_conf=json.loads(sys.argv[2]))
sys.exit(str(found.state) != "success")
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_planted_secret_is_left_anywhere(tmp_path: Path) -> None:
    """Files, databases, logs, artifacts, git history and argument lists hold no secret, plain or encoded.

    The one file that may is the token file which the gateway was given: it also shows that the search finds.
    """
    prepare(tmp_path)
    arguments: set[bytes] = set()
    with (
        serve_mlflow(tmp_path / "mlflow") as mlflow_url,
        running_gateway(tmp_path / "gateway", token=PLANTED["gateway_token"]) as gateway,
        bucket(tmp_path / "bucket") as remote_url,
        watched(arguments),
    ):
        environment = environment_of(tmp_path, mlflow_url, gateway.url, remote_url)
        host = f"http://ci:{PLANTED['git_password']}@127.0.0.1:9/data.git"
        away = {"AIRFLOW_CONN_DVC_DEFAULT": json.dumps({"conn_type": "dvc", "host": host})}
        said = [
            run(tmp_path, environment, "-m", "airflow", "db", "migrate"),
            run(tmp_path, environment, "-c", RUN, "publish_data", '{"tag": "2015"}'),
            run(tmp_path, environment, "-c", RUN, "train_and_deploy", json.dumps(ASKING)),
            run(tmp_path, environment | away, "-c", RUN, "publish_data", "{}", status=1),
        ]
    assert "127.0.0.1:9" in said[-1], "the failure was not about the server that is away"
    (tmp_path / "said.txt").write_text("\n".join(said))
    assert any(b"train.py" in one or b"guarded.py" in one for one in arguments), "the job was not watched"
    (log,) = (tmp_path / "airflow" / "mlops" / "jobs").glob("*/log.txt")
    for name, value in (("LICENCE_KEY", "licence"), ("MLFLOW_TRACKING_TOKEN", "mlflow_token")):
        assert f"{name} {digest(PLANTED[value])}" in log.read_text(), "the job did not get its secret"
    assert files_with_secrets(tmp_path) == {"gateway/token": ["gateway_token"]}
    assert [named for one in arguments if (named := named_in(one))] == []
    assert [named for one in git_objects(tmp_path / "data.git") if (named := named_in(one))] == []


class Bucket(BaseHTTPRequestHandler):
    """A DVC remote over HTTP that opens for the planted token alone."""

    root: Path

    def do_GET(self) -> None:
        file = self.root / self.path.lstrip("/")
        if self.headers.get("X-Token") != PLANTED["remote_option"]:
            return self.answer(403)
        return self.answer(200, file.read_bytes()) if file.is_file() else self.answer(404)

    do_HEAD = do_GET  # noqa: N815 - names of http.server

    def do_PUT(self) -> None:
        if self.headers.get("X-Token") != PLANTED["remote_option"]:
            return self.answer(403)
        file = self.root / self.path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"".join(self.chunks()))
        return self.answer(200)

    def chunks(self) -> Iterator[bytes]:
        """Yield the body."""
        if length := self.headers.get("content-length"):
            yield self.rfile.read(int(length))
            return
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def answer(self, status: int, content: bytes = b"") -> None:
        """Send an answer; HEAD gets its size alone."""
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        """Keep the test's output clean."""


@contextmanager
def bucket(root: Path) -> Iterator[str]:
    """Run a remote that keeps its objects below *root*, and yield its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Bucket,), {"root": root}))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def prepare(root: Path) -> None:
    """Make the repository, the landed data and the DAGs, as they are."""
    make_repository(root)
    census.write_year(2015, root / "landing", rows=2000)
    add_script(root)
    dags = root / "airflow" / "dags"
    (dags / "projects").mkdir(parents=True)
    project = json.loads(census.project(root)) | {"command": ["python", "{code}/guarded.py", "--target", census.TARGET]}
    (dags / "projects" / "census.json").write_text(json.dumps(project))
    for name in ("publish_data", "train_and_deploy"):
        shutil.copy(ROOT / "dags" / f"{name}.py", dags)
    (root / "tmp").mkdir()


def add_script(root: Path) -> None:
    """Commit the script that says what it got."""
    (root / "seed" / "guarded.py").write_text(SCRIPT)
    for command in (
        ["git", "add", "."],
        ["git", "commit", "-q", "-m", "A script with secrets"],
        ["git", "push", "-q", str(root / "data.git"), "main"],
    ):
        subprocess.run(command, cwd=root / "seed", check=True, env=os.environ | NOBODY)


def environment_of(root: Path, mlflow_url: str, gateway_url: str, remote_url: str) -> dict[str, str]:
    """Return what the processes of Airflow get: every secret in a connection or a variable."""
    remote_options = {
        "auth": "custom",
        "custom_auth_header": "X-Token",
        "password": PLANTED["remote_option"],
        "method": "PUT",
    }
    connections = {
        "MLFLOW_DEFAULT": {"conn_type": "mlflow", "host": mlflow_url, "password": PLANTED["mlflow_token"]},
        "GATEWAY_DEFAULT": {
            "conn_type": "mlops_gateway",
            "host": gateway_url,
            "password": PLANTED["gateway_token"],
        },
        "DVC_DEFAULT": {
            "conn_type": "dvc",
            "host": str(root / "data.git"),
            "login": "ci",
            "password": PLANTED["git_password"],
            "extra": {"workdir": str(root / "work"), "remote_url": remote_url, "remote_options": remote_options},
        },
    }
    own = {
        "AIRFLOW_HOME": str(root / "airflow"),
        "TMPDIR": str(root / "tmp"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PLANTED_LICENCE": PLANTED["licence"],
    }
    return os.environ | own | {f"AIRFLOW_CONN_{name}": json.dumps(value) for name, value in connections.items()}


def run(root: Path, environment: dict[str, str], *arguments: str, status: int = 0) -> str:
    """Run Python with these arguments to its end, which must be *status*, and return what it printed."""
    ended = subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=root, capture_output=True, text=True, check=False
    )
    assert ended.returncode == status, (ended.stdout + ended.stderr)[-5000:]
    return ended.stdout + ended.stderr


@contextmanager
def watched(seen: set[bytes]) -> Iterator[None]:
    """Collect the argument lists of all processes of this machine, four times a second."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.25):
            for file in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.add(file.read_bytes())
                except OSError:  # it ended meanwhile
                    continue

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def named_in(content: bytes) -> list[str]:
    """Return the names of the planted secrets that *content* holds, plain or in base64 at any offset."""
    return [name for name, value in PLANTED.items() if any(form in content for form in forms(value))]


def forms(value: str) -> list[bytes]:
    """Return a secret as it is, and the part of its base64 forms that does not depend on what stands around it."""
    padded = [base64.b64encode(b"\0" * shift + value.encode()) for shift in range(3)]
    return [value.encode(), *(form[4:-4] for form in padded)]


def files_with_secrets(root: Path) -> dict[str, list[str]]:
    """Return the files below *root* that hold planted secrets, and which."""
    files = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    for expected in ("airflow/airflow.db", "mlflow/mlflow.db", "gateway/state.json", "said.txt"):
        assert expected in files
    return {name: named for name, path in files.items() if (named := named_in(path.read_bytes()))}


def git_objects(repository: Path) -> list[bytes]:
    """Return every object of the repository, unpacked: commits, trees, files and tags."""
    listed = subprocess.run(
        ["git", "cat-file", "--batch-all-objects", "--batch"], cwd=repository, capture_output=True, check=True
    )
    assert b"census.dvc" in listed.stdout
    return [listed.stdout]


def digest(value: str) -> str:
    """Return the SHA-256 of a text."""
    return hashlib.sha256(value.encode()).hexdigest()
