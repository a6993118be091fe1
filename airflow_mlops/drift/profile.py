"""The profile: all that has to be known about a data set to compare it later, in one small JSON file.

It is stored with the model version it was made for, so that every model carries its own reference and a later look
reads only the current window. Profiles add up: day by day is the same as the whole month at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import reduce
from pathlib import Path
from typing import Any, Self

from airflow_mlops.core.errors import InvalidSpecError, NotFoundError
from airflow_mlops.drift.columns import Column
from airflow_mlops.drift.grid import EXACT
from airflow_mlops.drift.scan import scan
from airflow_mlops.drift.sources.piece import Selection, Source

SCHEMA = 1
"""Version of the JSON. A reader refuses a later one."""

PREDICTION = "prediction"
"""Name of the column that holds the model's own answers."""


@dataclass(frozen=True)
class DriftProfile:
    """A data set as counts.

    :param rows: rows of the data
    :param columns: name -> counts, in the order of the data
    :param created_at: when it was made, ISO 8601 in UTC; of a merged profile the latest
    :param data: the data versions it came from, as plain dicts
    :param target: column that only labelled data has; empty when none was named
    """

    rows: int
    columns: Mapping[str, Column]
    created_at: str = ""
    data: tuple[Mapping[str, Any], ...] = ()
    target: str = ""
    warnings: tuple[str, ...] = field(default=(), compare=False)

    def to_json(self) -> str:
        """Return the profile as JSON text."""
        columns = {name: column.to_dict() for name, column in self.columns.items()}
        plain = {"schema": SCHEMA, "rows": self.rows, "created_at": self.created_at, "data": list(self.data)}
        return json.dumps(plain | {"target": self.target, "columns": columns})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read :meth:`to_json`.

        :raises InvalidSpecError: it is no profile, or one of a later version
        """
        try:
            value = json.loads(text)
            if value["schema"] != SCHEMA:
                raise InvalidSpecError(
                    f"The drift profile has schema {value['schema']!r}, this reads {SCHEMA}. Upgrade."
                )
            columns = {name: Column.from_dict(column) for name, column in value["columns"].items()}
            return cls(value["rows"], columns, value["created_at"], tuple(value["data"]), value["target"])
        except InvalidSpecError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidSpecError(f"This is not a drift profile: {error!r}. ProfileDataOperator makes one.") from error

    def write(self, path: Path) -> Path:
        """Write the JSON to *path*, at once and complete, and return it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.tmp")
        partial.write_text(self.to_json(), encoding="utf-8")
        return partial.replace(path)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a profile file.

        :raises NotFoundError: there is no such file
        """
        if not path.is_file():
            raise NotFoundError(
                f"There is no drift profile at {str(path)!r}. Run ProfileDataOperator with that output_path first."
            )
        return cls.from_json(path.read_text(encoding="utf-8"))


def build(
    source: Source,
    selection: Selection | None = None,
    *,
    data: Mapping[str, Any] | None = None,
    target: str = "",
    now: datetime | None = None,
) -> DriftProfile:
    """Read *source* once, one column of one piece at a time, and return its profile.

    Memory is that of one column of one piece (a parquet row group), whatever the number of rows.

    :raises NotFoundError: a column that was asked for does not exist, or nothing can be read
    """
    chosen = selection or Selection()
    columns: dict[str, Column] = {}
    rows = 0
    for piece in source.pieces(chosen):
        rows += piece.rows
        for name in piece.names:
            known = columns.get(name)
            at_most = known.cells.level if known else EXACT
            found = scan(piece.read(name), at_most=at_most, categorical=name in chosen.categorical)
            columns[name] = _added(name, known, found)
    created = (now or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds")
    return DriftProfile(rows, columns, created, (dict(data),) if data else (), target, tuple(source.warnings))


def merge(first: DriftProfile, *others: DriftProfile) -> DriftProfile:
    """Return the profile of all the data: the same counts as one pass over everything would give.

    :raises InvalidSpecError: a column holds numbers in one profile and categories in another
    """
    return reduce(_merge, others, first)


def with_column(profile: DriftProfile, name: str, column: Column) -> DriftProfile:
    """Return *profile* with one more column, for example predictions that were kept in a file of their own."""
    return replace(profile, columns={**profile.columns, name: column})


def _merge(a: DriftProfile, b: DriftProfile) -> DriftProfile:
    columns = dict(a.columns)
    for name, column in b.columns.items():
        columns[name] = _added(name, columns.get(name), column)
    return DriftProfile(
        a.rows + b.rows,
        columns,
        max(a.created_at, b.created_at),
        _distinct([*a.data, *b.data]),
        a.target or b.target,
        (*a.warnings, *b.warnings),
    )


def _added(name: str, known: Column | None, found: Column) -> Column:
    try:
        return known + found if known else found
    except InvalidSpecError as error:
        raise InvalidSpecError(f"Column {name!r}: {error}") from error


def _distinct(versions: Iterable[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    kept: list[Mapping[str, Any]] = []
    for version in versions:
        if version not in kept:
            kept.append(version)
    return tuple(kept)
