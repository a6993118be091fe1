"""What a profile knows about one column. Values: built once, added, never changed.

Everything is a count or an exact sum, so adding the columns of two parts gives the column of the whole. It must never
keep a row of the data; of text columns it keeps names of categories, of numbers only cells, extremes and sums.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from fractions import Fraction
from typing import Any

import numpy as np  # noqa: TID253 - a leaf that computes; operators import it when they run

from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.drift import codec, grid, keys
from airflow_mlops.drift.grid import Cells
from airflow_mlops.drift.keys import KeyCounts


class Kind(StrEnum):
    """How a column is compared.

    TIME (dates, timestamps) is kept in seconds since 1970 and shown, but a clock that moves on is no drift. EMPTY has
    no typed value at all; OTHER (lists, structs, binary) is counted and not compared.
    """

    NUMERIC = "numeric"
    CATEGORICAL = "categorical"
    BOOLEAN = "boolean"
    TIME = "time"
    EMPTY = "empty"
    OTHER = "other"


@dataclass(frozen=True)
class Column:
    """Counts of one column.

    :param types: the physical types it was read with, for example ``double``
    :param rows: rows seen, missing ones included
    :param nulls: rows without a value
    :param nans: not-a-number values; they count as missing
    :param below: values of minus infinity; they count as missing
    :param above: values of plus infinity; they count as missing
    :param low: smallest finite value, ``None`` when there is none
    :param high: largest finite value, ``None`` when there is none
    :param total: exact sum of the finite values as each piece of the data summed them up
    :param cells: finite values by cell, for NUMERIC and TIME
    :param keys: values by category, for CATEGORICAL and BOOLEAN (``true`` and ``false``)
    """

    kind: Kind
    types: tuple[str, ...] = ()
    rows: int = 0
    nulls: int = 0
    nans: int = 0
    below: int = 0
    above: int = 0
    low: float | None = None
    high: float | None = None
    total: Fraction = Fraction(0)
    cells: Cells = field(default_factory=grid.empty)
    keys: KeyCounts = field(default_factory=KeyCounts)

    @property
    def missing(self) -> int:
        """Rows without a usable value: null, not a number or infinite."""
        return self.nulls + self.nans + self.below + self.above

    @property
    def present(self) -> int:
        """Rows with a usable value."""
        return self.rows - self.missing

    @property
    def mean(self) -> float | None:
        """Mean of the finite values."""
        return float(self.total / self.present) if self.present and self.cells.ids.size else None

    @property
    def coded(self) -> bool:
        """Whether its categories were numbers."""
        return self.kind is Kind.CATEGORICAL and not any("string" in name for name in self.types)

    @property
    def type(self) -> str:
        """The physical types in one word, for example ``int64|double``."""
        return "|".join(self.types)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; :meth:`from_dict` reads them."""
        out: dict[str, Any] = {name: getattr(self, name) for name in _PLAIN}
        out |= {"kind": self.kind.value, "types": list(self.types)}
        if self.cells.ids.size:
            out |= {"total": codec.pack_exact(self.total), "level": self.cells.level}
            out |= {"cells": codec.pack(self.cells.ids, rising=True), "counts": codec.pack(self.cells.counts)}
        if self.keys.counts or self.keys.level:
            out |= {"keys": dict(self.keys.counts), "key_level": self.keys.level}
            out |= {"buckets": codec.pack(np.array(self.keys.buckets, np.int64))}
        return out

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Column:
        """Read what :meth:`to_dict` wrote.

        :raises InvalidSpecError: a field is missing or broken
        """
        try:
            column = cls(Kind(value["kind"]), tuple(value["types"]), **{name: value[name] for name in _PLAIN})
            if "cells" in value:
                ids, counts = codec.unpack(value["cells"], rising=True), codec.unpack(value["counts"])
                column = replace(column, total=Fraction(value["total"]), cells=Cells(value["level"], ids, counts))
            if "keys" in value:
                buckets = tuple(codec.unpack(value["buckets"]).tolist())
                column = replace(column, keys=KeyCounts(value["key_level"], dict(value["keys"]), buckets))
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidSpecError(f"A drift profile holds a broken column: {error!r}. Build it again.") from error
        return column

    def __add__(self, other: Column) -> Column:
        """Return the column of both parts.

        :raises InvalidSpecError: one part holds numbers and the other categories
        """
        a, b = _same_kind(self, other)
        return Column(
            kind=a.kind if b.kind is Kind.EMPTY else b.kind,
            types=tuple(sorted({*a.types, *b.types})),
            low=_pick(min, a.low, b.low),
            high=_pick(max, a.high, b.high),
            total=a.total + b.total,
            cells=grid.add(a.cells, b.cells),
            keys=keys.add(a.keys, b.keys),
            **{name: getattr(a, name) + getattr(b, name) for name in _COUNTS},
        )

    def as_numbers(self) -> Column:
        """Return a boolean column as the numbers 0 and 1; any other column as it is."""
        if self.kind is not Kind.BOOLEAN:
            return self
        found = {float(key == "true"): rows for key, rows in sorted(self.keys.counts.items())}
        values = np.array(list(found), np.float64)
        cells = grid.count_known(values, np.array(list(found.values()), np.int64))
        numbers = replace(self, kind=Kind.NUMERIC, cells=cells, keys=KeyCounts())
        total = Fraction(self.keys.counts.get("true", 0))
        return replace(numbers, total=total, low=min(found, default=None), high=max(found, default=None))


_COUNTS = ("rows", "nulls", "nans", "below", "above")
_PLAIN = (*_COUNTS, "low", "high")


def _same_kind(a: Column, b: Column) -> tuple[Column, Column]:
    if {a.kind, b.kind} == {Kind.BOOLEAN, Kind.NUMERIC}:
        return a.as_numbers(), b.as_numbers()
    if a.kind is b.kind or Kind.EMPTY in (a.kind, b.kind):
        return a, b
    raise InvalidSpecError(
        f"One part holds {a.kind.value} values ({a.type}) and another {b.kind.value} values ({b.type}): they cannot be "
        "one column. Give both parts the same type, or exclude the column."
    )


def _pick(choose: Callable[[float, float], float], a: float | None, b: float | None) -> float | None:
    return choose(a, b) if a is not None and b is not None else b if a is None else a
