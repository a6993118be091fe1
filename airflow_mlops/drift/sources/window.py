"""Which rows are meant: a window of time, from *since* up to but not including *until*."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa  # noqa: TID253 - a leaf that computes; operators import it when they run
import pyarrow.compute as pc  # noqa: TID253

from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.drift.arrow import integer
from airflow_mlops.drift.sources.piece import Piece


@dataclass(frozen=True)
class Window:
    """A window of time, open where ``None``."""

    since: datetime | None = None
    until: datetime | None = None

    @classmethod
    def of(cls, since: Any, until: Any) -> Window:
        """Read two moments with :func:`moment`.

        :raises InvalidSpecError: one of them is no moment, or *since* is after *until*
        """
        window = cls(moment(since), moment(until))
        if window.since and window.until and window.since > window.until:
            raise InvalidSpecError(f"since {since!r} is after until {until!r}. Exchange them.")
        return window

    @property
    def open(self) -> bool:
        """Whether every moment is in it."""
        return self.since is None and self.until is None

    def touches(self, day: date) -> bool:
        """Whether a folder of that day may hold rows of the window; rows may be written a little after midnight."""
        slack = timedelta(days=1)
        early = self.since is not None and day < (self.since - slack).date()
        return not (early or (self.until is not None and day > (self.until + slack).date()))

    def mask(self, times: Any) -> Any:
        """Return which of the arrow timestamps are in the window: true, false, or null for a missing one.

        :raises InvalidSpecError: the column does not hold timestamps
        """
        if not (pa.types.is_timestamp(times.type) or pa.types.is_date(times.type)):
            raise InvalidSpecError(f"The time column holds {times.type}, not timestamps. Name a column of timestamps.")
        micros = times.cast(pa.timestamp("us"), safe=False).cast(pa.int64())
        inside = pc.is_valid(micros)
        if self.since is not None:
            inside = pc.and_(inside, pc.greater_equal(micros, integer(_micros(self.since))))
        if self.until is not None:
            inside = pc.and_(inside, pc.less(micros, integer(_micros(self.until))))
        return inside


def moment(value: Any) -> datetime | None:
    """Return a moment in UTC from seconds since 1970, ISO 8601 or a datetime; ``None`` and ``""`` are no moment.

    :raises InvalidSpecError: it is none of these
    """
    if value is None or value == "":
        return None
    try:
        if isinstance(value, datetime):
            found = value
        else:
            found = datetime.fromtimestamp(float(value), UTC) if _is_number(value) else datetime.fromisoformat(value)
    except (TypeError, ValueError, OverflowError, OSError) as error:
        raise InvalidSpecError(f"{value!r} is no moment. Give seconds since 1970 or ISO 8601.") from error
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def masked(piece: Piece, mask: Any) -> Piece:
    """Return the rows of *piece* for which *mask* is true."""
    return Piece(pc.sum(mask).as_py() or 0, piece.names, lambda name: piece.read(name).filter(mask))


def _is_number(value: Any) -> bool:
    if not isinstance(value, str):
        return isinstance(value, (int, float))
    return value.strip().lstrip("+-").replace(".", "", 1).isdigit() and "-" not in value.strip()[1:]


def _micros(moment_: datetime) -> int:
    return int((moment_ - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1))
