"""The gateway itself, without HTTP: every change is computed, written to disk and then done, in that order."""

from __future__ import annotations

import asyncio
import random
import secrets
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from airflow_mlops.core.errors import ConflictError, InvalidSpecError, MlopsError, NotFoundError, close_match
from airflow_mlops.serving.capture import EVERY_SECONDS
from airflow_mlops.serving.routing import choose, sticky_point
from airflow_mlops.serving.schema import Schema, Table
from airflow_mlops.serving.served import Limits, Outcome, Served
from airflow_mlops.serving.state import EndpointRecord, RevisionRecord, load_state, save_state
from airflow_mlops.serving.store import drop_models, require_model
from airflow_mlops.serving.traffic import TrafficLog


class NoTrafficError(MlopsError):
    """The endpoint exists, but no revision gets its requests yet."""


class Gateway:
    """All endpoints below one folder *root*. ``url`` is the address clients use; call :meth:`open` first."""

    def __init__(self, root: Path, url: str, limits: Limits | None = None) -> None:
        self.root, self.url, self.since = root, url.rstrip("/"), time.time()
        self._limits = limits or Limits()
        self._endpoints: dict[str, EndpointRecord] = {}
        self._served: dict[tuple[str, str], Served] = {}
        self._logs: dict[str, TrafficLog] = {}
        self._writer: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Serve what was served before: read the state and start the workers."""
        self._endpoints = load_state(self.root / "state.json")
        wanted = [self._home(record, item) for record in self._endpoints.values() for item in record.revisions]
        await asyncio.to_thread(drop_models, self.root / "models", wanted)
        for endpoint, record in self._endpoints.items():
            await self.traffic_log(endpoint).recall()
            for item in record.revisions:
                self._serve(record, item)
        self._writer = asyncio.create_task(self._write_captured())

    async def close(self) -> None:
        """End the workers once they have answered, then write what was captured."""
        if self._writer:
            self._writer.cancel()
        await asyncio.gather(*(served.stop() for served in self._served.values()))
        await asyncio.gather(*(log.capture.flush_or_log() for log in self._logs.values()))

    async def _write_captured(self) -> None:
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            for log in list(self._logs.values()):
                await log.capture.flush_or_log()

    def _home(self, endpoint: EndpointRecord, record: RevisionRecord) -> Path:
        return self.root / "models" / endpoint.endpoint / record.folder

    def _serve(self, endpoint: EndpointRecord, record: RevisionRecord) -> None:
        def changed(new: RevisionRecord) -> None:
            if self._served.get((endpoint.endpoint, new.revision)) is served:
                self._keep(self._endpoints[endpoint.endpoint].put(new))

        log = self.root / "logs" / endpoint.endpoint / f"{record.revision}.log"
        served = Served(record, self._home(endpoint, record), log, self._limits, changed)
        self._served[endpoint.endpoint, record.revision] = served
        served.start()

    def _keep(self, record: EndpointRecord) -> None:
        save_state(self.root / "state.json", self._endpoints | {record.endpoint: record})
        self._endpoints[record.endpoint] = record

    # What there is

    def endpoints(self) -> list[str]:
        """Return the names of all endpoints, oldest first."""
        return list(self._endpoints)

    def find(self, endpoint: str) -> EndpointRecord:
        """Return the endpoint of that name.

        :raises NotFoundError: there is none; the message lists those there are
        """
        if endpoint not in self._endpoints:
            names = list(self._endpoints)
            raise NotFoundError(
                f"There is no endpoint {endpoint!r}: {close_match(endpoint, names)}"
                f"There are {', '.join(names) or 'none'}."
            )
        return self._endpoints[endpoint]

    def status(self, endpoint: str) -> dict[str, Any]:
        """Return what really serves, as the API describes it."""
        record = self.find(endpoint)
        revisions = [
            self._revision(endpoint, item, share)
            for item, share in zip(record.revisions, record.shares.values(), strict=True)
        ]
        url = f"{self.url}/endpoints/{endpoint}/invocations"
        return {"endpoint": endpoint, "url": url, "revisions": revisions, "previous": record.previous}

    def _revision(self, endpoint: str, record: RevisionRecord, share: float) -> dict[str, Any]:
        served = self._served[endpoint, record.revision]
        return {
            "revision": record.revision,
            "model": record.model,
            "version": record.version,
            "digest": record.digest,
            "state": served.state,
            "traffic": share,
            "detail": served.detail,
        }

    def workers(self) -> dict[str, dict[str, int | None]]:
        """Return endpoint -> revision -> process id, ``None`` while a worker is down."""
        return {
            name: {item.revision: self._served[name, item.revision].pid for item in record.revisions}
            for name, record in self._endpoints.items()
        }

    def is_ready(self, endpoint: str) -> bool:
        """Whether every revision with traffic is ready, and there is one."""
        shares = self.find(endpoint).shares
        return any(shares.values()) and all(
            self._served[endpoint, revision].state == "ready" for revision, share in shares.items() if share
        )

    def schema(self, endpoint: str) -> Schema:
        """Return the input columns of the revision with most of the traffic, as far as they are known."""
        shares = self.find(endpoint).shares
        served = self._served[endpoint, max(shares, key=lambda name: shares[name])] if shares else None
        return served.schema or Schema() if served else Schema()

    # Changes

    def put_revision(self, endpoint: str, record: RevisionRecord) -> bool:
        """Add a revision and begin to load it; return whether there is anything to wait for.

        :raises ConflictError: it is there with another digest
        :raises NotFoundError: its source is no MLflow model
        """
        found = self._endpoints.get(endpoint, EndpointRecord(endpoint))
        served = self._served.get((endpoint, record.revision))
        if served and served.record.digest != record.digest:
            raise ConflictError(
                f"Revision {record.revision!r} of {endpoint!r} has digest {served.record.digest!r}, "
                f"not {record.digest!r}. Choose another revision name, or delete this one."
            )
        if served and not served.record.detail:
            return served.state == "creating"
        require_model(Path(record.source))
        folder = served.record.folder if served else f"{record.revision}-{secrets.token_hex(4)}"
        record = replace(record, folder=folder)
        self._keep(found.put(record))
        self._serve(found, record)
        return True

    def shift(self, endpoint: str, traffic: Mapping[str, float]) -> None:
        """Make *traffic* the truth.

        :raises NotFoundError: there is no such endpoint or revision
        :raises InvalidSpecError: the percents are wrong, or a revision that would get traffic is not ready
        """
        changed = self.find(endpoint).shifted(traffic)
        for revision, share in changed.shares.items():
            self._require_ready(endpoint, revision, share)
        self._keep(changed)

    def _require_ready(self, endpoint: str, revision: str, share: float) -> None:
        served = self._served[endpoint, revision]
        if share and served.state != "ready":
            raise InvalidSpecError(
                f"Revision {revision!r} of {endpoint!r} is {served.state}, so it cannot get {share:g} percent. "
                f"{served.detail or 'Wait until it is ready.'}"
            )

    def rollback(self, endpoint: str) -> None:
        """Give all traffic back; repeated in a row it changes nothing.

        :raises ConflictError: there is no earlier revision
        """
        record = self.find(endpoint)
        if target := record.rollback_target():
            self._keep(record.back_at(target))

    async def remove_revision(self, endpoint: str, revision: str) -> None:
        """Take a revision without traffic away, once its open requests are answered.

        :raises InvalidSpecError: it still has traffic
        """
        self._keep(self.find(endpoint).without(revision))
        await self._retire(endpoint, revision)

    async def remove_endpoint(self, endpoint: str) -> None:
        """Take an endpoint away, once its open requests are answered. What it captured stays."""
        record = self._endpoints.get(endpoint)
        if record is None:
            return
        save_state(self.root / "state.json", {name: e for name, e in self._endpoints.items() if name != endpoint})
        del self._endpoints[endpoint]
        await asyncio.gather(*(self._retire(endpoint, item.revision) for item in record.revisions))
        if log := self._logs.pop(endpoint, None):
            await log.capture.flush_or_log()

    async def _retire(self, endpoint: str, revision: str) -> None:
        if served := self._served.pop((endpoint, revision), None):
            await served.stop()
            await asyncio.to_thread(shutil.rmtree, served.home, ignore_errors=True)

    # Requests

    async def score(
        self, endpoint: str, table: Table, *, request_id: str, sticky: str = "", arrived: float
    ) -> tuple[str, Outcome]:
        """Answer one request; return the revision that did, and the outcome.

        :param arrived: when the request came, in seconds since 1970
        :raises NotFoundError: there is no such endpoint
        :raises NoTrafficError: no revision has traffic
        """
        point = sticky_point(endpoint, sticky) if sticky else random.random() * 100  # noqa: S311 - no secret
        revision = choose(self.find(endpoint).shares, point)
        if revision is None:
            raise NoTrafficError(
                f"No revision of endpoint {endpoint!r} has traffic. Shift traffic to one that is ready."
            )
        log = self.traffic_log(endpoint)
        outcome = await self._served[endpoint, revision].score(table)
        log.add(revision, request_id, arrived, outcome)
        return revision, outcome

    def traffic_log(self, endpoint: str) -> TrafficLog:
        """Return what the endpoint remembers of its requests.

        :raises NotFoundError: there is no such endpoint
        """
        self.find(endpoint)
        if endpoint not in self._logs:
            self._logs[endpoint] = TrafficLog(self.root / "capture" / endpoint)
        return self._logs[endpoint]
