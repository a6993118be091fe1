"""A lock that processes on one machine (or on one file system with POSIX locks) share.

The kernel drops it when its holder dies, so a crash never leaves it behind. It must never be held over a wait for
anything that needs the same lock.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold the lock called *path* inside the block; wait until it is free. The file stays, empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
