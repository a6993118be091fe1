"""A quarantine neither loses nor doubles a row."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_mlops.core.errors import IntegrityError
from airflow_mlops.validation.quarantine import split


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), max_size=6), min_size=1, max_size=3), st.data())
def test_every_row_is_in_exactly_one_part(parts: list[list[int]], data: st.DataObject) -> None:
    """Over several files, empty ones too, the two parts together are the input, in its order."""
    rows = [value for part in parts for value in part]
    bad = data.draw(st.dictionaries(st.sampled_from(range(len(rows))), st.just("why"))) if rows else {}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "source")
        source.mkdir()
        for number, part in enumerate(parts):
            table = pa.table({"x": pa.array(part, pa.int32())})
            pq.write_table(table, source / f"{number}.parquet", row_group_size=2)
        good, away = split(source, bad, Path(folder, "out"))
        assert pq.read_table(good)["x"].to_pylist() == [x for n, x in enumerate(rows) if n not in bad]
        assert pq.read_table(away)["x"].to_pylist() == [x for n, x in enumerate(rows) if n in bad]
        assert set(pq.read_table(away)["reason"].to_pylist()) <= {"why"}
        assert pq.read_schema(good).field("x").type == pa.int32()


def test_csv_becomes_parquet(tmp_path: Path) -> None:
    """Rows of a CSV file are split the same way; missing values stay missing."""
    (tmp_path / "x.csv").write_text("a,b\n1,\n2,y\n3,z\n")
    good, away = split(tmp_path / "x.csv", {1: "why"}, tmp_path / "out")
    assert pd.read_parquet(good)["a"].tolist() == [1, 3]
    assert pd.read_parquet(good)["b"].isna().tolist() == [True, False]
    assert pd.read_parquet(away).to_dict("records") == [{"a": 2, "b": "y", "reason": "why"}]


def test_a_column_called_reason_is_kept(tmp_path: Path) -> None:
    """Data that has a column of that name keeps it."""
    pd.DataFrame({"reason": ["mine"]}).to_parquet(tmp_path / "x.parquet")
    _, away = split(tmp_path / "x.parquet", {0: "why"}, tmp_path / "out")
    assert pd.read_parquet(away).to_dict("records") == [{"reason": "mine", "quarantine_reason": "why"}]


@pytest.mark.parametrize("row", [2, -1])
def test_data_that_changed_is_not_split(tmp_path: Path, row: int) -> None:
    """A row number that is not there means other data than was checked: nothing is written, nothing replaced."""
    pd.DataFrame({"x": [1, 2]}).to_parquet(tmp_path / "x.parquet")
    good, _ = split(tmp_path / "x.parquet", {0: "why"}, tmp_path / "out")
    before = good.read_bytes()
    with pytest.raises(IntegrityError, match="changed since"):
        split(tmp_path / "x.parquet", {row: "why"}, tmp_path / "out")
    assert good.read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["passed.parquet", "quarantine.parquet"]
