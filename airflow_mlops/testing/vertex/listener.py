"""HTTP/1.1 on 127.0.0.1: a thread a connection, and a way to die like a process.

``crash()`` closes the listener and cuts every connection off; ``start()`` afterwards listens on the same port.
"""

from __future__ import annotations

import contextlib
import http.server
import socket
import sys
import threading
from typing import Any

from airflow_mlops.testing.kubernetes.faults import ConnectionLost
from airflow_mlops.testing.vertex.front import Front


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
        self._open: set[Any] = set()
        self._lock = threading.Lock()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve, on the connection's own thread."""
        with self._lock:
            self._open.add(request)
        try:
            super().finish_request(request, client_address)
        finally:
            with self._lock:
                self._open.discard(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing about clients that went away; anything else is a fault of this server and is shown."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def cut(self) -> None:
        with self._lock:
            for connection in self._open:
                _cut(connection)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
        """Say nothing: ``Calls`` knows what arrived."""

    def _handle(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            code, body, headers = self.server.front.answer(self.command, self.path, dict(self.headers), raw)
            self.send_response(code)
            for key, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except (ConnectionLost, OSError):
            self.close_connection = True
            _cut(self.connection)

    do_GET = do_POST = do_DELETE = _handle  # noqa: N815 - names of the base class


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
