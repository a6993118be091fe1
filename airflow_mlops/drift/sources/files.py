"""Parquet and CSV files, one or a folder of them. Reads a row group at a time and a column at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa  # noqa: TID253 - a leaf that computes; operators import it when they run
import pyarrow.csv as pcsv  # noqa: TID253
import pyarrow.parquet as pq  # noqa: TID253

from airflow_mlops.core.errors import InvalidSpecError, NotFoundError
from airflow_mlops.drift.sources.piece import Piece, Selection
from airflow_mlops.drift.sources.window import Window, masked

_SUFFIXES = (".parquet", ".csv", ".csv.gz")


class FileSource:
    """One file, or all parquet and CSV files below a folder in the order of their paths.

    Hidden files and files that are being written (``.tmp``) are passed over.

    :param path: file or folder
    :param window: only rows of that time, by the column *time_column*
    :param prefix: only columns that start with it, without it
    :raises NotFoundError: there is nothing of that kind
    """

    def __init__(self, path: Path, *, window: Window | None = None, time_column: str = "", prefix: str = "") -> None:
        self.window, self.time_column, self.prefix = window or Window(), time_column, prefix
        if not self.window.open and not time_column:
            raise InvalidSpecError(f"A window of {str(path)!r} needs the name of its time column. Give time_column.")
        self.paths = _found(path)
        self.warnings: list[str] = []

    def pieces(self, selection: Selection) -> Iterator[Piece]:
        """Yield one piece for each row group of a parquet file and each block of a CSV file."""
        for path in self.paths:
            for piece in _parquet(path) if path.suffix == ".parquet" else _csv(path):
                yield self._chosen(piece, selection)

    def _chosen(self, piece: Piece, selection: Selection) -> Piece:
        found = piece
        if not self.window.open:
            Selection(columns=(self.time_column,)).of(list(piece.names))
            found = masked(piece, self.window.mask(piece.read(self.time_column)))
        names = [name.removeprefix(self.prefix) for name in found.names if name.startswith(self.prefix)]
        return Piece(found.rows, selection.of(names), lambda name: found.read(self.prefix + name))


def _found(path: Path) -> list[Path]:
    if path.is_file():
        if not path.name.endswith(_SUFFIXES):
            raise InvalidSpecError(f"{str(path)!r} is none of {', '.join(_SUFFIXES)}. Convert it to parquet.")
        return [path]
    files = sorted(p for p in path.rglob("*") if p.name.endswith(_SUFFIXES) and not p.name.startswith("."))
    if not files:
        what = "no such file or folder" if not path.exists() else "the folder holds no parquet or CSV file"
        raise NotFoundError(f"No data at {str(path)!r}: {what}. Give the path of the data on this worker.")
    return files


def _parquet(path: Path) -> Iterator[Piece]:
    with open_parquet(path) as file:
        names = tuple(file.schema_arrow.names)
        for group in range(file.num_row_groups):
            yield Piece(file.metadata.row_group(group).num_rows, names, _reader(file, group))


def open_parquet(path: Path) -> Any:
    """Open a parquet file so that text comes as dictionaries, without decoding each row.

    :raises InvalidSpecError: it is no parquet file, or is damaged
    """
    try:
        schema = pq.read_schema(path)
        text = [f.name for f in schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
        return pq.ParquetFile(path, read_dictionary=text)
    except pa.ArrowException as error:
        raise InvalidSpecError(f"{str(path)!r} cannot be read as parquet: {error}. Write it again.") from error


def _reader(file: Any, group: int) -> Any:
    return lambda name: file.read_row_group(group, columns=[name], use_threads=False).column(0)


def _csv(path: Path) -> Iterator[Piece]:
    try:
        with pcsv.open_csv(path, convert_options=pcsv.ConvertOptions(strings_can_be_null=True)) as reader:
            names = tuple(reader.schema.names)
            for batch in reader:
                yield Piece(batch.num_rows, names, batch.column)
    except pa.ArrowException as error:
        raise InvalidSpecError(
            f"{str(path)!r} cannot be read as CSV: {error}. Types are taken from its first block; "
            "convert it to parquet where a later one differs."
        ) from error
