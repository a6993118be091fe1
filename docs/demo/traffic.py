"""Live requests: real flights sent to the endpoint, a few at a time, the way a client would."""

from __future__ import annotations

import collections
import itertools
import threading
import time
from types import TracebackType
from typing import Any, Self

import httpx

ROWS_PER_REQUEST = 2
PAUSE_SECONDS = 0.03


class Traffic:
    """A client with its own thread. Answers are counted by status and by the revision that gave them."""

    def __init__(self, gateway: httpx.Client, endpoint: str, flights: list[dict[str, object]]) -> None:
        self._gateway, self._path = gateway, f"/endpoints/{endpoint}/invocations"
        starts = range(0, len(flights) - ROWS_PER_REQUEST + 1, ROWS_PER_REQUEST)
        self._batches = [flights[start : start + ROWS_PER_REQUEST] for start in starts]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.statuses: collections.Counter[int] = collections.Counter()
        self.revisions: collections.Counter[str] = collections.Counter()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(10)

    def wait_for(self, requests: int, timeout: float = 90) -> None:
        """Return once *requests* were answered well."""
        deadline = time.monotonic() + timeout
        while self.statuses[httpx.codes.OK] < requests:
            if time.monotonic() > deadline:
                raise SystemExit(f"Only {dict(self.statuses)} answers came within {timeout:.0f} s.")
            time.sleep(0.1)

    def _run(self) -> None:
        for batch in itertools.cycle(self._batches):
            if self._stop.is_set():
                return
            self._send(batch)
            time.sleep(PAUSE_SECONDS)

    def _send(self, batch: list[dict[str, Any]]) -> None:
        try:
            answer = self._gateway.post(self._path, json={"dataframe_records": batch})
        except httpx.HTTPError:
            self.statuses[0] += 1
            return
        self.statuses[answer.status_code] += 1
        self.revisions[answer.headers.get("x-mlops-revision", "none")] += 1
