"""Run a suite as one pass of SQL over the files, without loading them into memory.

What SQL cannot say in exactly the same way goes to Great Expectations, so that both engines always agree. It must
never answer for a check it did not compute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from airflow_mlops.core.extras import extra
from airflow_mlops.validation import rules
from airflow_mlops.validation.engines import sql_checks
from airflow_mlops.validation.engines.great_expectations import refuse_unknown, run_checks
from airflow_mlops.validation.engines.sql_checks import Compiled, RowCheck, SchemaCheck, TableCheck, compile_check
from airflow_mlops.validation.engines.suite_validator import SuiteValidator
from airflow_mlops.validation.reading import EXTRA, columns_of, data_files, read_frame
from airflow_mlops.validation.rules import Outcome
from airflow_mlops.validation.suite import Check, Suite, read_suite

_SIGNED = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER")


class SqlValidator(SuiteValidator):
    """A :class:`~airflow_mlops.validation.contract.Validator` on DuckDB."""

    name = "sql"

    def _run(self, data: Path, suite: Mapping[str, Any]) -> tuple[Suite, list[Outcome], int]:
        read = read_suite(suite)
        _refuse_unknown(read.checks)
        files = data_files(data)
        columns = columns_of(files)
        with _Table(files) as table:
            found = {n: rules.missing_column(check, columns) for n, check in enumerate(read.checks)}
            outcomes = {n: outcome for n, outcome in found.items() if outcome is not None}
            compiled = {
                n: made
                for n, check in enumerate(read.checks)
                if n not in outcomes and (made := compile_check(check, table.kinds)) is not None
            }
            rows, computed = table.run(compiled)
        outcomes |= computed
        left = {n: check for n, check in enumerate(read.checks) if n not in outcomes}
        if left:
            outcomes |= dict(zip(left, run_checks(read_frame(files), list(left.values())), strict=True))
        return read, [outcomes[n] for n in range(len(read.checks))], rows


def _refuse_unknown(checks: Sequence[Check]) -> None:
    """Refuse checks and arguments that do not exist; ask Great Expectations only about those not known here."""
    unsure = [check for check in checks if not sql_checks.takes(check.type, check.kwargs)]
    if unsure:
        refuse_unknown(unsure)


class _Table:
    """The rows of files as a table called ``rows``, with a number from 0 and NaN as missing."""

    def __init__(self, files: list[Path]) -> None:
        with extra(EXTRA):
            import duckdb
        self._errors: type[Exception] = duckdb.Error
        quiet = {"autoinstall_known_extensions": False, "autoload_known_extensions": False}
        self._connection = duckdb.connect(":memory:", config=quiet)
        # Parquet statistics leave NaN out, and DuckDB 2.0 concludes from them that a column has none.
        self._connection.execute("SET disabled_optimizers = 'statistics_propagation'")
        self.kinds = self._load(files)

    def __enter__(self) -> _Table:
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()

    def run(self, compiled: Mapping[int, Compiled]) -> tuple[int, dict[int, Outcome]]:
        """Return the number of rows and an outcome for every check that could be computed."""
        over_rows = {n: made for n, made in compiled.items() if isinstance(made, RowCheck)}
        over_table = {n: made for n, made in compiled.items() if isinstance(made, TableCheck)}
        outcomes = {n: Outcome(made.success) for n, made in compiled.items() if isinstance(made, SchemaCheck)}
        try:
            total, counts, values = self._pass(over_rows, over_table)
            outcomes |= {n: self._row_outcome(made, *counts[n]) for n, made in over_rows.items()}
        except self._errors:
            return self._count(), outcomes
        known = {n: made for n, made in over_table.items() if values[n] is not None}
        return total, outcomes | {n: Outcome(made.holds(values[n])) for n, made in known.items()}

    def _pass(
        self, over_rows: Mapping[int, RowCheck], over_table: Mapping[int, TableCheck]
    ) -> tuple[int, dict[int, tuple[int, int]], dict[int, Any]]:
        """Compute all checks in one query: rows in all, considered and broken rows by check, values by check."""
        flags = [f"({made.considered}) AS __c{n}, ({made.broken}) AS __b{n}" for n, made in over_rows.items()]
        counts = [f"count(*) FILTER (WHERE __c{n}), count(*) FILTER (WHERE __b{n})" for n in over_rows]
        values = [made.value for made in over_table.values()]
        inner = f"SELECT {', '.join(['*', *flags])} FROM rows"  # noqa: S608 - names and literals are quoted
        found = self._one(f"SELECT {', '.join(['count(*)', *counts, *values])} FROM ({inner})")  # noqa: S608 - quoted
        pairs = found[1 : 1 + 2 * len(over_rows)]
        by_row = {n: (pairs[2 * i], pairs[2 * i + 1]) for i, n in enumerate(over_rows)}
        return found[0], by_row, dict(zip(over_table, found[1 + len(pairs) :], strict=True))

    def _row_outcome(self, made: RowCheck, considered: int, broken: int) -> Outcome:
        if rules.mostly_holds(considered, broken, made.mostly):
            return Outcome(True, broken, considered)
        inner = f"SELECT __row, ({made.broken}) AS __broken FROM rows"  # noqa: S608 - names and literals are quoted
        query = f"SELECT __row FROM ({inner}) WHERE __broken ORDER BY __row"  # noqa: S608 - as above
        numbers = self._connection.execute(query).fetchnumpy()["__row"]
        return Outcome(False, broken, considered, numbers)

    def _load(self, files: list[Path]) -> dict[str, str]:
        """Make the view ``rows`` and return the kind of each column."""
        if files[0].suffix == ".parquet":
            listed = ", ".join(sql_checks.literal(str(path)) for path in files)
            source = f"read_parquet([{listed}])"
        else:
            self._connection.register("frame", _arrow(read_frame(files)))
            source = "frame"
        types = dict(row[:2] for row in self._connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall())  # noqa: S608
        columns = ", ".join(_clean(column, kind) for column, kind in types.items())
        query = f"SELECT {columns}, row_number() OVER () - 1 AS __row FROM {source}"  # noqa: S608 - quoted
        self._connection.execute(f"CREATE TEMP VIEW rows AS {query}")
        return {column: _kind(kind) for column, kind in types.items()}

    def _count(self) -> int:
        return int(self._one("SELECT count(*) FROM rows")[0])

    def _one(self, query: str) -> tuple[Any, ...]:
        found: tuple[Any, ...] | None = self._connection.execute(query).fetchone()
        assert found is not None, "an aggregate has one row"  # noqa: S101 - for the type checker
        return found


def _clean(column: str, kind: str) -> str:
    name = sql_checks.name(column)
    if kind in ("DOUBLE", "FLOAT"):
        return f"CASE WHEN isnan({name}) THEN NULL ELSE CAST({name} AS DOUBLE) END AS {name}"
    return name


def _kind(kind: str) -> str:
    if kind in _SIGNED or kind in ("DOUBLE", "FLOAT"):
        return sql_checks.NUMBER
    return sql_checks.TEXT if kind == "VARCHAR" else sql_checks.OTHER


def _arrow(frame: Any) -> Any:
    import pyarrow as pa

    return pa.Table.from_pandas(frame, preserve_index=False)
