"""Digests of files and folders: the same bytes under the same names give the same digest, on every machine.

A model's digest is taken when it is registered, and again by whoever loads it. Modes and times do not count.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from airflow_mlops.core.errors import IntegrityError


def combined_digest(files: Iterable[tuple[str, str]]) -> str:
    r"""Return ``sha256:<hex>`` over *files*, pairs of a relative path with ``/`` and the SHA-256 of its bytes in hex.

    It is the SHA-256 of ``<path>\0<hex>\n`` of every file, sorted by path. The order of *files* does not matter.

    :raises IntegrityError: there is no file, which is what a download that went wrong looks like
    """
    total = hashlib.sha256()
    ordered = sorted(files)
    if not ordered:
        raise IntegrityError("There is no file to take a digest of. Log the model again.")
    for path, hexdigest in ordered:
        total.update(f"{path}\0{hexdigest}\n".encode())
    return f"sha256:{total.hexdigest()}"


def folder_digest(folder: Path) -> str:
    """Return :func:`combined_digest` of all files below *folder*.

    :raises IntegrityError: the folder holds no file, or a symbolic link, whose target could change unseen
    """
    files = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise IntegrityError(f"{path} is a symbolic link. Put a copy of the file there instead.")
        if path.is_file():
            files.append((path.relative_to(folder).as_posix(), file_digest(path, "sha256").split(":")[1]))
    return combined_digest(files)


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """Return ``<algorithm>:<hex>`` of the bytes of one file; ``md5`` is what DVC names a file by."""
    with path.open("rb") as stream:
        return f"{algorithm}:{hashlib.file_digest(stream, algorithm).hexdigest()}"
