"""A real gateway process for tests, on a free port of loopback. Nothing outlives the block: it is ended by its pid."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from airflow_mlops.core.digests import folder_digest

START_SECONDS = 60.0
STOP_SECONDS = 45.0


@dataclass
class RunningGateway:
    """A gateway process that keeps everything below ``root``. ``token`` is empty when it wants none."""

    root: Path
    url: str
    process: subprocess.Popen[str]
    token: str = ""

    def client(self) -> httpx.Client:
        """Return a client with the gateway's address and token; the caller closes it."""
        headers = {"authorization": f"Bearer {self.token}"} if self.token else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False)

    def put(self, endpoint: str, revision: str, folder: Path, *, digest: str = "") -> dict[str, Any]:
        """Put the model in *folder* on the gateway and return the status of the endpoint once it is ready or failed."""
        self.begin(endpoint, revision, folder, digest=digest)
        return self.wait(endpoint)

    def begin(self, endpoint: str, revision: str, folder: Path, *, digest: str = "") -> None:
        """Put the model in *folder* on the gateway and return at once."""
        body = {
            "model": endpoint,
            "version": revision,
            "digest": digest or folder_digest(folder),
            "path": str(folder),
        }
        with self.client() as client:
            answer = client.put(f"/v1/endpoints/{endpoint}/revisions/{revision}", json=body)
            assert answer.status_code in (200, 202), answer.text

    def wait(self, endpoint: str, seconds: float = START_SECONDS) -> dict[str, Any]:
        """Return the status of *endpoint* once no revision of it is being created.

        :raises TimeoutError: one still was after *seconds*
        """
        deadline = time.monotonic() + seconds
        with self.client() as client:
            while time.monotonic() < deadline:
                status: dict[str, Any] = client.get(f"/v1/endpoints/{endpoint}").json()
                if all(revision["state"] != "creating" for revision in status["revisions"]):
                    return status
                time.sleep(0.1)
        raise TimeoutError(f"{endpoint!r} was still creating after {seconds:g} s: {status!r}")

    def shift(self, endpoint: str, **traffic: float) -> dict[str, Any]:
        """Shift traffic and return the status."""
        with self.client() as client:
            answer = client.put(f"/v1/endpoints/{endpoint}/traffic", json=traffic)
            assert answer.status_code == 200, answer.text
            status: dict[str, Any] = answer.json()
            return status

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """Send *signum* and return the exit status; after 45 s the process is killed. A dead one is left alone."""
        if self.process.poll() is None:
            os.kill(self.process.pid, signum)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


@contextlib.contextmanager
def running_gateway(root: Path, *, token: str = "", arguments: Sequence[str] = ()) -> Iterator[RunningGateway]:
    """Run a gateway on *root* until the end of the block. A second one on the same *root* serves what the first served.

    Its log is ``gateway.log`` in *root*.

    :raises RuntimeError: it ended before it was ready; the message ends with the last lines of its log
    """
    root.mkdir(parents=True, exist_ok=True)
    if token:
        (root / "token").write_text(token, encoding="utf-8")
        arguments = [*arguments, "--token-file", str(root / "token")]
    with (root / "gateway.log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "airflow_mlops.serving", "--root", str(root), *arguments],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    gateway = RunningGateway(root, url, process, token)
    try:
        if not url:
            process.wait(STOP_SECONDS)
            raise RuntimeError("The gateway did not start: " + (root / "gateway.log").read_text()[-2000:])
        yield gateway
    finally:
        gateway.stop()
        process.stdout.close()
