"""Both engines agree on every check, whatever the data."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.validation.engines.great_expectations import GreatExpectationsValidator
from airflow_mlops.validation.engines.sql import SqlValidator
from airflow_mlops.validation.engines.sql_checks import COMPILED_TYPES, compile_check
from airflow_mlops.validation.suite import Check

_TEXTS = st.sampled_from(["", "a", "B", "ab-1", "a.b", "é", "😀", "a\n", "a\nb", "'", "٣", "nan"])
_INTS = st.integers(-3, 3) | st.sampled_from([2**53 + 1, 2**53 + 2, -(2**40)])
_FLOATS = st.sampled_from([0.0, 0.5, -1.5, 2.0, float("nan"), float("inf"), 1e300])


def _maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


_ROWS = st.lists(st.tuples(_maybe(_INTS), _maybe(_FLOATS), _maybe(_TEXTS), _INTS), max_size=8)
_NUMBERS = st.sampled_from(["i", "f", "n"])
_COLUMNS = st.sampled_from(["i", "f", "s", "n"])
_MOSTLY = st.fixed_dictionaries({}, optional={"mostly": st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0])})
_RANGE = st.tuples(
    st.sampled_from([(0, None), (None, 1), (-1, 2), (0.5, 0.5), (-1.5, 1e9)]), st.booleans(), st.booleans()
).map(
    lambda r: {
        **{k: v for k, v in zip(("min_value", "max_value"), r[0], strict=True) if v is not None},
        "strict_min": r[1],
        "strict_max": r[2],
    }
)
_SETS = st.sampled_from([[0, 1, 2], [0.5, -1.5], [3]])
_WORDS = st.sampled_from([["a"], ["", "é", "nan"], ["'", "B"]])
_REGEX = st.sampled_from(["a", "^a$", "^[a-z]+$", "[A-Z]", "b$", "a\\.b", "^a?b*", "a{1,2}", "^.$", "\\d", "a|B"])


def _with(*parts: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.tuples(*parts).map(lambda found: {k: v for part in found for k, v in part.items()})


def _column(columns: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    return columns.map(lambda c: {"column": c})


def _key(name: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return values.map(lambda v: {name: v})


_TEXT = _column(st.just("s"))
_ARGUMENTS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "expect_column_to_exist": _column(st.sampled_from(["i", "zz"])),
    "expect_column_values_to_not_be_null": _with(_column(_COLUMNS), _MOSTLY),
    "expect_column_values_to_be_null": _with(_column(_COLUMNS), _MOSTLY),
    "expect_column_values_to_be_between": _with(_column(_NUMBERS), _RANGE, _MOSTLY),
    "expect_column_values_to_be_in_set": st.one_of(
        _with(_column(_NUMBERS), _key("value_set", _SETS), _MOSTLY), _with(_TEXT, _key("value_set", _WORDS), _MOSTLY)
    ),
    "expect_column_values_to_not_be_in_set": st.one_of(
        _with(_column(_NUMBERS), _key("value_set", _SETS), _MOSTLY), _with(_TEXT, _key("value_set", _WORDS), _MOSTLY)
    ),
    "expect_column_values_to_be_unique": _with(_column(_COLUMNS), _MOSTLY),
    "expect_column_values_to_match_regex": _with(_TEXT, _key("regex", _REGEX), _MOSTLY),
    "expect_column_values_to_not_match_regex": _with(_TEXT, _key("regex", _REGEX), _MOSTLY),
    "expect_column_value_lengths_to_be_between": _with(
        _TEXT, st.sampled_from([{"min_value": 1}, {"max_value": 1}, {"min_value": 1, "max_value": 2}]), _MOSTLY
    ),
    "expect_column_value_lengths_to_equal": _with(_TEXT, _key("value", st.sampled_from([0, 1, 2])), _MOSTLY),
    "expect_compound_columns_to_be_unique": _with(
        _key("column_list", st.sampled_from([["i", "s"], ["n", "f"], ["i", "f", "s"]])), _MOSTLY
    ),
    "expect_column_distinct_values_to_be_in_set": _with(_TEXT, _key("value_set", _WORDS)),
    "expect_column_min_to_be_between": _with(_column(_NUMBERS), _RANGE),
    "expect_column_max_to_be_between": _with(_column(_NUMBERS), _RANGE),
    "expect_column_mean_to_be_between": _with(_column(st.sampled_from(["i", "n"])), _RANGE),
    "expect_column_median_to_be_between": _with(_column(st.sampled_from(["i", "n"])), _RANGE),
    "expect_column_sum_to_be_between": _with(_column(st.sampled_from(["i", "n"])), _RANGE),
    "expect_column_stdev_to_be_between": _with(_column(st.sampled_from(["i", "n"])), _RANGE),
    "expect_column_unique_value_count_to_be_between": _with(_column(_NUMBERS), _RANGE),
    "expect_table_row_count_to_be_between": _RANGE,
    "expect_table_row_count_to_equal": _key("value", st.integers(0, 3)),
    "expect_table_columns_to_match_ordered_list": _key("column_list", st.sampled_from([["i"], ["i", "f", "s", "n"]])),
    "expect_table_columns_to_match_set": _with(
        _key("column_set", st.sampled_from([["n", "s", "f", "i"], ["i", "f"]])),
        st.fixed_dictionaries({}, optional={"exact_match": st.booleans()}),
    ),
}


def test_every_compiled_check_is_compared() -> None:
    """No check is compiled to SQL without being compared here."""
    assert set(_ARGUMENTS) == set(COMPILED_TYPES)


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],  # to shrink 48 checks at once takes minutes
)
@given(_ROWS, st.tuples(*(strategy for strategy in _ARGUMENTS.values() for _ in range(2))))
def test_engines_agree(rows: list[tuple[Any, ...]], arguments: tuple[dict[str, Any], ...]) -> None:
    """Status, unexpected rows, bad rows and their reasons are the same, with missing values, NaN and odd texts."""
    kinds = [kind for kind in _ARGUMENTS for _ in range(2)]
    suite = {
        "name": "parity",
        "expectations": [{"type": k, "kwargs": a} for k, a in zip(kinds, arguments, strict=True)],
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.parquet")
        _write(rows, path)
        slow, fast = GreatExpectationsValidator(), SqlValidator()
        one, other = slow.check(path, suite), fast.check(path, suite)
        for left, right in zip(one.checks, other.checks, strict=True):
            assert (left.status, left.unexpected) == (right.status, right.unexpected), (left, right)
        assert (one.status, one.rows, one.bad_rows) == (other.status, other.rows, other.bad_rows)
        assert slow.bad_rows(path, suite) == fast.bad_rows(path, suite)


def _write(rows: list[tuple[Any, ...]], path: Path) -> None:
    types = {"i": pa.int64(), "f": pa.float64(), "s": pa.string(), "n": pa.int64()}
    columns = [pa.array([row[n] for row in rows], kind) for n, kind in enumerate(types.values())]
    pq.write_table(pa.table(columns, names=list(types)), path, row_group_size=3)


@pytest.mark.parametrize(
    ("column", "kwargs"),
    [
        ("small", {"min_value": 0.1}),
        ("narrow", {"max_value": 100}),
        ("moment", {"min_value": "2024-01-15", "max_value": "2024-12-31"}),
        ("moment", {"min_value": "2024-01-15 10:00:00"}),
        ("day", {"min_value": "2024-01-15"}),
        ("flag", {"min_value": 1}),
        ("price", {"max_value": 2}),
    ],
)
def test_engines_agree_on_other_types(tmp_path: Path, column: str, kwargs: dict[str, Any]) -> None:
    """Narrow numbers, moments, days, truth values and decimals mean the same in both engines."""
    import datetime
    import decimal

    frame = pa.table(
        {
            "small": pa.array([0.1, 0.2, None], pa.float32()),
            "narrow": pa.array([1, 120, None], pa.int8()),
            "moment": pa.array([datetime.datetime(2024, 1, 1), datetime.datetime(2024, 3, 1), None]),  # noqa: DTZ001
            "day": pa.array([datetime.date(2024, 1, 1), datetime.date(2024, 3, 1), None]),
            "flag": pa.array([True, False, None]),
            "price": pa.array([decimal.Decimal("1.10"), decimal.Decimal("2.20"), None]),
        }
    )
    pq.write_table(frame, tmp_path / "x.parquet")
    check = {"type": "expect_column_values_to_be_between", "kwargs": {"column": column, **kwargs}}
    suite = {"name": "types", "expectations": [check]}
    one = GreatExpectationsValidator().check(tmp_path / "x.parquet", suite)
    other = SqlValidator().check(tmp_path / "x.parquet", suite)
    assert (one.checks, one.bad_rows) == (other.checks, other.bad_rows)
    if column in ("small", "narrow", "moment"):
        assert one.checks[0].status in ("pass", "fail")


def test_names_in_sql_are_quoted(tmp_path: Path) -> None:
    """Columns may be called anything, even like SQL."""
    name = 'a"; DROP VIEW rows; --'
    pd.DataFrame({name: [1, -1], "rows": [2, 2], "frame": [1, 2]}).to_parquet(tmp_path / "x.parquet")
    checks = [
        {"type": "expect_column_values_to_be_between", "kwargs": {"column": name, "min_value": 0}},
        {"type": "expect_column_values_to_be_unique", "kwargs": {"column": "rows"}},
        {"type": "expect_column_values_to_be_unique", "kwargs": {"column": "frame"}},
    ]
    report = SqlValidator().check(tmp_path / "x.parquet", {"name": "x", "expectations": checks})
    assert [check.unexpected for check in report.checks] == [1, 2, 0]


@pytest.mark.parametrize("validator", [GreatExpectationsValidator(), SqlValidator()], ids=lambda v: v.name)
def test_columns_that_differ_in_case_alone_are_refused(
    tmp_path: Path, validator: GreatExpectationsValidator | SqlValidator
) -> None:
    """Both libraries take such columns for one another, and would pass the wrong one."""
    pd.DataFrame({"number": [1, 2], "Number": [2, 2]}).to_parquet(tmp_path / "x.parquet")
    check = {"type": "expect_column_values_to_be_unique", "kwargs": {"column": "Number"}}
    with pytest.raises(InvalidSpecError, match="'number' and 'Number'"):
        validator.check(tmp_path / "x.parquet", {"name": "x", "expectations": [check]})


def test_nan_in_several_row_groups_is_missing(tmp_path: Path) -> None:
    """NaN is missing even where the file's statistics leave it out."""
    values = pa.table({"f": pa.array([1e300, float("nan"), 2.0, 1e300, 0.5, 1e300])})
    pq.write_table(values, tmp_path / "x.parquet", row_group_size=3)
    check = {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "f"}}
    report = SqlValidator().check(tmp_path / "x.parquet", {"name": "x", "expectations": [check]})
    assert (report.checks[0].unexpected, report.bad_rows) == (1, 1)


@pytest.mark.parametrize(
    "regex", ["\\d", "a|b", "(a)", "^.$", "a*?", "[^a]", "\\w+", "é", "a$b", "[a\\d]", "(?i)a", "$"]
)
def test_patterns_of_unsure_meaning_are_not_compiled(regex: str) -> None:
    """A pattern that Python and DuckDB could read differently is left to Great Expectations."""
    check = Check("expect_column_values_to_match_regex", {"column": "s", "regex": regex})
    assert compile_check(check, {"s": "text"}) is None
