"""Checks as SQL conditions, for those whose meaning in DuckDB is exactly that of Great Expectations. Pure.

What is not sure to mean the same is not compiled: a column of another kind, an argument not listed here, a pattern
whose dialect differs. Great Expectations runs those.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_mlops.validation.suite import Check

NUMBER, TEXT, OTHER = "number", "text", "other"
Kinds = Mapping[str, str]
"""Column name -> kind of its values."""

_PLAIN = r"(?:[A-Za-z0-9 _@/:,;=-]|\\[.+*?()\-/]|\[[A-Za-z0-9 _@/:.,;-]+\])"
_SAME_IN_BOTH = re.compile(rf"\^?(?:{_PLAIN}(?:[+*?]|\{{\d+(?:,\d+)?\}})?)+\$?")
_WHOLE = (int, float)


@dataclass(frozen=True)
class RowCheck:
    """Conditions over one row: which rows count, and which of them break the check."""

    considered: str
    broken: str
    mostly: float = 1.0


@dataclass(frozen=True)
class TableCheck:
    """One value over all rows, and the bounds it must keep."""

    value: str
    low: float | None
    high: float | None
    strict_low: bool = False
    strict_high: bool = False

    def holds(self, value: float) -> bool:
        """Return whether *value* is within the bounds."""
        above = self.low is None or (value > self.low if self.strict_low else value >= self.low)
        below = self.high is None or (value < self.high if self.strict_high else value <= self.high)
        return above and below


@dataclass(frozen=True)
class SchemaCheck:
    """A check that the column names alone decide."""

    success: bool


Compiled = RowCheck | TableCheck | SchemaCheck


def compile_check(check: Check, kinds: Kinds) -> Compiled | None:
    """Return *check* in SQL, or ``None`` when Great Expectations has to run it. All its columns exist."""
    if not takes(check.type, check.kwargs):
        return None
    return _MAKERS[check.type][0](check.kwargs, kinds)


def takes(check_type: str, arguments: Iterable[str]) -> bool:
    """Return whether the type is known here with all these arguments."""
    known = _MAKERS.get(check_type)
    return known is not None and set(arguments) <= {"column", *known[1]}


def name(column: str) -> str:
    """Quote the name of a column."""
    return '"' + column.replace('"', '""') + '"'


def literal(value: Any) -> str:
    """Quote a number or a text."""
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return f"CAST('{value!r}' AS DOUBLE)" if isinstance(value, float) else str(value)


def _row(kwargs: Mapping[str, Any], considered: str, broken: str) -> RowCheck | None:
    mostly = kwargs.get("mostly", 1.0)
    if isinstance(mostly, bool) or not isinstance(mostly, _WHOLE) or not 0 <= mostly <= 1:
        return None
    return RowCheck(considered, f"({considered}) AND ({broken})", float(mostly))


def _value(kwargs: Mapping[str, Any], broken: str) -> RowCheck | None:
    """Return a check of values, which passes over missing ones."""
    return _row(kwargs, f"{name(kwargs['column'])} IS NOT NULL", broken)


def _not_null(kwargs: Mapping[str, Any], _: Kinds) -> Compiled | None:
    return _row(kwargs, "TRUE", f"{name(kwargs['column'])} IS NULL")


def _null(kwargs: Mapping[str, Any], _: Kinds) -> Compiled | None:
    return _row(kwargs, "TRUE", f"{name(kwargs['column'])} IS NOT NULL")


def _between(kwargs: Mapping[str, Any], kinds: Kinds) -> Compiled | None:
    bounds = _bounds(kwargs)
    if bounds is None or kinds[kwargs["column"]] != NUMBER:
        return None
    return _value(kwargs, _outside(name(kwargs["column"]), *bounds))


def _lengths(kwargs: Mapping[str, Any], kinds: Kinds) -> Compiled | None:
    bounds = _bounds(kwargs)
    if bounds is None or kinds[kwargs["column"]] != TEXT:
        return None
    return _value(kwargs, _outside(f"length({name(kwargs['column'])})", *bounds))


def _length(kwargs: Mapping[str, Any], kinds: Kinds) -> Compiled | None:
    value = kwargs.get("value")
    if type(value) is not int or kinds[kwargs["column"]] != TEXT:
        return None
    return _value(kwargs, f"length({name(kwargs['column'])}) <> {value}")


def _in_set(kwargs: Mapping[str, Any], kinds: Kinds) -> Compiled | None:
    listed = _listed(kwargs, kinds)
    return _value(kwargs, f"{name(kwargs['column'])} NOT IN ({listed})") if listed else None


def _not_in_set(kwargs: Mapping[str, Any], kinds: Kinds) -> Compiled | None:
    listed = _listed(kwargs, kinds)
    return _value(kwargs, f"{name(kwargs['column'])} IN ({listed})") if listed else None


def _distinct_in_set(kwargs: Mapping[str, Any], kinds: Kinds) -> Compiled | None:
    listed, column = _listed(kwargs, kinds), name(kwargs["column"])
    return TableCheck(f"count(*) FILTER (WHERE {column} NOT IN ({listed}))", None, 0) if listed else None


def _matches(negated: bool) -> Callable[[Mapping[str, Any], Kinds], Compiled | None]:
    def make(kwargs: Mapping[str, Any], kinds: Kinds) -> Compiled | None:
        regex = kwargs.get("regex")
        if kinds[kwargs["column"]] != TEXT or not isinstance(regex, str) or not _SAME_IN_BOTH.fullmatch(regex):
            return None
        pattern = regex[:-1] + r"\n?\z" if regex.endswith("$") else regex  # Python's $ allows one line end
        found = f"regexp_matches({name(kwargs['column'])}, {literal(pattern)})"
        return _value(kwargs, found if negated else f"NOT {found}")

    return make


def _unique(kwargs: Mapping[str, Any], kinds: Kinds) -> Compiled | None:
    column = name(kwargs["column"])
    repeated = f"SELECT {column} FROM rows GROUP BY {column} HAVING count(*) > 1"  # noqa: S608 - the name is quoted
    return _value(kwargs, f"{column} IN ({repeated})") if kinds[kwargs["column"]] != OTHER else None


def _compound_unique(kwargs: Mapping[str, Any], kinds: Kinds) -> Compiled | None:
    columns = [str(column) for column in kwargs.get("column_list", ())]
    if len(columns) < 2 or OTHER in {kinds[column] for column in columns}:
        return None
    names = [name(column) for column in columns]
    some = " OR ".join(f"{column} IS NOT NULL" for column in names)
    return _row(kwargs, some, f"count(*) OVER (PARTITION BY {', '.join(names)}) > 1")


def _aggregate(template: str) -> Callable[[Mapping[str, Any], Kinds], Compiled | None]:
    def make(kwargs: Mapping[str, Any], kinds: Kinds) -> Compiled | None:
        bounds = _bounds(kwargs)
        if bounds is None or kinds[kwargs["column"]] != NUMBER:
            return None
        return TableCheck(template.format(name(kwargs["column"])), *bounds)

    return make


def _row_count(kwargs: Mapping[str, Any], _: Kinds) -> Compiled | None:
    bounds = _whole_bounds(kwargs)
    return TableCheck("count(*)", *bounds) if bounds else None


def _row_count_is(kwargs: Mapping[str, Any], _: Kinds) -> Compiled | None:
    value = kwargs.get("value")
    return TableCheck("count(*)", value, value) if type(value) is int else None


def _exists(kwargs: Mapping[str, Any], kinds: Kinds) -> Compiled | None:
    return SchemaCheck(kwargs.get("column") in kinds) if isinstance(kwargs.get("column"), str) else None


def _ordered_list(kwargs: Mapping[str, Any], kinds: Kinds) -> Compiled | None:
    listed = kwargs.get("column_list")
    return SchemaCheck(listed == list(kinds)) if isinstance(listed, list) else None


def _column_set(kwargs: Mapping[str, Any], kinds: Kinds) -> Compiled | None:
    listed, exact = kwargs.get("column_set"), kwargs.get("exact_match", True)
    if not isinstance(listed, list) or not isinstance(exact, bool):
        return None
    return SchemaCheck(set(listed) == set(kinds) if exact else set(listed) <= set(kinds))


def _bounds(kwargs: Mapping[str, Any]) -> tuple[float | None, float | None, bool, bool] | None:
    """Return low, high, strict low, strict high; ``None`` when they are not plain numbers in order."""
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    given = [bound for bound in (low, high) if bound is not None]
    if not given or not all(_plain_number(bound) for bound in given) or (len(given) == 2 and given[0] > given[1]):
        return None
    return low, high, bool(kwargs.get("strict_min")), bool(kwargs.get("strict_max"))


def _whole_bounds(kwargs: Mapping[str, Any]) -> tuple[float | None, float | None, bool, bool] | None:
    """Return bounds of a count; Great Expectations cuts a fraction off."""
    bounds = _bounds(kwargs)
    return bounds if bounds and all(isinstance(bound, int) for bound in bounds[:2] if bound is not None) else None


def _outside(value: str, low: float | None, high: float | None, strict_low: bool, strict_high: bool) -> str:
    sides = [] if low is None else [f"{value} {'<=' if strict_low else '<'} {literal(low)}"]
    sides += [] if high is None else [f"{value} {'>=' if strict_high else '>'} {literal(high)}"]
    return " OR ".join(sides)


def _listed(kwargs: Mapping[str, Any], kinds: Kinds) -> str | None:
    """Return the set as SQL when it is not empty and of the column's own kind."""
    values, kind = kwargs.get("value_set"), kinds[kwargs["column"]]
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        return None
    fits = all(isinstance(value, str) for value in values) if kind == TEXT else all(map(_plain_number, values))
    return ", ".join(map(literal, values)) if fits and kind != OTHER else None


def _plain_number(value: Any) -> bool:
    return isinstance(value, _WHOLE) and not isinstance(value, bool) and math.isfinite(value) and abs(value) < 2**53


_RANGE = ("min_value", "max_value", "strict_min", "strict_max")
_MAKERS: dict[str, tuple[Callable[[Mapping[str, Any], Kinds], Compiled | None], tuple[str, ...]]] = {
    "expect_column_to_exist": (_exists, ()),
    "expect_column_values_to_not_be_null": (_not_null, ("mostly",)),
    "expect_column_values_to_be_null": (_null, ("mostly",)),
    "expect_column_values_to_be_between": (_between, (*_RANGE, "mostly")),
    "expect_column_values_to_be_in_set": (_in_set, ("value_set", "mostly")),
    "expect_column_values_to_not_be_in_set": (_not_in_set, ("value_set", "mostly")),
    "expect_column_values_to_be_unique": (_unique, ("mostly",)),
    "expect_column_values_to_match_regex": (_matches(negated=False), ("regex", "mostly")),
    "expect_column_values_to_not_match_regex": (_matches(negated=True), ("regex", "mostly")),
    "expect_column_value_lengths_to_be_between": (_lengths, (*_RANGE, "mostly")),
    "expect_column_value_lengths_to_equal": (_length, ("value", "mostly")),
    "expect_compound_columns_to_be_unique": (_compound_unique, ("column_list", "mostly")),
    "expect_column_distinct_values_to_be_in_set": (_distinct_in_set, ("value_set",)),
    "expect_column_min_to_be_between": (_aggregate("min({})"), _RANGE),
    "expect_column_max_to_be_between": (_aggregate("max({})"), _RANGE),
    "expect_column_mean_to_be_between": (_aggregate("favg({})"), _RANGE),
    "expect_column_median_to_be_between": (_aggregate("median({})"), _RANGE),
    "expect_column_sum_to_be_between": (_aggregate("fsum({})"), _RANGE),
    "expect_column_stdev_to_be_between": (_aggregate("stddev_samp({})"), _RANGE),
    "expect_column_unique_value_count_to_be_between": (_aggregate("count(DISTINCT {})"), _RANGE),
    "expect_table_row_count_to_be_between": (_row_count, _RANGE),
    "expect_table_row_count_to_equal": (_row_count_is, ("value",)),
    "expect_table_columns_to_match_ordered_list": (_ordered_list, ("column_list",)),
    "expect_table_columns_to_match_set": (_column_set, ("column_set", "exact_match")),
}
COMPILED_TYPES = tuple(_MAKERS)
