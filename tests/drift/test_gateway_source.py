"""Captured traffic of the local gateway: which rows count, and what happens to bad files."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_mlops.core.decisions import Verdict
from airflow_mlops.core.errors import IntegrityError, InvalidSpecError
from airflow_mlops.drift.detect import detect
from airflow_mlops.drift.policy import DriftPolicy
from airflow_mlops.drift.profile import DriftProfile, build
from airflow_mlops.drift.sources.choose import source_of
from airflow_mlops.drift.sources.gateway import GatewaySource
from airflow_mlops.drift.sources.piece import Selection
from airflow_mlops.drift.sources.window import Window

NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)


def capture(root: Path, revision: str, at: datetime, values: list[float], *, status: int = 200, part: int = 0) -> Path:
    """Write one file as the gateway does: a row a second from *at* on."""
    rows = len(values)
    times = [at + timedelta(seconds=i) for i in range(rows)]
    table = pa.table(
        {
            "request_id": [f"r{i}" for i in range(rows)],
            "row": pa.array([0] * rows, pa.int32()),
            "time": pa.array(times, pa.timestamp("us", "UTC")),
            "revision": [revision] * rows,
            "status": pa.array([status] * rows, pa.int16()),
            "latency_ms": pa.array([1.0] * rows, pa.float32()),
            "input.x": pa.array(values, pa.float64()),
            "input.city": ["a"] * rows,
            "prediction": pa.array([v / 2 for v in values], pa.float64()),
        }
    )
    path = root / "flights" / revision / at.date().isoformat() / f"part-{part}-{status}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def read(root: Path, **kwargs: str | Window) -> tuple[DriftProfile, list[str]]:
    """Return the profile of the captured traffic and the warnings."""
    source = GatewaySource(root, "flights", **kwargs)  # type: ignore[arg-type]
    return build(source, Selection()), source.warnings


def test_inputs_and_prediction_are_read_by_their_own_names(tmp_path: Path) -> None:
    """Features lose their prefix, the prediction stays, and the gateway's own columns are no features."""
    capture(tmp_path, "v1", NOON, [1.0, 2.0, 3.0])
    found, warnings = read(tmp_path)
    assert list(found.columns) == ["x", "city", "prediction"]
    assert (found.rows, found.columns["x"].mean, found.columns["prediction"].mean) == (3, 2.0, 1.0)
    assert warnings == []


def test_only_answered_requests_count(tmp_path: Path) -> None:
    """A refused or failed request tells nothing about the data the model works on."""
    capture(tmp_path, "v1", NOON, [1.0])
    capture(tmp_path, "v1", NOON, [50.0, 60.0], status=500)
    found, _ = read(tmp_path)
    assert (found.rows, found.columns["x"].high) == (1, 1.0)


def test_revision_and_window_are_filters(tmp_path: Path) -> None:
    """Only the asked revision and moments count, across folders of days; the end is not included."""
    for day in (0, 1, 5):
        capture(tmp_path, "v1", NOON + timedelta(days=day), [float(day)] * 10)
        capture(tmp_path, "v2", NOON + timedelta(days=day), [100.0 + day] * 10)
    window = Window.of((NOON + timedelta(seconds=4)).timestamp(), (NOON + timedelta(days=1, seconds=3)).isoformat())
    found, _ = read(tmp_path, revision="v2", window=window)
    assert (found.rows, found.columns["x"].low, found.columns["x"].high) == (6 + 3, 100.0, 101.0)
    assert read(tmp_path)[0].rows == 60


def test_days_of_traffic_merge_and_small_files_are_joined(tmp_path: Path) -> None:
    """Many small files give what one large file gives, also where a column is of another type or absent in some."""
    for part in range(40):
        capture(tmp_path, "v1", NOON, [float(part)] * 5, part=part)
    odd = capture(tmp_path, "v1", NOON, [7.0], part=99)
    table = pq.read_table(odd)
    index = table.column_names.index("input.x")
    pq.write_table(table.set_column(index, "input.x", pa.array([7], pa.int64())).drop_columns("input.city"), odd)
    found, _ = read(tmp_path)
    assert found.rows == 201
    assert (found.columns["x"].present, found.columns["city"].nulls) == (201, 1)


def test_files_that_are_being_written_are_left_alone(tmp_path: Path) -> None:
    """A file with the suffix .tmp is not there yet, and is no reason to warn."""
    path = capture(tmp_path, "v1", NOON, [1.0])
    (path.parent / ".part-2.parquet.tmp").write_bytes(b"half")
    (path.parent / "part-3.parquet.tmp").write_bytes(b"half")
    found, warnings = read(tmp_path)
    assert (found.rows, warnings) == (1, [])


def test_a_damaged_file_is_counted_and_named(tmp_path: Path) -> None:
    """One bad file among good ones is named in a warning; the good ones count."""
    path = capture(tmp_path, "v1", NOON, [1.0])
    (path.parent / "part-bad.parquet").write_bytes(b"PAR1 broken")
    found, warnings = read(tmp_path)
    assert found.rows == 1
    assert found.warnings == tuple(warnings)
    assert warnings[0].startswith("1 of 2 captured files cannot be read")
    assert "part-bad.parquet" in warnings[0]


def test_only_damaged_files_are_an_error(tmp_path: Path) -> None:
    """Where nothing can be read it fails: broken traffic must never pass for no traffic."""
    capture(tmp_path, "v1", NOON, [1.0]).write_bytes(b"broken")
    with pytest.raises(IntegrityError, match="None of the 1 captured files"):
        read(tmp_path)


def test_no_traffic_is_inconclusive_with_the_reason(tmp_path: Path) -> None:
    """Without traffic there is no drift and no all-clear: INCONCLUSIVE, and it says where it looked."""
    capture(tmp_path / "other", "v1", NOON, [1.0] * 300)
    reference, _ = read(tmp_path / "other")
    current, _ = read(tmp_path, revision="v9")
    report = detect(reference, current, DriftPolicy())
    assert report.verdict is Verdict.INCONCLUSIVE
    assert "no answered traffic of revision 'v9'" in report.decision.summary()
    assert report.schema_changes == ()


def test_the_dict_of_an_endpoint_names_the_traffic(tmp_path: Path) -> None:
    """A DAG names traffic by capture folder, endpoint and revision; a typo is refused with a close match."""
    capture(tmp_path, "v1", NOON, [1.0])
    good = {"capture_dir": str(tmp_path), "endpoint": "flights", "revision": "v1"}
    assert build(source_of(good)).rows == 1
    with pytest.raises(InvalidSpecError, match="did you mean 'revision'"):
        source_of({**good, "revison": "v1"})
    with pytest.raises(InvalidSpecError, match="names no endpoint"):
        source_of({"capture_dir": str(tmp_path)})


def test_reading_traffic_does_not_import_pandas(tmp_path: Path) -> None:
    """Reading captured traffic of a window never imports pandas."""
    capture(tmp_path, "v1", NOON, [1.0, 2.0])
    code = """
import sys
from pathlib import Path
from airflow_mlops.drift.profile import build
from airflow_mlops.drift.sources.gateway import GatewaySource
from airflow_mlops.drift.sources.window import Window
made = build(GatewaySource(Path(sys.argv[1]), "flights", window=Window.of("2024-03-01", None)))
print(made.rows, "pandas" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "False"]


@pytest.mark.parametrize("value", ["yesterday", "1e999", [1], "2024-13-01"])
def test_what_is_no_moment_is_refused(value: object) -> None:
    """A window's end that is neither seconds nor ISO 8601 is refused by value."""
    with pytest.raises(InvalidSpecError, match="is no moment"):
        Window.of(value, None)


def test_a_window_that_ends_before_it_starts_is_refused() -> None:
    """Exchanged ends are an error and not an empty window."""
    with pytest.raises(InvalidSpecError, match="is after until"):
        Window.of(10, 5)
