"""One worker process as the gateway sees it: start it, ask it, notice its end. It decides nothing about restarts.

Questions are written at once and answered in order. When the process ends, every open question fails with
:class:`WorkerGoneError`, so that nobody waits for an answer that cannot come.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections import deque
from pathlib import Path
from typing import Any, Self

from airflow_mlops.core.errors import JobFailedError, PlatformUnavailableError
from airflow_mlops.serving.frames import pack, receive_frame
from airflow_mlops.serving.schema import Schema

MAX_OPEN = 512
STOP_SECONDS = 5.0


class WorkerGoneError(PlatformUnavailableError):
    """The worker process ended before it answered. Another one may answer the same question."""


class WorkerSlowError(PlatformUnavailableError):
    """The model took longer than a request may take. The worker was ended."""


class Worker:
    """A running worker process with a loaded model."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process, self._reader, self._writer = process, reader, writer
        self._open: deque[asyncio.Future[Any]] = deque()
        self._ended = asyncio.Event()
        self._listening: asyncio.Task[None] | None = None
        self.schema = Schema()

    @classmethod
    async def start(cls, folder: Path, log: Path, *, load_seconds: float) -> Self:
        """Start a process that serves the model in *folder* and wait until it is loaded.

        :raises JobFailedError: the model cannot be loaded; the message is the loader's
        :raises WorkerGoneError: the process ended, or did not load the model within *load_seconds*
        """
        ours, theirs = socket.socketpair()
        with theirs:
            process = await _spawn(theirs.fileno(), folder, log)
        worker = cls(process, *await asyncio.open_connection(sock=ours))
        try:
            await worker._loaded(load_seconds)
        except BaseException:
            await worker.kill()
            raise
        worker._listening = asyncio.create_task(worker._listen())
        return worker

    async def _loaded(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                word = await receive_frame(self._reader)
        except TimeoutError:
            raise WorkerGoneError(f"The model was not loaded within {seconds:g} s.") from None
        except (asyncio.IncompleteReadError, OSError):
            code = await self._process.wait()
            raise WorkerGoneError(f"The worker process ended with status {code} while it loaded the model.") from None
        if "failed" in word:
            raise JobFailedError(f"The model cannot be loaded here: {word['failed']}")
        self.schema = Schema.from_dict(word["ready"])

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether questions can be asked."""
        return not self._ended.is_set()

    async def ended(self) -> int:
        """Wait until the process has ended and return its exit status (minus the signal's number)."""
        await self._ended.wait()
        return await self._process.wait()

    async def ask(self, question: dict[str, Any], seconds: float) -> Any:
        """Return the worker's answer.

        :raises PlatformUnavailableError: too many questions are open
        :raises WorkerGoneError: the process ended first
        :raises WorkerSlowError: there was no answer within *seconds*
        """
        if not self.alive:
            raise WorkerGoneError("The worker process has ended.")
        if len(self._open) >= MAX_OPEN:
            raise PlatformUnavailableError(f"{MAX_OPEN} requests wait for this model. Send fewer at once.")
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._open.append(answer)
        self._writer.write(pack(question))
        try:
            async with asyncio.timeout(seconds):
                return await answer
        except TimeoutError:
            self._kill()
            raise WorkerSlowError(f"The model did not answer within {seconds:g} s. Its worker is restarted.") from None

    async def _listen(self) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                word = await receive_frame(self._reader)
                answer = self._open.popleft()
                if not answer.done():
                    answer.set_result(word)
        self._ended.set()
        self._writer.close()
        self._kill()
        for answer in self._open:
            if not answer.done():
                answer.set_exception(WorkerGoneError("The worker process ended before it answered."))
        self._open.clear()

    async def stop(self) -> None:
        """Let the worker answer what is open, then end it; end it hard after five seconds."""
        with contextlib.suppress(OSError, RuntimeError):
            self._writer.write_eof()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._process.wait()
        except TimeoutError:
            pass
        await self.kill()

    async def kill(self) -> None:
        """End the process now and wait for its end."""
        self._kill()
        await self._process.wait()
        self._writer.close()
        if self._listening:
            await self._listening

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()


async def _spawn(descriptor: int, folder: Path, log: Path) -> asyncio.subprocess.Process:
    """Start the process. Its standard input stays open as long as we live; a session of its own keeps Ctrl-C away."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "airflow_mlops.serving.worker", str(descriptor), str(folder)),
            stdin=asyncio.subprocess.PIPE,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            pass_fds=[descriptor],
            start_new_session=True,
            env=_environment(),
        )


def _environment() -> dict[str, str]:
    """Return our environment with one thread a worker, unless told otherwise: a few rows gain nothing by more."""
    return {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"} | os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
