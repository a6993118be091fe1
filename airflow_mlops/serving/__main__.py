"""The program ``airflow-mlops-gateway``: one gateway on one folder. See :mod:`airflow_mlops.serving` for its API."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from airflow_mlops.core.errors import ConflictError, InvalidSpecError, MlopsError
from airflow_mlops.core.extras import extra
from airflow_mlops.serving.app import LOOPBACK, build_app
from airflow_mlops.serving.gateway import Gateway
from airflow_mlops.serving.served import Limits
from airflow_mlops.serving.state import replace_file

GRACE_SECONDS = 30


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or Ctrl-C. Returns the exit status; 2 when it cannot start."""
    try:
        options = _parser().parse_args(arguments)
        token = _token(options.token_file, options.host)
        root = options.root.resolve()
        root.mkdir(parents=True, exist_ok=True)
        with _alone(root), _listening(options.host, options.port) as door:
            limits = Limits(load=options.load_timeout, answer=options.answer_timeout, wait=options.worker_wait)
            _serve(root, door, token, limits)
    except (MlopsError, OSError) as error:
        print(f"airflow-mlops-gateway: {error}", file=sys.stderr)  # noqa: T201 - a program talks to its user
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="airflow-mlops-gateway", description="Serve MLflow models on this machine, for development and CI."
    )
    parser.add_argument("--root", type=Path, required=True, help="folder for state, models, logs and captured traffic")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind to (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="port to bind to; 0 takes a free one (default)")
    parser.add_argument("--token-file", type=Path, help="file with the bearer token that requests must bring")
    limits = Limits()
    parser.add_argument(
        "--load-timeout", type=float, default=limits.load, help="seconds for a model to load (%(default)g)"
    )
    parser.add_argument(
        "--answer-timeout", type=float, default=limits.answer, help="seconds for an answer (%(default)g)"
    )
    parser.add_argument(
        "--worker-wait", type=float, default=limits.wait, help="seconds to wait for a worker (%(default)g)"
    )
    return parser


def _token(file: Path | None, host: str) -> str:
    if file is None:
        if host not in LOOPBACK:
            raise InvalidSpecError(
                f"--host {host!r} is not loopback: give --token-file, so that not everybody may deploy."
            )
        return ""
    token = file.read_text(encoding="utf-8").strip()
    if not token:
        raise InvalidSpecError(f"--token-file {str(file)!r} is empty. Write the token into it.")
    return token


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Hold the folder for this process; the system lets go when the process ends, however it ends."""
    with (root / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConflictError(f"Another gateway serves {str(root)!r}. Stop it, or choose another --root.") from None
        yield


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind((host, port))
        except OSError as error:
            raise InvalidSpecError(
                f"Cannot listen on {host!r} port {port}: {error.strerror}. Choose another."
            ) from None
        door.listen(1024)
        yield door


def _serve(root: Path, door: socket.socket, token: str, limits: Limits) -> None:
    with extra("serve"):
        import uvicorn

    class Announcing(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                replace_file(root / "gateway.json", json.dumps({"url": url, "pid": os.getpid()}))
                print(url, flush=True)  # noqa: T201 - the one line a program waits for

    host, port = door.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    app = build_app(Gateway(root, url, limits), token)
    config = uvicorn.Config(app, access_log=False, log_level="warning", timeout_graceful_shutdown=GRACE_SECONDS)
    server = Announcing(config)
    server.run(sockets=[door])
    if not server.started:
        raise InvalidSpecError(f"The gateway on {str(root)!r} did not start; the lines above say why.")


if __name__ == "__main__":
    sys.exit(main())
