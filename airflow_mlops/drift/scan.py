"""One arrow array in, one profile column out. The hot loop of the room.

It reads each value a few times while it is in the cache and never sorts, copies to Python or touches pandas.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np  # noqa: TID253 - a leaf that computes; operators import it when they run
import pyarrow as pa  # noqa: TID253
import pyarrow.compute as pc  # noqa: TID253

from airflow_mlops.drift import grid, keys
from airflow_mlops.drift.arrow import to_numpy
from airflow_mlops.drift.columns import Column, Kind
from airflow_mlops.drift.grid import EXACT, Cells, Floats

_DENSE_INTEGERS = 1 << 16
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def kind_of(type_: Any) -> Kind:
    """Return how values of an arrow type are compared."""
    tests = (
        (pa.types.is_boolean, Kind.BOOLEAN),
        (pa.types.is_null, Kind.EMPTY),
        (lambda t: pa.types.is_timestamp(t) or pa.types.is_date(t), Kind.TIME),
        (lambda t: pa.types.is_primitive(t) or pa.types.is_decimal(t), Kind.NUMERIC),
        (_is_text, Kind.CATEGORICAL),
    )
    return next((kind for test, kind in tests if test(type_)), Kind.OTHER)


def scan(array: Any, *, at_most: int = EXACT, categorical: bool = False) -> Column:
    """Return the profile column of one arrow array or chunked array.

    :param at_most: level of the column so far: a finer one would be thrown away
    :param categorical: treat numbers as categories
    """
    kind = Kind.CATEGORICAL if categorical else kind_of(array.type)
    column = Column(kind, (str(_value_type(array.type)),), rows=len(array), nulls=array.null_count)
    if kind in (Kind.CATEGORICAL, Kind.BOOLEAN):
        return _with_keys(column, array)
    if kind in (Kind.NUMERIC, Kind.TIME) and column.present:
        return _with_numbers(column, array, at_most)
    return column


def _is_text(type_: Any) -> bool:
    value = _value_type(type_)
    return bool(pa.types.is_string(value) or pa.types.is_large_string(value) or pa.types.is_string_view(value))


def _value_type(type_: Any) -> Any:
    return type_.value_type if pa.types.is_dictionary(type_) else type_


def _with_numbers(column: Column, array: Any, at_most: int) -> Column:
    values = _numpy(array.drop_null() if column.nulls else array)
    if values.dtype.kind in "iu":
        found = _with_integers(column, values)
        if found is not None:
            return found
    return _with_floats(column, values.astype(np.float64, copy=False), at_most)


def _with_integers(column: Column, values: Any) -> Column | None:
    """Count integers that lie close together one by one; ``None`` when they do not."""
    low, high = int(values.min()), int(values.max())
    if high - low > max(_DENSE_INTEGERS, values.size) or max(abs(low), abs(high)) >= 1 << 53:
        return None
    table = np.bincount(values.astype(np.int64, copy=False) - low)
    offsets = np.flatnonzero(table)
    cells = grid.count_known((offsets + low).astype(np.float64), table[offsets])
    total = int((table[offsets] * offsets).sum()) + low * values.size
    return _filled(column, float(low), float(high), Fraction(total), cells)


def _with_floats(column: Column, values: Floats, at_most: int) -> Column:
    with np.errstate(over="ignore", invalid="ignore"):
        total = float(values.sum())
    if not np.isfinite(total):
        column, values = _without_odd(column, values)
        if not values.size:
            return column
    cells = grid.count(values, at_most=at_most)
    return _filled(column, float(values.min()), float(values.max()), _exact_sum(values, total), cells)


def _without_odd(column: Column, values: Floats) -> tuple[Column, Floats]:
    """Count what is not finite and leave it out."""
    odd = values[~np.isfinite(values)]
    nans, above = int(np.isnan(odd).sum()), int((odd > 0).sum())
    found = replace(column, nans=nans, above=above, below=odd.size - nans - above)
    return found, values[np.isfinite(values)]


def _exact_sum(values: Floats, total: float) -> Fraction:
    """Return the sum as numpy rounds it for this piece, also where it is beyond the largest double."""
    if not np.isfinite(total):
        with np.errstate(over="ignore"):
            total = float(values.sum())
    if np.isfinite(total):
        return Fraction(total)
    return Fraction(float((values * 2.0**-64).sum())) * 2**64


def _filled(column: Column, low: float, high: float, total: Fraction, cells: Cells) -> Column:
    return replace(column, low=low + 0.0, high=high + 0.0, total=total, cells=cells)


def _numpy(array: Any) -> Any:
    """Return the values as integers or doubles: times as seconds since 1970, decimals rounded to double."""
    type_ = array.type
    if pa.types.is_date(type_):
        array, type_ = array.cast(pa.timestamp("s")), pa.timestamp("s")
    if pa.types.is_timestamp(type_):
        return to_numpy(array.cast(pa.int64())) / _PER_SECOND[type_.unit]
    if pa.types.is_time(type_) or pa.types.is_duration(type_):
        return to_numpy(array.cast(pa.int32() if pa.types.is_time32(type_) else pa.int64()))
    return to_numpy(array.cast(pa.float64()) if pa.types.is_decimal(type_) else array)


def _with_keys(column: Column, array: Any) -> Column:
    names: list[str] = []
    counts: list[int] = []
    for chunk in array.chunks if isinstance(array, pa.ChunkedArray) else [array]:
        found, rows = _chunk_keys(chunk)
        names += found
        counts += rows
    return replace(column, keys=keys.tally(names, counts))


def _chunk_keys(chunk: Any) -> tuple[list[str], list[int]]:
    if pa.types.is_dictionary(chunk.type):
        rows = np.bincount(to_numpy(chunk.indices.drop_null()), minlength=len(chunk.dictionary))
        used = np.flatnonzero(rows)
        names = _text(chunk.dictionary)
        return [names[i] for i in used.tolist()], rows[used].tolist()
    found = pc.value_counts(chunk.drop_null())
    return _text(found.field("values")), found.field("counts").to_pylist()


def _text(values: Any) -> list[str]:
    texts: list[str] = values.cast(pa.string()).to_pylist()
    return texts
