"""The files behind a piece of data, and their rows in one fixed order.

Only parquet and CSV are read. Formats that run code when they are read, such as pickle, must stay refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow_mlops.core.errors import InvalidSpecError, NotFoundError
from airflow_mlops.core.extras import extra

EXTRA = "great-expectations"
_KINDS = (".parquet", ".csv")
_EXACT = 2**53


def data_files(data: Path) -> list[Path]:
    """Return the parquet or CSV files at *data*, sorted by path; hidden files and DVC's own are passed over.

    :raises NotFoundError: there is nothing
    :raises InvalidSpecError: it is of another kind, or of both kinds at once
    """
    if not data.exists():
        raise NotFoundError(f"There is no data at {str(data)!r}. Materialise it first.")
    found = [data] if data.is_file() else sorted(path for path in data.rglob("*") if path.is_file())
    files = [path for path in found if path == data or not _hidden(path.relative_to(data))]
    kinds = {path.suffix for path in files}
    if len(kinds) != 1 or not kinds <= set(_KINDS):
        raise InvalidSpecError(
            f"{str(data)!r} holds {', '.join(sorted(kinds)) or 'no'} files; all {' or all '.join(_KINDS)} is read. "
            "Name the file to check."
        )
    return files


def columns_of(files: list[Path]) -> list[str]:
    """Return the names of the columns, which all *files* must share.

    :raises InvalidSpecError: the files differ, one cannot be read, or two names differ in case alone: the engines
        take one for the other then
    """
    first = _columns(files[0])
    for path in files[1:]:
        if _columns(path) != first:
            raise InvalidSpecError(f"{path.name!r} has other columns than {files[0].name!r}. Write them alike.")
    _require_told_apart(first)
    return first


def read_frame(files: list[Path]) -> Any:
    """Return all rows as a pandas frame with row numbers from 0, numbers as 64 bits wide."""
    with extra(EXTRA):
        import pandas as pd
    read = _read_parquet if files[0].suffix == ".parquet" else pd.read_csv
    frames = [read(path) for path in files]
    return _widened(pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0].reset_index(drop=True))


def _require_told_apart(columns: list[str]) -> None:
    seen: dict[str, str] = {}
    for name in columns:
        other = seen.setdefault(name.lower(), name)
        if other is not name:
            raise InvalidSpecError(f"Columns {other!r} and {name!r} differ in case at most. Rename one of them.")


def _hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts) or path.suffix == ".dvc"


def _columns(path: Path) -> list[str]:
    with extra(EXTRA):
        import pandas as pd
        import pyarrow as pa
        import pyarrow.parquet as pq
    try:
        if path.suffix == ".csv":
            return list(pd.read_csv(path, nrows=0).columns)
        return list(pq.read_schema(path).names)
    except (pa.ArrowInvalid, pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise InvalidSpecError(f"{str(path)!r} cannot be read as {path.suffix[1:]}: {error}.") from error


def _read_parquet(path: Path) -> Any:
    """Read one file. Large integers beside nulls stay integers: as floats, two of them could become one."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.ParquetFile(path).read()
    frame = table.to_pandas(ignore_metadata=True)
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_signed_integer(column.type) and column.null_count:
            limits = pc.min_max(column).as_py()
            if limits["max"] is not None and max(abs(limits["min"]), limits["max"]) > _EXACT:
                frame[name] = pd.array(column.to_pylist(), dtype="Int64")
    return frame


def _widened(frame: Any) -> Any:
    wide = {"i": "int64", "f": "float64", "M": "datetime64[ns]"}
    for name in frame.columns:
        kind, dtype = getattr(frame[name].dtype, "kind", "O"), str(frame[name].dtype)
        if kind in wide and dtype.islower() and "," not in dtype and dtype != wide[kind]:
            frame[name] = frame[name].astype(wide[kind])
    return frame
