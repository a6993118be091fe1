"""Keeps the worker of one revision alive and scores with it. Where requests go is decided elsewhere.

A model that cannot be loaded the first time has failed for good, until it is put again. One that was ready once is
restarted for ever, with growing pauses: it may have traffic, and what stopped it may pass.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

from airflow_mlops.core.errors import InvalidSpecError, JobFailedError, MlopsError, PlatformUnavailableError
from airflow_mlops.serving.process import Worker, WorkerGoneError, WorkerSlowError
from airflow_mlops.serving.schema import Schema, Table, fit
from airflow_mlops.serving.state import RevisionRecord
from airflow_mlops.serving.store import keep_model

POLL_SECONDS = 0.02
CALM_SECONDS = 60.0


@dataclass(frozen=True)
class Limits:
    """How long things may take, in seconds: a model's load, its answer, and a request's wait for a new worker."""

    load: float = 300.0
    answer: float = 60.0
    wait: float = 30.0


@dataclass(frozen=True)
class Outcome:
    """What became of one request. ``table`` is the input as the model got it, ``None`` when it never got there."""

    status: int
    message: str = ""
    predictions: list[Any] | None = None
    table: Table | None = None
    types: tuple[str, ...] = ()


def pause(failures: int) -> float:
    """Return the seconds before the next start: none after the first failure, then 0.5 doubling up to 30."""
    return 0.0 if failures <= 1 else min(30.0, 0.5 * 2.0 ** min(failures - 2, 10))


class Served:
    """One revision with its worker process.

    :param home: folder of the gateway's own copy of the files
    :param changed: called with the record whenever something worth remembering changed
    """

    def __init__(
        self, record: RevisionRecord, home: Path, log: Path, limits: Limits, changed: Callable[[RevisionRecord], None]
    ) -> None:
        self.record, self.home = record, home
        self.state, self.detail = ("failed", record.detail) if record.detail else ("creating", "")
        self.schema: Schema | None = None
        self._log, self._limits, self._changed = log, limits, changed
        self._worker: Worker | None = None
        self._task: asyncio.Task[None] | None = None
        self._open = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def pid(self) -> int | None:
        """Process id of the worker, if it is up."""
        return self._worker.pid if self._worker and self._worker.alive else None

    def start(self) -> None:
        """Begin to copy, check and load, unless it has failed for good."""
        if self.state != "failed":
            self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        failures = 0
        while True:
            begun = monotonic()
            try:
                await self._serve_once()
            except (MlopsError, OSError) as error:
                self.state, self.detail = "failed", str(error)
                if not self.record.proven:
                    self._remember(replace(self.record, detail=self.detail))
                    return
            failures = 1 if monotonic() - begun > CALM_SECONDS else failures + 1
            await asyncio.sleep(pause(failures))

    async def _serve_once(self) -> None:
        """Start a worker and return when it has ended."""
        await asyncio.to_thread(keep_model, Path(self.record.source), self.home, self.record.digest)
        self._worker = await Worker.start(self.home, self._log, load_seconds=self._limits.load)
        self.schema, self.state, self.detail = self._worker.schema, "ready", ""
        if not self.record.proven:
            await self._prove(self._worker)
        code = await self._worker.ended()
        self.state, self.detail = "creating", f"The worker process ended with status {code} and is started again."

    async def _prove(self, worker: Worker) -> None:
        """Remember that it was ready once. A disk that is full then must not leave a worker nobody knows of."""
        try:
            self._remember(replace(self.record, proven=True))
        except OSError:
            await worker.kill()
            raise

    def _remember(self, record: RevisionRecord) -> None:
        self.record = record
        self._changed(record)

    async def score(self, table: Table) -> Outcome:
        """Return what the model says, or why there is no answer. Never raises and never waits without a limit."""
        self._open += 1
        self._idle.clear()
        try:
            return await self._score(table)
        finally:
            self._open -= 1
            if not self._open:
                self._idle.set()

    async def _score(self, table: Table) -> Outcome:
        fitted: Table | None = None
        types: tuple[str, ...] = ()
        try:
            schema = self.schema or (await self._live()).schema
            fitted = fit(table, schema)
            kinds = {field.name: field.type for field in schema.fields}
            types = tuple(kinds.get(name, "any") for name in fitted.names)
            predictions = await self._ask(fitted)
        except InvalidSpecError as error:
            return Outcome(400, str(error))
        except WorkerSlowError as error:
            return Outcome(504, str(error), None, fitted, types)
        except PlatformUnavailableError as error:
            return Outcome(503, str(error), None, fitted, types)
        except JobFailedError as error:
            return Outcome(500, str(error), None, fitted, types)
        return Outcome(200, "", predictions, fitted, types)

    async def _ask(self, table: Table) -> list[Any]:
        """Ask the worker; when it ends before it answers, ask the next one, once."""
        question = {"names": table.names, "columns": table.columns}
        worker = await self._live()
        try:
            word = await worker.ask(question, self._limits.answer)
        except WorkerGoneError:
            word = await (await self._live()).ask(question, self._limits.answer)
        if "refused" in word:
            raise InvalidSpecError(word["refused"])
        if "failed" in word:
            raise JobFailedError(f"The model failed with {word['failed']}. Its log is on the gateway's machine.")
        return list(word["predictions"])

    async def _live(self) -> Worker:
        deadline = monotonic() + self._limits.wait
        while self._worker is None or not self._worker.alive:
            if self.state == "failed" or monotonic() > deadline:
                raise PlatformUnavailableError(f"Revision {self.record.revision!r} has no worker: {self.detail}")
            await asyncio.sleep(POLL_SECONDS)
        return self._worker

    async def stop(self) -> None:
        """Let open requests finish, as long as they may, then end the worker."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._limits.wait + self._limits.answer):
                await self._idle.wait()
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._worker:
            await self._worker.stop()
