"""The lock when answers get lost between it and a real server: what was done there stays done."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import PlatformUnavailableError
from airflow_mlops.platforms.mlflow import MLflowClient
from airflow_mlops.registry.lock import alias_lock

Loses = Callable[[str], bool]


class Relay(ThreadingHTTPServer):
    """Hands every request to the server at ``url``; loses the answers to the paths that ``loses`` says yes to."""

    daemon_threads = True
    url = ""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.loses: Loses = lambda _: False


class _Handler(BaseHTTPRequestHandler):
    server: Relay
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {"content-type": "application/json"} if body else {}
        answer = httpx.request(self.command, self.server.url + self.path, content=body, headers=headers, timeout=60)
        if self.server.loses(self.path):
            self.close_connection = True
            return
        self.send_response(answer.status_code)
        self.send_header("content-length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    do_POST = do_DELETE = do_GET  # noqa: N815 - names of http.server

    def log_message(self, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def relay(mlflow_server: str) -> Iterator[Relay]:
    """Give a relay in front of the shared server."""
    server = Relay()
    server.url = mlflow_server
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def far(relay: Relay) -> Iterator[MLflowClient]:
    """Give a client that reaches the server through the relay."""
    with MLflowClient(ConnectionInfo(host="127.0.0.1", port=relay.server_port)) as client:
        yield client


def first(path_end: str, then: Callable[[], object] = lambda: None) -> Loses:
    """Lose the first answer to a path with this end, after *then* was called."""
    waiting = [path_end]

    def loses(path: str) -> bool:
        if not waiting or not path.endswith(path_end):
            return False
        waiting.clear()
        then()
        return True

    return loses


def test_a_lock_whose_creation_was_answered_to_nobody_is_held(relay: Relay, far: MLflowClient, name: str) -> None:
    """Who made the lock and never heard so recognises it, well before its lease is over."""
    relay.loses = first("registered-models/create")
    began = time.monotonic()
    with alias_lock(far, name, "champion", wait=20) as lease:
        tags = {tag["key"]: tag["value"] for tag in far.model(lease.name)["tags"]}
        assert (tags["owner"], tags["expires"]) == (lease.owner, repr(lease.expires))
    assert time.monotonic() - began < 15
    assert far.models(f"name LIKE '__lock__.{name}%'") == []


def test_a_release_whose_answer_was_lost_spares_the_next_holder(
    relay: Relay, far: MLflowClient, client: MLflowClient, name: str
) -> None:
    """The lock that somebody else took between a release and its repetition stays theirs."""
    lock = f"__lock__.{name}.champion"
    theirs = {"owner": "next", "expires": repr(time.time() + 60)}
    relay.loses = first("registered-models/delete", then=lambda: client.create_model(lock, theirs))
    with alias_lock(far, name, "champion"):
        pass
    tags = {tag["key"]: tag["value"] for tag in client.model(lock)["tags"]}
    assert tags == theirs


def test_a_server_that_never_answers_is_given_up(relay: Relay, far: MLflowClient, name: str) -> None:
    """Whoever cannot get an answer is told so, and does not try for the whole wait."""
    relay.loses = lambda _: True
    began = time.monotonic()
    with pytest.raises(PlatformUnavailableError), alias_lock(far, name, "champion", wait=90):
        pytest.fail("nobody knows whether the lock is held")
    assert time.monotonic() - began < 30
