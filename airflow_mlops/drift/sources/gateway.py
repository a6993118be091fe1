"""Traffic that the local gateway captured: what the model was asked, and what it answered.

``<capture_dir>/<endpoint>/<revision>/<YYYY-MM-DD>/part-<...>.parquet`` with the columns request_id, row, time,
revision, status, latency_ms, ``input.<feature>`` and prediction. Only answered requests (status 200) count.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa  # noqa: TID253 - a leaf that computes; operators import it when they run
import pyarrow.compute as pc  # noqa: TID253
import pyarrow.parquet as pq  # noqa: TID253

from airflow_mlops.core.errors import IntegrityError
from airflow_mlops.drift.arrow import integer
from airflow_mlops.drift.profile import PREDICTION
from airflow_mlops.drift.sources.piece import Piece, Selection
from airflow_mlops.drift.sources.window import Window, masked

_INPUT = "input."
_ANSWERED = 200
_ROWS = 1 << 16
_NAMED = 5


class GatewaySource:
    """Captured requests of one endpoint.

    The many small files of a day are read together, about 65,000 rows at a time.

    :param capture_dir: folder the gateway writes to
    :param endpoint: name of the endpoint
    :param revision: only requests that this revision answered; empty for all
    :param window: only requests of that time
    """

    def __init__(self, capture_dir: Path, endpoint: str, *, revision: str = "", window: Window | None = None) -> None:
        self.folder, self.revision, self.window = capture_dir / endpoint, revision, window or Window()
        self.warnings: list[str] = []

    def pieces(self, selection: Selection) -> Iterator[Piece]:
        """Yield the inputs without their prefix, and the prediction.

        :raises IntegrityError: there are files and none of them can be read
        """
        bad: list[Path] = []
        read = rows = 0
        for day in self._days():
            for table, files in _tables(sorted(day.glob("*.parquet")), bad):
                piece = self._piece(table, selection)
                read, rows = read + files, rows + piece.rows
                if piece.rows:
                    yield piece
        self._warn(read, rows, bad)

    def _days(self) -> list[Path]:
        found = sorted(self.folder.glob(f"{self.revision or '*'}/*/"))
        return [day for day in found if (when := _day(day.name)) is None or self.window.touches(when)]

    def _piece(self, table: Any, selection: Selection) -> Piece:
        stored = {name.removeprefix(_INPUT): name for name in table.column_names if name.startswith(_INPUT)}
        if PREDICTION in table.column_names:
            stored.setdefault(PREDICTION, PREDICTION)
        mask = pc.equal(table.column("status").cast(pa.int64()), integer(_ANSWERED))
        if not self.window.open:
            mask = pc.and_(mask, self.window.mask(table.column("time")))
        piece = Piece(table.num_rows, selection.of(list(stored)), lambda name: table.column(stored[name]))
        return masked(piece, mask)

    def _warn(self, read: int, rows: int, bad: list[Path]) -> None:
        names = ", ".join(repr(str(path)) for path in bad[:_NAMED]) + (", ..." if len(bad) > _NAMED else "")
        if bad and not read:
            raise IntegrityError(f"None of the {len(bad)} captured files can be read: {names}. Is the disk full?")
        if bad:
            self.warnings.append(f"{len(bad)} of {read + len(bad)} captured files cannot be read: {names}.")
        if not rows:
            which = f"revision {self.revision!r}" if self.revision else "any revision"
            self.warnings.append(f"There is no answered traffic of {which} at {str(self.folder)!r} in that time.")


def _day(name: str) -> date | None:
    try:
        return date.fromisoformat(name)
    except ValueError:
        return None


def _tables(paths: list[Path], bad: list[Path]) -> Iterator[tuple[Any, int]]:
    """Yield tables of several files each, and of how many."""
    held: list[Any] = []
    for path in paths:
        try:
            table = pq.ParquetFile(path).read(use_threads=False)
            table.column("status"), table.column("time")
        except (pa.ArrowException, OSError, KeyError):
            bad.append(path)
            continue
        held.append(table)
        if sum(t.num_rows for t in held) >= _ROWS:
            yield pa.concat_tables(held, promote_options="permissive"), len(held)
            held = []
    if held:
        yield pa.concat_tables(held, promote_options="permissive"), len(held)
