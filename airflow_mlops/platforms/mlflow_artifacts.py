"""Files of runs and models, read and written through the MLflow server's own artifact proxy.

Workers need no access to the bucket behind the server. A path that the server names is never trusted: one that would
leave the folder it belongs to is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote, urlsplit

from airflow_mlops.core.digests import combined_digest
from airflow_mlops.core.errors import IntegrityError, InvalidSpecError, NotFoundError, redact
from airflow_mlops.platforms.mlflow_rest import MLflowRest

PROXY = "/api/2.0/mlflow-artifacts/artifacts"
MAX_FILES = 10_000


@dataclass(frozen=True)
class ArtifactFile:
    """One file: its path below the folder that was listed, and its size in bytes if the server knows it."""

    path: str
    size: int | None


class ArtifactProxy:
    """Lists, reads and writes what is below ``mlflow-artifacts:`` addresses."""

    def __init__(self, rest: MLflowRest) -> None:
        self._rest = rest

    def files(self, uri: str) -> tuple[ArtifactFile, ...]:
        """Return all files below *uri*, at most 10,000, sorted by path. An absent folder has none."""
        found: list[ArtifactFile] = []
        for file in self._walk(_root(uri), ""):
            found.append(file)
            if len(found) > MAX_FILES:
                raise InvalidSpecError(f"There are more than {MAX_FILES} files below {uri!r}. Pack them together.")
        return tuple(sorted(found, key=lambda file: file.path))

    def digest(self, uri: str) -> str:
        """Return what :func:`~airflow_mlops.core.digests.folder_digest` gives for the files, without keeping them."""
        return combined_digest((file.path, self._copy(uri, file, None)) for file in self.files(uri))

    def download(self, uri: str, to: Path) -> None:
        """Copy all files below *uri* into the folder *to*.

        :raises NotFoundError: there is no file
        :raises IntegrityError: a file has another size than the server says
        """
        files = self.files(uri)
        if not files:
            raise NotFoundError(f"MLflow at {self._rest.address} has no files below {uri!r}. Was the model deleted?")
        for file in files:
            target = to / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            self._copy(uri, file, target)

    def read(self, uri: str) -> bytes:
        """Return the bytes of the one small file at *uri*."""
        return self._rest.send("GET", _address(_root(uri)), repeat=True).content

    def write(self, uri: str, content: bytes) -> None:
        """Keep *content* as the file at *uri*, in place of what is there."""
        headers = {"Content-Type": "application/octet-stream"}
        self._rest.send("PUT", _address(_root(uri)), repeat=True, content=content, headers=headers)

    def _walk(self, root: str, below: str) -> Iterator[ArtifactFile]:
        folder = f"{root}/{below}".rstrip("/")
        for entry in self._rest.get(PROXY, path=folder).get("files", ()):
            path = f"{below}/{_safe(entry['path'])}".lstrip("/")
            if entry.get("is_dir"):
                yield from self._walk(root, path)
            else:
                size = entry.get("file_size")
                yield ArtifactFile(path, None if size is None else int(size))

    def _copy(self, uri: str, file: ArtifactFile, to: Path | None) -> str:
        """Read one file, keep it at *to* if given, and return its SHA-256 in hex."""
        digest, size = hashlib.sha256(), 0
        with self._rest.stream(_address(f"{_root(uri)}/{file.path}")) as pieces:
            sink = to.open("wb") if to else None
            try:
                for piece in pieces:
                    digest.update(piece)
                    size += len(piece)
                    if sink:
                        sink.write(piece)
            finally:
                if sink:
                    sink.close()
        if file.size is not None and size != file.size:
            raise IntegrityError(f"{file.path!r} below {uri!r} has {size} bytes, the server says {file.size}.")
        return digest.hexdigest()


def _root(uri: str) -> str:
    parts = urlsplit(uri)
    if parts.scheme != "mlflow-artifacts":
        raise InvalidSpecError(
            f"The artifacts at {redact(uri)!r} are not served by MLflow. Start the server with --serve-artifacts "
            "and --artifacts-destination, without --default-artifact-root."
        )
    return _safe(parts.path.strip("/"))


def _safe(path: str) -> str:
    found = PurePosixPath(path)
    if found.is_absolute() or ".." in found.parts or "\\" in path or "\0" in path:
        raise IntegrityError(f"The artifact path {path!r} leaves its folder. It is not used.")
    return str(found)


def _address(path: str) -> str:
    return f"{PROXY}/{quote(path)}"
