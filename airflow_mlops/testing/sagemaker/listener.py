"""HTTP/1.1 on 127.0.0.1: a thread a connection, and a way to die like a process.

``crash()`` closes the listener and cuts every connection off; ``start()`` afterwards listens on the same port.
"""

from __future__ import annotations

import contextlib
import http.server
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Answer:
    """What goes over the wire."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


Front = Callable[[str, str, Mapping[str, str], bytes], Answer | None]
"""Answers method, target, headers and body; ``None`` closes the connection without a word."""


class Listener:
    """The server's socket and the connections it accepted."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._server: _Server | None = None
        self.port = 0

    def start(self) -> None:
        """Listen: on a free port the first time, on the same one afterwards."""
        self._server = _Server(("127.0.0.1", self.port), self._front)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def crash(self) -> None:
        """Stop listening and cut off what is connected; nothing happens if it is down already."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            server.cut()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], front: Front) -> None:
        super().__init__(address, _Handler)
        self.front = front
        self.open: set[socket.socket] = set()

    def cut(self) -> None:
        for connection in list(self.open):
            _cut(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Be silent about clients that went away; anything else is a fault of this server and is shown."""
        import sys

        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.open.add(self.connection)

    def finish(self) -> None:
        self.server.open.discard(self.connection)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
        """Say nothing: the fake counts what arrives."""

    def _handle(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = self.server.front(self.command, self.path, dict(self.headers.items()), raw)
        if answer is None:
            self.close_connection = True
            _cut(self.connection)
            return
        self.send_response(answer.status)
        for key, value in answer.headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _handle  # noqa: N815 - names of the base class


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
