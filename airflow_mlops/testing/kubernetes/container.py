"""One container: the command as a process of this machine, its output kept line by line with the time.

When the command ends, everything it started in its process group ends with it, as in a container.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

Line = tuple[datetime.datetime, bytes]


class Container:
    """A running or ended command; *changed* is called when it has ended."""

    def __init__(self, command: list[str], env: dict[str, str], folder: Path, changed: Callable[[], None]) -> None:
        """Start the command.

        :raises OSError: there is no such program
        """
        self.lines: list[Line] = []
        self.exit_code: int | None = None
        self.reason = ""
        self.kill_at: float | None = None
        self._grown = threading.Condition()
        self._changed = changed
        self.process = subprocess.Popen(
            command,
            env=env,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        threading.Thread(target=self._wait, daemon=True).start()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the command and all it started; nothing happens if it has ended."""
        with self._grown:
            if self.exit_code is None:
                _signal_group(self.process.pid, number)

    def follow(self, *, is_followed: bool) -> Iterator[Line | None]:
        """Yield the lines so far and, if followed, those to come; None means that none came for a while."""
        at = 0
        while True:
            with self._grown:
                if at >= len(self.lines) and self.exit_code is None and is_followed:
                    self._grown.wait(0.5)
                new, is_over = self.lines[at:], self.exit_code is not None
            at += len(new)
            yield from new
            if not new and (is_over or not is_followed):
                return
            if not new:
                yield None

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._grown:
                self.lines.append((datetime.datetime.now(datetime.UTC), line))
                self._grown.notify_all()

    def _wait(self) -> None:
        code = self.process.wait()
        _signal_group(self.process.pid, signal.SIGKILL)
        self._reader.join(5)
        with self._grown:
            self.exit_code = 128 - code if code < 0 else code
            self._grown.notify_all()
        self._changed()


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
