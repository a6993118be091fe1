"""From what a DAG author writes to a source: a path, the dict of an earlier task, or the traffic of an endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow_mlops.core.errors import InvalidSpecError, close_match
from airflow_mlops.drift.sources.files import FileSource
from airflow_mlops.drift.sources.gateway import GatewaySource
from airflow_mlops.drift.sources.piece import Source
from airflow_mlops.drift.sources.window import Window

_TRAFFIC = ("capture_dir", "endpoint", "revision")


def source_of(
    data: str | Mapping[str, Any],
    *,
    file: str | None = None,
    window: Window | None = None,
    time_column: str = "",
    prefix: str = "",
) -> Source:
    """Return the source of *data*.

    :param data: a path; a dict with ``path`` (or ``data``), such as the data and validation operators return; or
        ``{"capture_dir": ..., "endpoint": ..., "revision": ...}`` for traffic that the local gateway captured
    :param file: file or folder below the path
    :param window: only rows of that time
    :param time_column: column that tells the time, for files
    :param prefix: only columns that start with it, without it, for files
    :raises InvalidSpecError: *data* is none of these
    :raises NotFoundError: there is no data at the path
    """
    if isinstance(data, Mapping) and "capture_dir" in data:
        return _traffic(data, window)
    path = path_of(data, file)
    return FileSource(path, window=window, time_column=time_column, prefix=prefix)


def path_of(data: str | Mapping[str, Any], file: str | None = None) -> Path:
    """Return the path that *data* names.

    :raises InvalidSpecError: it names none
    """
    found = (data.get("path") or data.get("data")) if isinstance(data, Mapping) else data
    if not isinstance(found, str) or not found:
        raise InvalidSpecError(
            f"{data!r} names no data. Give a path, a dict with 'path', or one with 'capture_dir' and 'endpoint'."
        )
    return Path(found) / file if file else Path(found)


def version_of(data: str | Mapping[str, Any]) -> dict[str, Any]:
    """Return the data version that *data* carries, or only its path."""
    version = data.get("version") if isinstance(data, Mapping) else None
    return dict(version) if isinstance(version, Mapping) else {"path": str(path_of(data))}


def _traffic(data: Mapping[str, Any], window: Window | None) -> GatewaySource:
    for key in data:
        if key not in _TRAFFIC:
            raise InvalidSpecError(f"Captured traffic has no {key!r}: {close_match(key, _TRAFFIC)}Give {_TRAFFIC}.")
    if not data.get("endpoint"):
        raise InvalidSpecError(f"{dict(data)!r} names no endpoint. Add 'endpoint'.")
    folder = Path(str(data["capture_dir"]))
    return GatewaySource(folder, str(data["endpoint"]), revision=str(data.get("revision") or ""), window=window)
