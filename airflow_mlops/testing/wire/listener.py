"""HTTP/1.1 on 127.0.0.1: a thread a connection, chunks for what is streamed, and a way to die like a process.

``crash()`` closes the listener and cuts every connection off; ``start()`` afterwards listens on the same port.
"""

from __future__ import annotations

import contextlib
import http.server
import select
import socket
import ssl
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

HANDSHAKE_SECONDS = 5


class ConnectionLost(Exception):  # noqa: N818 - the connection ends without an answer
    """The connection must be closed without a word."""


@dataclass(frozen=True)
class Answer:
    """What goes over the wire: a whole body, or chunks as they come."""

    code: int
    body: bytes = b""
    chunks: Iterator[bytes] | None = None
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


class Front(Protocol):
    """What is behind the socket; it outlives a crash of the listener."""

    def answer(self, method: str, target: str, headers: Mapping[str, str], raw: bytes) -> Answer:
        """Answer one request.

        :param headers: looked up whatever the case of their names
        :raises ConnectionLost: the connection must be closed instead
        """
        ...


class Listener:
    """The server's socket and the connections it accepted.

    :param certificate: key and certificate for TLS; plain HTTP without
    """

    def __init__(self, front: Front, certificate: Path | None = None) -> None:
        self._front = front
        self._context: ssl.SSLContext | None = None
        if certificate is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(certificate)
        self._server: _Server | None = None
        self.port = 0

    def start(self) -> None:
        """Listen: on a free port the first time, on the same one afterwards."""
        self._server = _Server(("127.0.0.1", self.port), self._front, self._context)
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

    def __init__(self, address: tuple[str, int], front: Front, context: ssl.SSLContext | None) -> None:
        super().__init__(address, _Handler)
        self.front = front
        self.context = context
        self.is_down = False
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve on the connection's own thread; with TLS, shake hands first."""
        if self.context is None:
            with self._kept(request):
                super().finish_request(request, client_address)
            return
        request.settimeout(HANDSHAKE_SECONDS)
        with contextlib.suppress(OSError), self.context.wrap_socket(request, server_side=True) as wrapped:
            wrapped.settimeout(None)
            with self._kept(wrapped):
                super().finish_request(wrapped, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing about clients that went away; anything else is a fault of this server and is shown."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def cut(self) -> None:
        with self._lock:
            self.is_down = True
            for connection in self._open:
                _cut(connection)

    @contextlib.contextmanager
    def _kept(self, connection: socket.socket) -> Iterator[None]:
        with self._lock:
            self._open.add(connection)
            if self.is_down:
                _cut(connection)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(connection)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
        """Say nothing: ``Calls`` knows what arrived."""

    def _handle(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            answer = self.server.front.answer(self.command, self.path, self.headers, raw)  # type: ignore[arg-type]
            if answer.chunks is None:
                self._send(answer)
            else:
                self._stream(answer, answer.chunks)
        except (ConnectionLost, OSError):
            self.close_connection = True
            _cut(self.connection)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _handle  # noqa: N815 - names of the base class

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.code)
        for key, value in {"Content-Type": answer.content_type, **answer.headers}.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def _stream(self, answer: Answer, chunks: Iterator[bytes]) -> None:
        self.send_response(answer.code)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for chunk in chunks:
            if chunk:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            elif self._is_left() or self.server.is_down:
                raise ConnectionLost
        self.wfile.write(b"0\r\n\r\n")

    def _is_left(self) -> bool:
        """Say whether the client went away: nothing else can be readable while an answer is being sent."""
        readable, _, _ = select.select([self.connection], [], [], 0)
        return bool(readable)


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
