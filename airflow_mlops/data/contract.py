"""What every data store promises."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

from airflow_mlops.core.refs import DataVersion


@runtime_checkable
class DataStore(Protocol):
    """A place that keeps immutable versions of data sets. Every verb may be called twice."""

    def resolve(self, path: str, rev: str) -> DataVersion:
        """Name the version that *rev* means now, without downloading any data.

        :raises NotFoundError: the revision or the path does not exist; the message lists close names
        :raises PlatformUnavailableError: the repository did not answer
        """
        ...

    def materialise(self, version: DataVersion, to: Path) -> Path:
        """Put the version's bytes at *to* and return it. On return every file is there and its digest was checked.

        *to* appears at once and complete, or not at all. Bytes already there with the same digest are kept.

        :raises IntegrityError: objects are missing from the remote or differ from their digest
        """
        ...

    def snapshot(self, source: Path, path: str, *, message: str, tag: str | None = None) -> DataVersion:
        """Keep the bytes at *source* as a new version of *path*. On return the version can be read by everyone.

        The data is pushed before the pointer. The same bytes under the same tag are the same version (a retry).

        :raises ConflictError: the tag names other bytes, or somebody else changed the same path meanwhile
        """
        ...
