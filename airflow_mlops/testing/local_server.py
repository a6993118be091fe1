"""One server process on this machine, for the length of a block: a free port, a bounded start, a sure end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

STOP_SECONDS = 10.0


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listened to a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def tail(log: Path, lines: int = 25) -> str:
    """Return the last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


@contextlib.contextmanager
def uvicorn_server(
    name: str, app: str, *, log: Path, env: Mapping[str, str], ready: Callable[[str], bool], seconds: float
) -> Iterator[str]:
    """Serve the ASGI *app* (``module:attribute``) from a process of its own and yield its address.

    :param log: file its output is added to; its folder is the process's working directory
    :param ready: asked with the address until it says yes; what it raises ends the wait
    :param seconds: how long it may take to be ready
    :raises RuntimeError: it ended or was not ready in time; the message ends with the last lines of its log
    """
    port = free_port()
    where = ["--host", "127.0.0.1", "--port", str(port), "--no-access-log"]
    with log.open("ab") as out:
        server = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", *where, app],
            cwd=log.parent,
            env=dict(env),
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_until_ready(name, server, address, log=log, ready=ready, seconds=seconds)
        yield address
    finally:
        _stop(server)


def _wait_until_ready(
    name: str, server: subprocess.Popen[bytes], address: str, *, log: Path, ready: Callable[[str], bool], seconds: float
) -> None:
    deadline = time.monotonic() + seconds
    while not ready(address):
        if server.poll() is not None:
            raise RuntimeError(f"{name} ended with code {server.returncode}.\n{tail(log)}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"{name} was not ready after {seconds:.0f} s.\n{tail(log)}")
        time.sleep(0.05)


def _stop(server: subprocess.Popen[bytes]) -> None:
    """End the server's process group, by force if it does not go on its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGTERM)
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
