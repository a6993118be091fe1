"""User names and passwords reach the git server, and nothing else."""

from __future__ import annotations

import base64
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from airflow_mlops.core.errors import InvalidSpecError, PlatformUnavailableError
from airflow_mlops.data.stores.dvc import DvcStore
from airflow_mlops.testing.git_dvc import GitDvcRepository

_SECRET = "s3cr3t-pass"


class _GitServer(BaseHTTPRequestHandler):
    """git's own http-backend behind basic authentication."""

    root: Path

    def do_GET(self) -> None:
        """Answer a read."""
        self.answer()

    def do_POST(self) -> None:
        """Answer a read or a write."""
        self.answer()

    def answer(self) -> None:
        """Ask for a password, then let git answer."""
        token = "Basic " + base64.b64encode(f"ci:{_SECRET}".encode()).decode()
        if self.headers.get("Authorization") != token:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = self._body()
        parts = urlsplit(self.path)
        environment = {
            **os.environ,
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": parts.path,
            "QUERY_STRING": parts.query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REMOTE_USER": "ci",
        }
        done = subprocess.run(["git", "http-backend"], input=body, env=environment, capture_output=True, check=True)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.send_response(int(headers.pop("Status", "200").split()[0]))
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def address(repository: GitDvcRepository) -> Iterator[str]:
    """Give the repository's address behind basic authentication."""
    repository.git("config", "http.receivepack", "true", cwd=repository.bare)
    repository.git("config", "uploadpack.allowFilter", "true", cwd=repository.bare)
    handler = type("Handler", (_GitServer,), {"root": repository.folder})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/repo.git"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_password_opens_the_repository(address: str, folder: Path, tmp_path: Path) -> None:
    """With the password data is kept and read back, and the password is in no file and in no value."""
    store = DvcStore(address, workdir=tmp_path / "worker", login="ci", password=_SECRET)
    version = store.snapshot(folder, "data/flights", message="Keep", tag="v1")
    assert store.resolve("data/flights", "v1") == version
    assert (store.materialise(version) / "a.csv").exists()
    assert _SECRET not in f"{version!r} {store!r} {store.git!r}"
    assert _files_that_hold(_SECRET, tmp_path / "worker") == []


def test_a_password_in_the_address_is_taken_out(address: str, folder: Path, tmp_path: Path) -> None:
    """Credentials in the address work, and never show up in a version."""
    store = DvcStore(address.replace("//", f"//ci:{_SECRET}@"), workdir=tmp_path / "worker")
    version = store.snapshot(folder, "data/flights", message="Keep")
    assert version.repo == address
    assert _files_that_hold(_SECRET, tmp_path / "worker") == []


def test_a_wrong_password_is_not_tried_again(address: str, tmp_path: Path) -> None:
    """The error says what to check; it holds neither the password nor its encoded form."""
    wrong = "wr0ng-pass"
    store = DvcStore(address.replace("//", f"//ci:{wrong}@"), workdir=tmp_path / "worker")
    with pytest.raises(InvalidSpecError, match="Check login") as caught:
        store.resolve("data/flights", "main")
    encoded = base64.b64encode(f"ci:{wrong}".encode()).decode()
    assert wrong not in str(caught.value)
    assert encoded not in str(caught.value)


def test_the_password_is_in_no_argument_list(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No program is started with the password among its arguments."""
    seen: list[str] = []
    real = subprocess.run

    def spy(argv: list[str], *args: object, **kwargs: object) -> object:
        seen.extend(argv)
        return real(argv, *args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "run", spy)
    DvcStore(address, workdir=tmp_path / "worker", login="ci", password=_SECRET).ping()
    assert "ls-remote" in seen
    assert not any(_SECRET in word or "Authorization" in word for word in seen)


def test_a_server_that_is_away_is_tried_again(tmp_path: Path) -> None:
    """A server that does not answer is worth another try."""
    store = DvcStore("http://127.0.0.1:9/repo.git", workdir=tmp_path / "worker", login="ci", password=_SECRET)
    with pytest.raises(PlatformUnavailableError, match=r"127\.0\.0\.1:9") as caught:
        store.ping()
    assert _SECRET not in str(caught.value)


def _files_that_hold(text: str, root: Path) -> list[Path]:
    encoded = base64.b64encode(f"ci:{text}".encode())
    files = [path for path in root.rglob("*") if path.is_file()]
    assert files
    return [path for path in files if text.encode() in path.read_bytes() or encoded in path.read_bytes()]
