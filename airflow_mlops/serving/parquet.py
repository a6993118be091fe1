"""Captured traffic as parquet files: the one leaf that imports pyarrow. Layout: :mod:`airflow_mlops.serving`."""

from __future__ import annotations

import json
import math
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from airflow_mlops.core.extras import extra
from airflow_mlops.serving.schema import Table
from airflow_mlops.serving.window import Answer

KEPT_PER_REQUEST = 100


class Captured(NamedTuple):
    """One request that reached a model. ``types``: MLflow's word per column; ``predictions``: ``None`` on error."""

    request_id: str
    time: float
    revision: str
    status: int
    latency_ms: float
    table: Table
    types: tuple[str, ...]
    predictions: Sequence[Any] | None

    @property
    def scores(self) -> list[float | None]:
        """One number a row; ``None`` where the prediction is no number."""
        if self.predictions is None or len(self.predictions) != self.table.rows:
            return [None] * self.table.rows
        return [float(value) if isinstance(value, (int, float)) else None for value in self.predictions]


def write_captured(folder: Path, items: Iterable[Captured]) -> None:
    """Write *items* of one endpoint below *folder*, one file a revision, day and set of columns."""
    groups: dict[tuple[str, str, tuple[str, ...]], list[Captured]] = {}
    for item in items:
        day = datetime.fromtimestamp(item.time, UTC).date().isoformat()
        groups.setdefault((item.revision, day, item.table.names), []).append(item)
    for (revision, day, _), found in groups.items():
        _write(folder / revision / day, found)


def _write(folder: Path, items: list[Captured]) -> None:
    with extra("serve"):
        import pyarrow.parquet as pq
    folder.mkdir(parents=True, exist_ok=True)
    name = f"part-{time.time_ns() // 1_000_000}-{uuid.uuid4().hex[:8]}.parquet"
    draft = folder / f".{name}.tmp"
    try:
        pq.write_table(_arrow(items), draft)
        draft.replace(folder / name)
    finally:
        draft.unlink(missing_ok=True)


def _arrow(items: list[Captured]) -> Any:
    import pyarrow as pa

    def repeated(values: Iterable[Any], kind: Any) -> Any:
        each = chain.from_iterable([value] * item.table.rows for value, item in zip(values, items, strict=True))
        return pa.array(list(each), kind)

    moments = [round(item.time * 1e6) for item in items]
    columns = {
        "request_id": repeated((item.request_id for item in items), pa.string()),
        "row": pa.array([row for item in items for row in range(item.table.rows)], pa.int32()),
        "time": repeated(moments, pa.int64()).cast(pa.timestamp("us", tz="UTC")),
        "revision": repeated((item.revision for item in items), pa.string()),
        "status": repeated((item.status for item in items), pa.int16()),
        "latency_ms": repeated((item.latency_ms for item in items), pa.float32()),
    }
    for index, (name, kind) in enumerate(zip(items[0].table.names, items[0].types, strict=True)):
        values = [value for item in items for value in item.table.columns[index]]
        columns[f"input.{name}"] = _input(values, kind)
    columns["prediction"] = pa.array([score for item in items for score in item.scores], pa.float64())
    return pa.table(columns)


def _input(values: list[Any], kind: str) -> Any:
    """Return the values in the type of their column; without one, numbers are float64 and all else is text."""
    import pyarrow as pa

    known = {"long": pa.int64(), "integer": pa.int32(), "boolean": pa.bool_()}
    if kind in known:
        return pa.array(values, known[kind])
    if kind in ("double", "float") or (kind == "any" and set(map(type, values)) <= {int, float, bool, type(None)}):
        return pa.array([_number(value) for value in values], pa.float64())
    return pa.array([value if value is None or isinstance(value, str) else json.dumps(value) for value in values])


def _number(value: float | None) -> float | None:
    try:
        return None if value is None else float(value)
    except OverflowError:
        return math.inf


def recent_answers(folder: Path, since: float) -> list[Answer]:
    """Return the answers captured below *folder* (one endpoint) from *since* on, by arrival."""
    days = {datetime.fromtimestamp(moment, UTC).date().isoformat() for moment in (since, time.time())}
    files = [path for day in days for path in folder.glob(f"*/{day}/part-*.parquet") if path.stat().st_mtime >= since]
    found = chain.from_iterable(map(_answers, files))
    return sorted(answer for answer in found if answer.time >= since)


def _answers(path: Path) -> Iterator[Answer]:
    with extra("serve"):
        import pyarrow.parquet as pq
    names = ["request_id", "time", "revision", "status", "latency_ms", "prediction"]
    rows: dict[str, tuple[float, str, int, float]] = {}
    scores: dict[str, list[float]] = {}
    for row in pq.ParquetFile(path).read(columns=names).to_pylist():
        key = row["request_id"]
        rows[key] = (row["time"].timestamp(), row["revision"], row["status"], row["latency_ms"])
        if row["prediction"] is not None:
            scores.setdefault(key, []).append(row["prediction"])
    for key, head in rows.items():
        yield Answer(*head, tuple(scores.get(key, ())[:KEPT_PER_REQUEST]))
