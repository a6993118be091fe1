"""How the client speaks to a server that refuses, fails, lies or is away. The servers here are real sockets."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import (
    ConflictError,
    IntegrityError,
    InvalidSpecError,
    MlopsError,
    NotFoundError,
    PlatformUnavailableError,
)
from airflow_mlops.platforms.mlflow import MLflowClient

Answer = tuple[int, Any]
SECRET = "s3cret-word"


class Scripted(ThreadingHTTPServer):
    """Answers from a script and keeps what it was asked."""

    daemon_threads = True

    def __init__(self, answer: Callable[[str, int], Answer]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = answer
        self.seen: list[tuple[str, str, dict[str, str]]] = []


class Handler(BaseHTTPRequestHandler):
    """Gives the next answer of the script."""

    server: Scripted

    def do_GET(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        self.rfile.read(length)
        self.server.seen.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
        status, body = self.server.answer(self.path, len(self.server.seen))
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - names of http.server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Keep the test's output clean."""


@contextmanager
def scripted(answer: Callable[[str, int], Answer], **fields: Any) -> Iterator[tuple[MLflowClient, Scripted]]:
    """Run a scripted server and give a client of it."""
    server = Scripted(answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    info = ConnectionInfo(conn_id="ml", host="127.0.0.1", port=server.server_port, **fields)
    try:
        with MLflowClient(info) as client:
            yield client, server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def told(code: str, message: str) -> dict[str, str]:
    """Return an error as MLflow writes it."""
    return {"error_code": code, "message": message}


@pytest.mark.parametrize(
    ("status", "body", "error", "said"),
    [
        (401, b"You are not authenticated", InvalidSpecError, "connection 'ml'"),
        (403, told("PERMISSION_DENIED", "Permission denied"), InvalidSpecError, "connection 'ml'"),
        (404, told("RESOURCE_DOES_NOT_EXIST", "Run not found"), NotFoundError, "Run not found"),
        (400, told("INVALID_PARAMETER_VALUE", "Registered model alias x not found."), NotFoundError, "alias x"),
        (400, told("RESOURCE_ALREADY_EXISTS", "exists. Error: SELECT secret"), ConflictError, "exists."),
        (400, told("INVALID_PARAMETER_VALUE", "Invalid name"), InvalidSpecError, "Invalid name"),
        (400, told("BAD_REQUEST", "(sqlite3.IntegrityError) UNIQUE"), PlatformUnavailableError, "two writers"),
        (400, told("BAD_REQUEST", "expected to update 1 row(s); 0 were matched."), PlatformUnavailableError, "two wri"),
        (429, b"", PlatformUnavailableError, "429"),
        (502, b"<html>bad gateway</html>", PlatformUnavailableError, "502"),
    ],
)
def test_every_refusal_becomes_an_error_by_remedy(status: int, body: Any, error: type[MlopsError], said: str) -> None:
    """What the caller may do about an answer is the class of the error; neither SQL nor a password is in it."""
    with (
        scripted(lambda *_: (status, body), login="ann", password=SECRET) as (client, _),
        pytest.raises(error) as caught,
    ):
        client.model("m")
    assert type(caught.value) is error
    assert said in str(caught.value)
    assert "SELECT" not in str(caught.value)
    assert SECRET not in str(caught.value) + repr(client)


def test_a_read_is_repeated_and_a_creation_is_not() -> None:
    """A read survives two failures of the server; a creation is sent once, since it may have gone through."""
    model = {"registered_model": {"name": "m"}}
    with scripted(lambda _, n: (503, b"") if n < 3 else (200, model)) as (client, server):
        assert client.model("m") == {"name": "m"}
        assert len(server.seen) == 3
    with scripted(lambda *_: (503, b"")) as (client, server):
        with pytest.raises(PlatformUnavailableError):
            client.create_model("m")
        assert len(server.seen) == 1


def test_a_creation_that_met_a_deletion_is_a_conflict() -> None:
    """What was there when it was to be created, and gone when MLflow looked at it, is a conflict: look again."""
    gone = told("RESOURCE_DOES_NOT_EXIST", "Registered Model with name=m not found")
    with scripted(lambda *_: (404, gone)) as (client, _), pytest.raises(ConflictError, match="'m'"):
        client.create_model("m")


@pytest.mark.parametrize(
    ("fields", "header"),
    [
        ({"login": "ann", "password": "pw"}, "Basic YW5uOnB3"),
        ({"password": "token"}, "Bearer token"),
        ({}, None),
    ],
)
def test_credentials_travel_as_the_connection_says(fields: dict[str, str], header: str | None) -> None:
    """Login and password are basic credentials, a password alone is a bearer token, nothing is nothing."""
    with scripted(lambda *_: (200, {"registered_models": []}), **fields) as (client, server):
        client.models()
        assert server.seen[0][2].get("authorization") == header


def test_an_unknown_extra_is_refused() -> None:
    """A stray extra cannot change how the server is reached."""
    with pytest.raises(InvalidSpecError, match="did you mean 'verify'"):
        MLflowClient(ConnectionInfo(host="h", extra={"verifi": False}))


def test_an_absent_server_is_named_without_its_credentials() -> None:
    """The message names the address and the connection, and no credential."""
    with (
        MLflowClient(ConnectionInfo(conn_id="ml", host="http://127.0.0.1:9", login="ann", password=SECRET)) as client,
        pytest.raises(PlatformUnavailableError, match=r"127\.0\.0\.1:9.*'ml'") as caught,
    ):
        client.models()
    assert SECRET not in str(caught.value) + client.address


def test_a_slow_server_is_given_up() -> None:
    """The timeout of the connection's extra bounds a request that is not repeated."""
    released = threading.Event()

    def stall(*_: Any) -> Answer:
        released.wait(10)
        return 200, {}

    with scripted(stall, extra={"timeout": 0.2}) as (client, _):
        with pytest.raises(PlatformUnavailableError, match="ReadTimeout"):
            client.create_model("m")
        released.set()


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "a\\b", "x/../../y"])
def test_a_path_that_leaves_its_folder_is_refused(path: str, tmp_path: Path) -> None:
    """A server cannot make the worker write outside the folder of the download."""
    listing = {"files": [{"path": path, "is_dir": False, "file_size": 1}]}
    with scripted(lambda *_: (200, listing)) as (client, _):
        with pytest.raises(IntegrityError, match="leaves its folder"):
            client.artifacts.download("mlflow-artifacts:/0/x", tmp_path / "to")
        assert list(tmp_path.rglob("passwd")) == []


def test_a_short_download_is_refused(tmp_path: Path) -> None:
    """A file of another size than the server says is not used."""
    listing = {"files": [{"path": "weights.bin", "is_dir": False, "file_size": 10}]}
    with (
        scripted(lambda path, _: (200, listing if "?path=" in path else b"short")) as (client, _),
        pytest.raises(IntegrityError, match="5 bytes, the server says 10"),
    ):
        client.artifacts.download("mlflow-artifacts:/0/x", tmp_path)


def test_artifacts_that_are_not_served_are_explained(client: MLflowClient) -> None:
    """Files in a bucket that the server does not serve are refused with the option to start it with."""
    with pytest.raises(InvalidSpecError, match="--serve-artifacts"):
        client.artifacts.read("s3://bucket/model")


def test_runs_are_made_logged_found_and_ended(client: MLflowClient) -> None:
    """A run keeps parameters, metrics and tags, is found by a filter, and ends with its status."""
    experiment = client.experiment_id("client-tests")
    assert client.experiment_id("client-tests") == experiment
    run_id = client.create_run(experiment, "one", {"who": "me"})["info"]["run_id"]
    client.log(run_id, metrics={"auc": 0.75}, params={"depth": 3}, tags={"more": "yes"})
    client.finish_run(run_id)
    run = client.run(run_id)
    assert run["info"]["status"] == "FINISHED"
    assert {entry["key"]: entry["value"] for entry in run["data"]["params"]} == {"depth": "3"}
    assert run["data"]["metrics"][0]["value"] == 0.75
    found = client.search_runs([experiment], "tags.more = 'yes' and metrics.auc > 0.7", limit=500)
    assert [one["info"]["run_id"] for one in found] == [run_id]
