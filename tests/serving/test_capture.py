"""Captured rows come back from parquet as they went in, and nothing is lost in silence."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.serving.capture import Capture, CaptureBuffer
from airflow_mlops.serving.parquet import Captured, recent_answers, write_captured
from airflow_mlops.serving.schema import Table


def _item(number: int, rows: int = 1, moment: float | None = None, **changes: Any) -> Captured:
    table = Table(("x", "city"), ([0.5] * rows, ["b"] * rows))
    when = 1_750_000_000.25 + number if moment is None else moment
    item = Captured(f"r{number}", when, "v1", 200, 1.5, table, ("double", "string"), [0.25] * rows)
    return item._replace(**changes)


def _read(folder: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    files = sorted(folder.glob("*/*/part-*.parquet"))
    return [row for file in files for row in pq.ParquetFile(file).read().to_pylist()]


def test_the_layout_is_what_readers_rely_on(tmp_path: Path) -> None:
    """Folders by revision and day, the documented columns and types, one row a scored row."""
    import pyarrow.parquet as pq

    write_captured(tmp_path, [_item(0, rows=2)])
    (file,) = tmp_path.glob("v1/2025-06-15/part-*.parquet")
    schema = {field.name: str(field.type) for field in pq.read_schema(file)}
    assert schema == {
        "request_id": "string",
        "row": "int32",
        "time": "timestamp[us, tz=UTC]",
        "revision": "string",
        "status": "int16",
        "latency_ms": "float",
        "input.x": "double",
        "input.city": "string",
        "prediction": "double",
    }
    first, second = _read(tmp_path)
    assert (first["row"], second["row"]) == (0, 1)
    assert first["time"] == datetime.fromtimestamp(1_750_000_000.25, UTC)


def test_a_failed_request_has_its_input_and_no_prediction(tmp_path: Path) -> None:
    """So that one can see what a model failed on; text that a model predicts is no number either."""
    write_captured(tmp_path, [_item(0, status=500, predictions=None), _item(1, predictions=["yes"])])
    assert [(row["status"], row["input.x"], row["prediction"]) for row in _read(tmp_path)] == [
        (500, 0.5, None),
        (200, 0.5, None),
    ]


def test_days_revisions_and_columns_have_files_of_their_own(tmp_path: Path) -> None:
    """No file mixes what a reader wants apart."""
    other = Table(("y",), ([1],))
    items = [
        _item(0),
        _item(1, moment=1_750_086_400.0),
        _item(2, revision="v2"),
        _item(3, table=other, types=("long",)),
        _item(4),
    ]
    write_captured(tmp_path, items)
    assert len(list(tmp_path.rglob("*.parquet"))) == 4
    assert {row["request_id"] for row in _read(tmp_path)} == {"r0", "r1", "r2", "r3", "r4"}


@given(
    st.lists(
        st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text() | st.lists(st.integers())
    )
)
def test_input_without_a_declared_type_can_always_be_written(values: list[Any]) -> None:
    """Numbers become float64 and everything else text, so files of one feature can be read together."""
    import pyarrow as pa

    from airflow_mlops.serving.parquet import _input

    found = _input(values, "any")
    assert found.type in (pa.float64(), pa.string())
    assert found.null_count == values.count(None)


def test_answers_are_remembered_from_files(tmp_path: Path) -> None:
    """After a restart the figures of the last hours come from what was captured."""
    now = time.time()
    write_captured(tmp_path, [_item(0, rows=3, moment=now - 60), _item(1, moment=now - 9000)])
    (answer,) = recent_answers(tmp_path, now - 7200)
    assert (answer.revision, answer.status, answer.predictions) == ("v1", 200, (0.25, 0.25, 0.25))
    assert answer.time == pytest.approx(now - 60, abs=1e-5)


@given(st.lists(st.integers(1, 5), max_size=30), st.integers(0, 60))
def test_every_row_is_buffered_or_counted_as_dropped(sizes: list[int], limit: int) -> None:
    """A full buffer drops its oldest requests, keeps within its limit and loses count of nothing."""
    buffer = CaptureBuffer(limit)
    for number, rows in enumerate(sizes):
        buffer.add(_item(number, rows))
    counts = buffer.counts()
    kept = buffer.take()
    assert counts["buffered"] + counts["dropped"] == sum(sizes)
    assert counts["buffered"] == sum(item.table.rows for item in kept)
    assert sum(item.table.rows * 9 for item in kept) <= limit
    assert [item.request_id for item in kept] == [f"r{n}" for n in range(len(sizes) - len(kept), len(sizes))]


def test_rows_that_cannot_be_written_wait_for_the_next_try(tmp_path: Path) -> None:
    """A disk that refuses loses nothing: the rows are written when it takes them again."""
    capture = Capture(tmp_path / "capture")
    capture.buffer.add(_item(0))
    (tmp_path / "capture").write_text("in the way")
    with pytest.raises(OSError, match="capture"):
        asyncio.run(capture.flush())
    assert capture.buffer.counts() == {"buffered": 1, "written": 0, "dropped": 0}
    (tmp_path / "capture").unlink()
    assert asyncio.run(capture.flush()) == {"buffered": 0, "written": 1, "dropped": 0}
    assert len(_read(tmp_path / "capture")) == 1


def test_rows_are_written_once_when_the_gateway_ends_meanwhile(tmp_path: Path) -> None:
    """A flush that is cancelled while it writes goes on; the last one waits for it and writes nothing twice."""
    capture = Capture(tmp_path)
    capture.buffer.add(_item(0, rows=2))

    async def end_while_writing() -> dict[str, int]:
        flush = asyncio.create_task(capture.flush())
        while capture.buffer.buffered:  # noqa: ASYNC110 - until the rows were taken out, and no longer
            await asyncio.sleep(0)
        flush.cancel()
        await asyncio.gather(flush, return_exceptions=True)
        return await capture.flush()

    assert asyncio.run(end_while_writing()) == {"buffered": 0, "written": 2, "dropped": 0}
    assert len(_read(tmp_path)) == 2


def test_rows_that_parquet_cannot_hold_are_dropped_and_counted(tmp_path: Path) -> None:
    """They would never be written; the rows after them are."""
    capture = Capture(tmp_path)
    capture.buffer.add(_item(0, rows=2, status=10**9))
    assert asyncio.run(capture.flush()) == {"buffered": 0, "written": 0, "dropped": 2}
    capture.buffer.add(_item(1))
    assert asyncio.run(capture.flush()) == {"buffered": 0, "written": 1, "dropped": 2}
