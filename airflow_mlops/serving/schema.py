"""Whether a table of input fits a model, decided before the model sees it. Pure, and never shows a value of the data.

A model's input schema is a list of named fields. The message of a refusal names the column and the row, so that a
client can repair its request without a look at the server's log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any

from airflow_mlops.core.errors import InvalidSpecError, close_match
from airflow_mlops.core.records import Record


@dataclass(frozen=True)
class Field(Record):
    """One input column. ``type`` is MLflow's word for it, or ``any`` when the model does not say."""

    name: str
    type: str = "any"
    required: bool = True


@dataclass(frozen=True)
class Schema(Record):
    """The input columns of a model in order. No field at all: the model takes whatever comes."""

    fields: tuple[Field, ...] = ()


@dataclass(frozen=True)
class Table:
    """Input by columns: ``columns[i][row]``. ``names`` is empty when the client sent rows without names."""

    names: tuple[str, ...]
    columns: tuple[list[Any], ...]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.columns[0]) if self.columns else 0


_NUMBER: frozenset[type] = frozenset({int, float, NoneType})
_ALLOWED: dict[str, frozenset[type]] = {
    "double": _NUMBER,
    "float": _NUMBER,
    "long": frozenset({int}),
    "integer": frozenset({int}),
    "boolean": frozenset({bool}),
    "string": frozenset({str, NoneType}),
    "datetime": frozenset({str, NoneType}),
    "binary": frozenset({str}),
}
"""MLflow's column types by what JSON gives for them; other types are the model's own business."""


def fit(table: Table, schema: Schema) -> Table:
    """Return *table* with the schema's columns in the schema's order; columns it does not know are left out.

    An optional column that is missing is filled with ``None``.

    :raises InvalidSpecError: there is no row, a required column is missing, or a value has the wrong type
    """
    if not table.rows:
        raise InvalidSpecError("The input has no rows. Send at least one.")
    if not schema.fields:
        return table if table.names else Table(_numbered(len(table.columns)), table.columns)
    found = _by_name(table, schema.fields)
    blank: list[Any] = [None] * table.rows
    columns = tuple(_typed(field, found.get(field.name, blank)) for field in schema.fields)
    return Table(tuple(field.name for field in schema.fields), columns)


def _numbered(width: int) -> tuple[str, ...]:
    return tuple(str(index) for index in range(width))


def _by_name(table: Table, fields: Sequence[Field]) -> dict[str, list[Any]]:
    if not table.names:
        if len(table.columns) != len(fields):
            wanted = ", ".join(field.name for field in fields)
            raise InvalidSpecError(f"A row has {len(table.columns)} values, the model takes {len(fields)}: {wanted}.")
        return {field.name: column for field, column in zip(fields, table.columns, strict=True)}
    found = dict(zip(table.names, table.columns, strict=True))
    missing = [field.name for field in fields if field.required and field.name not in found]
    if missing:
        listed = ", ".join(repr(name) for name in missing)
        hint = close_match(missing[0], [name for name in found if name not in {field.name for field in fields}])
        raise InvalidSpecError(f"The input lacks the column {listed}: {hint}Send every column of the model.")
    return found


def _typed(field: Field, values: list[Any]) -> list[Any]:
    allowed = _ALLOWED.get(field.type)
    if allowed is None:
        return values
    strange = set(map(type, values)) - allowed - (frozenset() if field.required else {NoneType})
    if not strange:
        return values
    if strange == {float} and field.type in ("long", "integer") and all(map(_is_whole, values)):
        return [value if value is None else int(value) for value in values]
    row = next(row for row, value in enumerate(values) if type(value) in strange and not _is_whole_float(value, field))
    raise InvalidSpecError(
        f"Column {field.name!r} must be {field.type}, row {row} has {_json_word(values[row])}. Send it as {field.type}."
    )


def _is_whole(value: Any) -> bool:
    return value is None or isinstance(value, int) or value.is_integer()


def _is_whole_float(value: Any, field: Field) -> bool:
    return field.type in ("long", "integer") and isinstance(value, float) and value.is_integer()


def _json_word(value: Any) -> str:
    words = {bool: "a boolean", str: "a string", NoneType: "null", list: "a list", dict: "an object"}
    return words.get(type(value), "a number with a fraction" if isinstance(value, float) else "a number")
