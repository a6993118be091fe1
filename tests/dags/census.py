"""The templates' second real table: employment in Massachusetts, 2015 to 2018 (census data in ``nannyml``)."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path

TARGET = "employed"
FEATURES = "AGEP, SCHL, MAR, DIS, ESP, CIT, MIG, MIL, NATIVITY, DEAR, DREM, SEX, RAC1P"
CHECKS: list[tuple[str, dict[str, object]]] = [
    ("expect_table_row_count_to_be_between", {"min_value": 500}),
    ("expect_column_values_to_be_in_set", {"column": TARGET, "value_set": [0, 1]}),
    ("expect_column_values_to_be_between", {"column": "AGEP", "min_value": 0, "max_value": 120}),
    ("expect_column_values_to_be_in_set", {"column": "SEX", "value_set": ["1", "2"]}),
]
SUITE = {"name": "census", "expectations": [{"type": kind, "kwargs": kwargs} for kind, kwargs in CHECKS]}


def write_year(year: int, to: Path, rows: int = 6000) -> Path:
    """Write one year: *rows* rows to learn from and half as many to judge with, none of them in both."""
    import duckdb

    package = find_spec("nannyml")
    assert package is not None, "install requirements/datasets.txt"
    assert package.submodule_search_locations
    data = Path(package.submodule_search_locations[0]) / "datasets" / "data"
    table = (
        f"SELECT {FEATURES}, {TARGET}, id FROM read_parquet('{data}/employment_MA_reference.pq')"
        if year == 2015
        else f"SELECT {FEATURES}, {TARGET}, id FROM read_parquet('{data}/employment_MA_analysis.pq') AS a "
        f"JOIN read_parquet('{data}/employment_MA_analysis_target.pq') AS b USING (id) WHERE year = {year}"
    )
    to.mkdir(parents=True, exist_ok=True)
    for name, part, limit in (("train", "id % 4 <> 0", rows), ("holdout", "id % 4 = 0", rows // 2)):
        duckdb.sql(
            f"COPY (SELECT * EXCLUDE (id) FROM ({table}) WHERE {part} ORDER BY hash(id) LIMIT {limit}) "
            f"TO '{to / name}.parquet' (FORMAT parquet)"
        )
    return to


def requests_of(folder: Path, limit: int) -> list[dict[str, object]]:
    """Return rows of a year's holdout as a client would send them."""
    import duckdb

    rows = duckdb.sql(f"SELECT * EXCLUDE ({TARGET}) FROM '{folder}/holdout.parquet' LIMIT {limit}")
    return [dict(zip(rows.columns, row, strict=True)) for row in rows.fetchall()]


def project(root: Path) -> str:
    """Return the project file of the model."""
    return json.dumps(
        {
            "model_name": "employment",
            "endpoint": "employment",
            "data_path": "data/census",
            "data_asset": "mlops://data/census",
            "landing": str(root / "landing"),
            "suite": "suites/census.json",
            "command": [sys.executable, "{code}/train.py", "--target", TARGET],
            "target": TARGET,
            "capture_dir": str(root / "gateway" / "capture"),
            "defaults": {"steps": [100], "bake": 2, "mode": "non_inferiority", "margin": 0.05},
            "sweep": {
                "rounds": 2,
                "space": {"regularisation": {"low": 1e-4, "high": 100, "log": True}},
                "metric": "validation_auc",
                "defaults": {
                    "trials": 2,
                    "parameters": {"validation": 0.3},
                    "initial": [{"regularisation": 1e-4}],
                    "steps": [100],
                    "bake": 2,
                },
            },
        }
    )
