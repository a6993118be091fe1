"""One arrow array, one column: every type, every odd value."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.drift import grid
from airflow_mlops.drift.columns import Column, Kind
from airflow_mlops.drift.scan import scan


def values_of(column: Column) -> dict[float, int]:
    """Return value -> rows of an exactly kept column."""
    assert column.cells.level == grid.EXACT
    low, _ = grid.bounds(column.cells.ids, column.cells.level)
    return dict(zip(low.tolist(), column.cells.counts.tolist(), strict=True))


@pytest.mark.parametrize(
    ("array", "kind", "expected"),
    [
        (pa.array([1, 2, 2], pa.int8()), Kind.NUMERIC, {1.0: 1, 2.0: 2}),
        (pa.array([-128, 127], pa.int8()), Kind.NUMERIC, {-128.0: 1, 127.0: 1}),
        (pa.array([2**63 - 1, -(2**63)], pa.int64()), Kind.NUMERIC, {-(2.0**63): 1, 2.0**63: 1}),
        (pa.array([2**64 - 1, 0], pa.uint64()), Kind.NUMERIC, {0.0: 1, 2.0**64: 1}),
        (pa.array([0.5, -0.0, 0.0], pa.float32()), Kind.NUMERIC, {0.0: 2, 0.5: 1}),
        (pa.array(np.array([1.5, 2.5], np.float16)), Kind.NUMERIC, {1.5: 1, 2.5: 1}),
        (pa.array([Decimal("1.25"), None, Decimal("-3.50")]), Kind.NUMERIC, {-3.5: 1, 1.25: 1}),
        (pa.array([dt.date(1970, 1, 3)]), Kind.TIME, {172800.0: 1}),
        (pa.array([dt.datetime(1970, 1, 1, 0, 1, tzinfo=dt.UTC)], pa.timestamp("ns", "UTC")), Kind.TIME, {60.0: 1}),
        (pa.array([1500], pa.timestamp("ms")), Kind.TIME, {1.5: 1}),
        (pa.array([dt.time(0, 0, 1)], pa.time32("s")), Kind.NUMERIC, {1.0: 1}),
        (pa.array([7], pa.duration("us")), Kind.NUMERIC, {7.0: 1}),
        (pa.chunked_array([[1.0], [], [2.0, 1.0]]), Kind.NUMERIC, {1.0: 2, 2.0: 1}),
        (pa.array([9.0, 1.0, None, 1.0, 9.0])[1:4], Kind.NUMERIC, {1.0: 2}),
    ],
    ids=lambda value: str(value.type) if hasattr(value, "type") else None,
)
def test_numbers_and_times_of_every_type(array: Any, kind: Kind, expected: dict[float, int]) -> None:
    """Every type of number or time is counted by value, without overflow; times in seconds since 1970."""
    column = scan(array)
    assert (column.kind, values_of(column)) == (kind, expected)
    assert column.rows == len(array)
    assert (column.low, column.high) == (min(expected), max(expected))


@pytest.mark.parametrize(
    ("array", "kind", "expected"),
    [
        (pa.array(["a", "b", "a", None, ""]), Kind.CATEGORICAL, {"a": 2, "b": 1, "": 1}),
        (pa.array(["a", "b", "a"], pa.large_string()), Kind.CATEGORICAL, {"a": 2, "b": 1}),
        (pa.array(["a", None, "a"]).dictionary_encode(), Kind.CATEGORICAL, {"a": 2}),
        (pa.array([True, None, False, True]), Kind.BOOLEAN, {"true": 2, "false": 1}),
        (pa.chunked_array([["x"], ["y", "x"]]).dictionary_encode(), Kind.CATEGORICAL, {"x": 2, "y": 1}),
    ],
    ids=["string", "large_string", "dictionary", "bool", "chunks"],
)
def test_categories_of_every_type(array: Any, kind: Kind, expected: dict[str, int]) -> None:
    """Text, dictionaries and booleans are counted by category; the empty text is one, null is not."""
    column = scan(array)
    assert (column.kind, dict(column.keys.counts)) == (kind, expected)
    assert column.nulls == array.null_count


def test_codes_can_be_categories() -> None:
    """Numbers that are codes are counted as categories when asked for."""
    column = scan(pa.array([3, 4, 4, None]), categorical=True)
    assert (column.kind, dict(column.keys.counts), column.coded) == (Kind.CATEGORICAL, {"3": 1, "4": 2}, True)


def test_odd_numbers_are_counted_apart() -> None:
    """Null, not a number and both infinities count as missing, each by its own name, and spoil no sum."""
    column = scan(pa.array([1.0, None, float("nan"), float("inf"), float("-inf"), float("inf"), 2.0]))
    assert (column.nulls, column.nans, column.below, column.above) == (1, 1, 1, 2)
    assert (column.missing, column.present, column.mean) == (5, 2, 1.5)
    assert values_of(column) == {1.0: 1, 2.0: 1}


@pytest.mark.parametrize(
    "array",
    [pa.nulls(3), pa.array([None, None], pa.float64()), pa.array([], pa.float64()), pa.array([float("nan")] * 2)],
    ids=["null", "all null", "no rows", "all nan"],
)
def test_nothing_usable_is_no_error(array: Any) -> None:
    """A column without a usable value has no cells, no extremes and no mean."""
    column = scan(array)
    assert (column.rows, column.present, column.cells.total) == (len(array), 0, 0)
    assert (column.low, column.high, column.mean) == (None, None, None)


def test_nested_columns_are_counted_and_not_compared() -> None:
    """Lists and structs have rows and nulls, and no more."""
    column = scan(pa.array([[1], None, [2, 3]]))
    assert (column.kind, column.rows, column.nulls) == (Kind.OTHER, 3, 1)


def test_sums_beyond_the_largest_double() -> None:
    """The mean of huge values is right though their sum overflows."""
    assert scan(pa.array([1.6e308, 1.6e308, 1.6e308])).mean == pytest.approx(1.6e308)


def test_integers_sum_exactly() -> None:
    """Sums of integers are exact, also where doubles are not."""
    values = np.array([2**52 + 1, 2**52 + 2, 2**52 + 5] * 100_001)
    assert scan(pa.array(values)).total == Fraction(sum(values.tolist()))


@given(
    st.lists(st.one_of(st.none(), st.floats(allow_nan=True), st.sampled_from([1.0, 2.0])), max_size=30),
    st.integers(0, 30),
)
def test_parts_add_up_to_the_whole(values: list[float | None], cut: int) -> None:
    """Counts, extremes and cells of two parts add up to those of the whole, whatever is in them."""
    whole = scan(pa.array(values, pa.float64())).to_dict()
    parts = (scan(pa.array(values[:cut], pa.float64())) + scan(pa.array(values[cut:], pa.float64()))).to_dict()
    whole.pop("total", None), parts.pop("total", None)
    assert parts == whole


@given(st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)), max_size=30))
def test_a_column_comes_back_from_json(values: list[int | None]) -> None:
    """A column written and read again is the same."""
    column = scan(pa.array(values, pa.int64()))
    assert Column.from_dict(column.to_dict()) == column


def test_numbers_and_booleans_can_be_joined_and_words_cannot() -> None:
    """A boolean part joins numbers as 0 and 1; a part of words is refused by both types."""
    joined = scan(pa.array([True, False, True])) + scan(pa.array([1, 5]))
    assert values_of(joined) == {0.0: 1, 1.0: 3, 5.0: 1}
    with pytest.raises(InvalidSpecError, match=r"numeric values \(int64\).*categorical values \(string\)"):
        scan(pa.array([1])) + scan(pa.array(["a"]))
