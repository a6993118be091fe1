"""Profiles: what is read, what is kept, and that parts are as good as the whole."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
import pytest

from airflow_mlops.core.errors import InvalidSpecError, NotFoundError
from airflow_mlops.drift.columns import Kind
from airflow_mlops.drift.profile import DriftProfile, build, merge
from airflow_mlops.drift.sources.files import FileSource
from airflow_mlops.drift.sources.piece import Selection
from airflow_mlops.drift.sources.window import Window

NOW = datetime(2024, 5, 1, tzinfo=UTC)


def table(rows: int, seed: int) -> pa.Table:
    """Return a table with a column of every common kind."""
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "amount": rng.lognormal(3, 1, rows),
            "count": rng.integers(0, 500, rows),
            "city": pa.array([f"city-{i}" for i in rng.zipf(1.5, rows) % 7000]),
            "late": pa.array(rng.random(rows) < 0.2),
            "gap": pa.array(rng.normal(size=rows), mask=rng.random(rows) < 0.1),
            "when": pa.array(np.arange(rows) * 1_000_000, pa.timestamp("us", "UTC")),
        }
    )


@pytest.fixture
def days(tmp_path: Path) -> Path:
    """Give a folder with three days of parquet files, with several row groups each."""
    folder = tmp_path / "days"
    for day in range(3):
        path = folder / f"day={day}" / "part.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(table(9_000 + day, day), path, row_group_size=4_000)
    return folder


def profile(path: Path, **kwargs: object) -> DriftProfile:
    """Build the profile of files at a fixed time."""
    return build(FileSource(path), now=NOW, **kwargs)  # type: ignore[arg-type]


def test_days_merge_to_the_month(days: Path) -> None:
    """Profiles of partitions, merged in any order, are the profile of all files: every count, cell, key and sum."""
    parts = [profile(days / f"day={day}") for day in range(3)]
    whole = profile(days)
    assert merge(*parts) == whole
    assert merge(parts[2], parts[0], parts[1]) == whole
    assert whole.rows == 27_003
    assert whole.columns["amount"].cells.level < 52
    assert whole.columns["amount"].present == 27_003


def test_a_profile_is_small_json_that_comes_back(days: Path, tmp_path: Path) -> None:
    """Written and read again it is the same profile; it says its schema and its data, and holds no rows."""
    made = profile(days, data={"path": "data/flights", "digest": "md5:1"}, target="late")
    path = made.write(tmp_path / "deep" / "profile.json")
    plain = json.loads(path.read_text())
    assert DriftProfile.read(path) == made
    assert (plain["schema"], plain["data"], plain["target"]) == (
        1,
        [{"path": "data/flights", "digest": "md5:1"}],
        "late",
    )
    assert plain["created_at"] == "2024-05-01T00:00:00+00:00"
    assert path.stat().st_size < 200_000
    assert [p.name for p in path.parent.iterdir()] == ["profile.json"]


def test_csv_and_parquet_give_the_same_counts(tmp_path: Path) -> None:
    """The format of the file does not matter to numbers, text and missing values."""
    data = table(5_000, 1).select(["amount", "count", "city", "gap"])
    pq.write_table(data, tmp_path / "a.parquet")
    pcsv.write_csv(data, tmp_path / "a.csv")
    one, two = profile(tmp_path / "a.parquet"), profile(tmp_path / "a.csv")
    for name in data.column_names:
        a, b = one.columns[name], two.columns[name]
        assert (a.kind, a.cells, a.keys, a.nulls, a.low) == (b.kind, b.cells, b.keys, b.nulls, b.low)


def test_columns_can_be_chosen_left_out_and_read_as_codes(days: Path) -> None:
    """Only the wanted columns are there, and codes are categories."""
    chosen = Selection(columns=("count", "late"), exclude=("late",), categorical=("count",))
    made = profile(days, selection=chosen)
    assert list(made.columns) == ["count"]
    assert made.columns["count"].kind is Kind.CATEGORICAL


def test_a_missing_column_is_named_with_a_close_match(days: Path) -> None:
    """Asking for a column that is not there fails and says which was meant."""
    with pytest.raises(NotFoundError, match="no column 'amout': did you mean 'amount'"):
        profile(days, selection=Selection(columns=("amout",)))


def test_only_rows_of_the_window_are_counted(tmp_path: Path) -> None:
    """A window takes the rows from its first moment up to, and not including, its last."""
    pq.write_table(table(100, 0), tmp_path / "a.parquet", row_group_size=30)
    source = FileSource(tmp_path / "a.parquet", window=Window.of(10, "1970-01-01T00:00:40"), time_column="when")
    made = build(source)
    assert made.rows == 30
    assert (made.columns["when"].low, made.columns["when"].high) == (10.0, 39.0)


def test_prefixed_columns_lose_their_prefix(tmp_path: Path) -> None:
    """With a prefix only the columns that have it count, by their own name."""
    pq.write_table(pa.table({"input.a": [1], "input.b": [2], "other": [3]}), tmp_path / "a.parquet")
    assert list(build(FileSource(tmp_path / "a.parquet", prefix="input.")).columns) == ["a", "b"]


def test_a_window_needs_a_time_column(tmp_path: Path) -> None:
    """A window over files without a time column is refused before anything is read."""
    with pytest.raises(InvalidSpecError, match="time_column"):
        FileSource(tmp_path, window=Window.of(1, 2))


def test_no_data_says_where_it_looked(tmp_path: Path) -> None:
    """A missing path and an empty folder are told apart, with the path."""
    with pytest.raises(NotFoundError, match="no such file or folder"):
        FileSource(tmp_path / "nowhere")
    with pytest.raises(NotFoundError, match="holds no parquet or CSV file"):
        FileSource(tmp_path)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    """A file that is no parquet fails with its name: data that was asked for is never left out in silence."""
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(InvalidSpecError, match=r"bad\.parquet"):
        profile(tmp_path)


def test_parts_of_different_kinds_name_the_column(tmp_path: Path) -> None:
    """Numbers in one file and words in another cannot be one column: the error names it."""
    pq.write_table(pa.table({"x": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"x": ["one"]}), tmp_path / "b.parquet")
    with pytest.raises(InvalidSpecError, match="Column 'x'"):
        profile(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 99}', '{"schema": 1}', "nonsense"])
def test_foreign_json_is_refused(text: str) -> None:
    """What is no profile, or one of a later version, is refused with the reason."""
    with pytest.raises(InvalidSpecError, match="profile"):
        DriftProfile.from_json(text)


def test_a_broken_array_is_refused(days: Path) -> None:
    """A profile whose cells were damaged is refused, never half read."""
    plain = json.loads(profile(days).to_json())
    plain["columns"]["amount"]["cells"] = "AAAA"
    with pytest.raises(InvalidSpecError, match="Build"):
        DriftProfile.from_json(json.dumps(plain))


def test_nothing_drags_pandas_in(days: Path) -> None:
    """Profiling and comparing never import pandas, which costs as much as a million rows."""
    code = """
import sys
from pathlib import Path
from airflow_mlops.drift.detect import detect
from airflow_mlops.drift.policy import DriftPolicy
from airflow_mlops.drift.profile import build
from airflow_mlops.drift.sources.files import FileSource
from airflow_mlops.drift.sources.window import Window
made = build(FileSource(Path(sys.argv[1]), window=Window.of(5, 5000), time_column="when"))
print(detect(made, made, DriftPolicy()).verdict, made.rows, "pandas" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code, str(days)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["pass", str(3 * 4995), "False"]
