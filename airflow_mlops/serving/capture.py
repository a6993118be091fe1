"""Bounded buffers between the answers and the disk. A full buffer drops its oldest rows and counts them.

Writing is done in a thread, so that a slow disk slows nobody's answer; rows that cannot be written are kept for the
next round as long as there is room.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from airflow_mlops.serving.parquet import Captured, write_captured

EVERY_SECONDS = 2.0
MAX_VALUES = 2_000_000

_log = logging.getLogger(__name__)


class CaptureBuffer:
    """Captured requests of one endpoint that are not written yet; at most *limit* values (rows times columns)."""

    def __init__(self, limit: int = MAX_VALUES) -> None:
        self._items: deque[Captured] = deque()
        self._limit, self._size = limit, 0
        self.buffered = self.written = self.dropped = 0

    def add(self, item: Captured) -> None:
        """Keep *item*; drop the oldest ones while there are too many values."""
        self._items.append(item)
        self._size += _values(item)
        self.buffered += item.table.rows
        while self._size > self._limit and self._items:
            self.dropped += self._take_first().table.rows

    def _take_first(self) -> Captured:
        item = self._items.popleft()
        self._size -= _values(item)
        self.buffered -= item.table.rows
        return item

    def take(self) -> list[Captured]:
        """Take everything out."""
        return [self._take_first() for _ in range(len(self._items))]

    def put_back(self, items: Iterable[Captured]) -> None:
        """Put *items*, which are older than what is here, back; the oldest are dropped first."""
        for item in [*items, *self.take()]:
            self.add(item)

    def counts(self) -> dict[str, int]:
        """Return rows that wait, that are in files, and that were lost."""
        return {"buffered": self.buffered, "written": self.written, "dropped": self.dropped}


def _values(item: Captured) -> int:
    return item.table.rows * (len(item.table.columns) + 7)


class Capture:
    """The buffer of one endpoint and the files below *folder* it is written to."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._writing = folder, asyncio.Lock()
        self.buffer = CaptureBuffer()

    async def flush(self) -> dict[str, int]:
        """Write everything that waits and return the counts. Who is cancelled meanwhile leaves the writing to its end.

        :raises OSError: it cannot be written; the rows wait for the next try
        """
        return await asyncio.shield(self._flush())

    async def _flush(self) -> dict[str, int]:
        async with self._writing:
            items = self.buffer.take()
            if not items:
                return self.buffer.counts()
            rows = sum(item.table.rows for item in items)
            try:
                await asyncio.to_thread(write_captured, self._folder, items)
            except OSError:
                self.buffer.put_back(items)
                raise
            except Exception as error:  # noqa: BLE001 - no row that parquet cannot hold may stop all later ones
                self.buffer.dropped += rows
                _log.error(
                    "%d captured rows cannot be written as parquet and are dropped: %s", rows, type(error).__name__
                )
            else:
                self.buffer.written += rows
        return self.buffer.counts()

    async def flush_or_log(self) -> None:
        """Write what waits; a disk that cannot be written is a line in the log, and the rows wait."""
        try:
            await self.flush()
        except OSError as error:
            _log.error("Captured traffic cannot be written below %s: %s", self._folder, error)
