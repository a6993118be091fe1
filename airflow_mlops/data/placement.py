"""Put files where a task wants them: checked first, and all at once.

Nothing that exists is ever overwritten or removed: the folder may be somebody's work.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from airflow_mlops.core.digests import file_digest
from airflow_mlops.core.errors import IntegrityError, InvalidSpecError

Listing = Mapping[str, str]
"""Relative path with ``/`` -> md5 in hex. A single file has the one path ``""``."""


def safe_listing(entries: Mapping[str, str], what: str) -> Listing:
    """Return *entries* when no path leads out of the folder.

    :raises IntegrityError: one does
    """
    for name in entries:
        path = PurePosixPath(name)
        if not name or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
            raise IntegrityError(f"{what} lists a file {name!r} outside of its folder. It must not be used.")
    return entries


def files_below(root: Path) -> dict[str, Path]:
    """Return relative path -> file for everything below *root*, or ``{"": root}`` for a file."""
    if not root.is_dir():
        return {"": root}
    return {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if not path.is_dir()}


def differences(root: Path, expected: Listing) -> list[str]:
    """Return the paths that are missing at *root*, are there but should not be, or have other bytes."""
    found = files_below(root)
    common = [name for name in expected if name in found]
    with ThreadPoolExecutor(min(8, (os.cpu_count() or 1) + 1)) as pool:
        actual = dict(zip(common, pool.map(lambda name: _md5(found[name]), common), strict=True))
    return sorted(name for name in {*expected, *found} if actual.get(name) != expected.get(name))


def _md5(path: Path) -> str:
    return file_digest(path, "md5").removeprefix("md5:") if path.is_file() else ""


def already_there(to: Path, expected: Listing) -> bool:
    """Return whether *to* holds exactly the expected bytes; an absent or empty place is free.

    :raises InvalidSpecError: it holds something else
    """
    if not to.exists() or (to.is_dir() and not any(to.iterdir())):
        return False
    wrong = differences(to, expected)
    if wrong:
        raise InvalidSpecError(
            f"{str(to)!r} holds other bytes, for example {wrong[0]!r}. Choose another place or remove it."
        )
    return True


@contextmanager
def appearing_at(to: Path) -> Iterator[Path]:
    """Give a private place beside *to*; what is there at the end of the block becomes *to*, unless it failed."""
    to.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{to.name}.", dir=to.parent))
    try:
        yield scratch / "content"
        (scratch / "content").rename(to)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
