"""Lists in pages and watches: https://kubernetes.io/docs/reference/using-api/api-concepts/ is the source.

A continued list shows the state of its first page. A watch that lags behind a compaction ends with an ERROR event of
code 410 within a successful answer, as the watch cache of a real server does it.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator

from airflow_mlops.testing.kubernetes.faults import Faults
from airflow_mlops.testing.kubernetes.problems import Json, Problem
from airflow_mlops.testing.kubernetes.requests import Request
from airflow_mlops.testing.kubernetes.selectors import Test, matcher
from airflow_mlops.testing.kubernetes.store import Change, Store
from airflow_mlops.testing.wire.listener import ConnectionLost

WATCH_SECONDS = 1800
SLICE_SECONDS = 0.5


class Listing:
    """Answers list and watch requests from the store."""

    def __init__(self, store: Store, faults: Faults, bookmark_seconds: float) -> None:
        self._store = store
        self._faults = faults
        self._bookmark_seconds = bookmark_seconds
        self._pages: dict[str, tuple[int, list[Json]]] = {}

    def page(self, request: Request) -> Json:
        """Return one page.

        :raises Problem: 400 a selector or number cannot be read, 410 the continued list is too old, 504 a version that
            does not exist yet
        """
        version, items = self._state(request)
        limit = request.number("limit") or 0
        metadata: Json = {"resourceVersion": str(version)}
        if limit and len(items) > limit:
            metadata |= {"continue": self._keep(version, items[limit:]), "remainingItemCount": len(items) - limit}
            items = items[:limit]
        kind = request.kind
        shown = [_bare(item) if kind.model else item for item in items]
        return {"kind": f"{kind.name}List", "apiVersion": kind.api_version, "metadata": metadata, "items": shown}

    def _state(self, request: Request) -> tuple[int, list[Json]]:
        token = request.query.get("continue")
        if token:
            version, items = self._pages.get(token, (0, []))
            if version < self._store.compacted or token not in self._pages:
                raise Problem("Expired", "The provided continue parameter is too old to display a consistent list.")
            return version, items
        matches = _matcher(request)
        with self._store.changed:
            self._check_version(request)
            items = self._store.all(request.kind, request.namespace)
            return self._store.version, [item for item in items if matches(item)]

    def _check_version(self, request: Request) -> None:
        wanted = request.number("resourceVersion") or 0
        if wanted > self._store.version:
            raise Problem("Timeout", f"Too large resource version: {wanted}, current: {self._store.version}")
        if request.query.get("resourceVersionMatch") == "Exact" and wanted != self._store.version:
            raise Problem("Expired", f"The resourceVersion for the provided list is too old: {wanted}")

    def _keep(self, version: int, rest: list[Json]) -> str:
        token = secrets.token_urlsafe(24)
        self._pages[token] = (version, rest)
        return token

    def watch(self, request: Request) -> Iterator[bytes]:
        """Yield one line per event; empty bytes mean that nothing happened for a while.

        :raises ConnectionLost: the test cut it off
        """
        matches = _matcher(request)
        epoch = self._faults.watch_epoch
        for event in self._events(request, matches):
            if epoch != self._faults.watch_epoch:
                raise ConnectionLost
            if event is not None:
                self._faults.delay("watch")
            yield b"" if event is None else json.dumps(event).encode() + b"\n"

    def _events(self, request: Request, matches: Test) -> Iterator[Json | None]:
        timeout = request.number("timeoutSeconds") or WATCH_SECONDS
        end, version = time.monotonic() + timeout, request.number("resourceVersion") or 0
        is_open = version == 0
        if is_open:
            with self._store.changed:
                version, items = self._store.version, self._store.all(request.kind, request.namespace)
            yield from ({"type": "ADDED", "object": item} for item in items if matches(item))
        marks = _Bookmarks(request, self._bookmark_seconds)
        while (left := end - time.monotonic()) > 0:
            try:
                changes, version = self._store.after(version, min(left, SLICE_SECONDS, marks.wait()), is_open=is_open)
            except Problem as problem:
                yield {"type": "ERROR", "object": problem.status()}
                return
            is_open = True
            yield from (event for change in changes if (event := _event(change, request, matches)))
            yield marks.due(version)
        yield marks.last(version)


class _Bookmarks:
    """When a watch tells how far it has come, if it was asked to."""

    def __init__(self, request: Request, seconds: float) -> None:
        self._wanted = request.flag("allowWatchBookmarks")
        self._kind = request.kind
        self._seconds = seconds
        self._next = time.monotonic() + seconds

    def wait(self) -> float:
        return max(0.01, self._next - time.monotonic()) if self._wanted else SLICE_SECONDS

    def due(self, version: int) -> Json | None:
        if time.monotonic() < self._next:
            return None
        self._next = time.monotonic() + self._seconds
        return self.last(version)

    def last(self, version: int) -> Json | None:
        if not self._wanted:
            return None
        metadata = {"resourceVersion": str(version), "creationTimestamp": None}
        bookmark = {"kind": self._kind.name, "apiVersion": self._kind.api_version, "metadata": metadata}
        return {"type": "BOOKMARK", "object": bookmark}


def _matcher(request: Request) -> Test:
    query = request.query
    return matcher(request.kind.plural, query.get("labelSelector", ""), query.get("fieldSelector", ""))


def _event(change: Change, request: Request, matches: Test) -> Json | None:
    """Return the event as this watch sees it: an object that begins or ceases to match is added or deleted."""
    if change.kind != request.kind or request.namespace not in {"", change.new["metadata"].get("namespace")}:
        return None
    before = change.old is not None and matches(change.old)
    after = change.type != "DELETED" and matches(change.new)
    if after:
        return {"type": "MODIFIED" if before else "ADDED", "object": change.new}
    return {"type": "DELETED", "object": change.new} if before else None


def _bare(item: Json) -> Json:
    """Return an item as lists of built-in kinds show it, without kind and version."""
    return {key: value for key, value in item.items() if key not in {"kind", "apiVersion"}}
