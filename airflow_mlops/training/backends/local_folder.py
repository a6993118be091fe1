"""What the folder of one local job says about it. It only reads; :mod:`local_runner` writes.

The folder's lock is held by the runner and by the job itself, so "the lock is free" proves that nothing of the job is
alive. A process id alone is never believed: ids are used again.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.training.backends import local_runner as runner
from airflow_mlops.training.contract import FailureReason, JobState, JobStatus
from airflow_mlops.training.output import Output

STATES = {
    "accepted": JobState.PENDING,  # written down, its runner has not begun
    "starting": JobState.PENDING,
    "running": JobState.RUNNING,
    "completed": JobState.SUCCEEDED,
    "failed": JobState.FAILED,  # an exit code above 0
    "killed": JobState.FAILED,  # ended by a signal that we did not send
    "not_started": JobState.FAILED,  # no such program or folder
    "timed_out": JobState.FAILED,
    "vanished": JobState.FAILED,  # runner and job were killed, so that nobody wrote down how it ended
    "cancelled": JobState.CANCELLED,
    "interrupted": JobState.PREEMPTED,  # the machine was shut down while it ran
    "rebooted": JobState.PREEMPTED,  # the machine started anew while it ran
}
"""The words of this backend and what they mean. Any other word is UNKNOWN."""

REASONS = {
    "failed": FailureReason.USER_CODE,
    "killed": FailureReason.USER_CODE,  # SIGKILL may mean that memory ran out, and need not
    "not_started": FailureReason.USER_CODE,
    "timed_out": FailureReason.TIMEOUT,
    "vanished": FailureReason.PLATFORM,
}
"""What kind of failure each word for a failed job is."""

TAIL_BYTES, TAIL_LINES = 4096, 20
CHUNK = 1 << 20


@dataclass(frozen=True)
class JobFolder:
    """The folder of one job."""

    path: Path

    def read(self, name: str) -> dict[str, Any] | None:
        """Return a JSON file of the folder, or ``None`` when it is absent."""
        try:
            return cast("dict[str, Any]", json.loads((self.path / name).read_text()))
        except FileNotFoundError:
            return None

    @property
    def job(self) -> dict[str, Any] | None:
        """What was submitted: name, digest, owner, host, spec, argv, cwd."""
        return self.read(runner.JOB)

    @property
    def owner(self) -> TaskIdentity:
        """The task that owns the job."""
        return TaskIdentity.from_dict((self.job or {})["owner"])

    def begun(self) -> bool:
        """Whether a runner has taken the job on, or it was cancelled before."""
        return any((self.path / name).exists() for name in (runner.STARTED, runner.EXIT))

    def word(self) -> str:
        """Return the native word for what the job is doing."""
        ended = self.read(runner.EXIT)
        if ended is None and not self.alive():
            ended = self.read(runner.EXIT) or {"word": self._word_without_end()}
        if ended is not None:
            return str(ended["word"])
        return "running" if "job" in (self.read(runner.STARTED) or {}) else "starting"

    def _word_without_end(self) -> str:
        started = self.read(runner.STARTED)
        if (self.path / runner.CANCEL).exists():
            return "cancelled"
        if started is None:
            return "accepted"
        if started["boot"] == runner.boot_id():
            return "vanished"
        return "rebooted" if started["host"] == socket.gethostname() else "elsewhere"

    def alive(self) -> bool:
        """Whether the runner or the job lives."""
        try:
            descriptor = os.open(self.path / runner.LOCK, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def status(self) -> JobStatus:
        """Return the job's state with the reason for a bad end."""
        word = self.word()
        state = STATES.get(word, JobState.UNKNOWN)
        reason = REASONS.get(word, FailureReason.NONE)
        return JobStatus(state, word, self._detail(word), reason=reason, billed_seconds=self.took())

    def took(self) -> float | None:
        """Return the seconds from the beginning to the end that the runner wrote down; ``None`` before it did."""
        ended = self.read(runner.EXIT) or {}
        return max(0.0, ended["ended"] - ended["began"]) if "ended" in ended else None

    def _detail(self, word: str) -> str:
        if STATES.get(word) not in (JobState.FAILED, JobState.PREEMPTED):
            return _WHY.get(word, "")
        code = (self.read(runner.EXIT) or {}).get("code")
        why = _WHY.get(word) or (f"exit code {code}" if code is None or code >= 0 else _signal(code))
        lines = self.tail()
        where = f"The whole log is {self.path / runner.LOG}."
        return f"{why}. {where}" + (f" Its last lines:\n{lines}" if lines else " It is empty.")

    def tail(self) -> str:
        """Return the last lines that the job printed."""
        try:
            with (self.path / runner.LOG).open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL_BYTES))
                return "\n".join(log.read().decode(errors="replace").splitlines()[-TAIL_LINES:])
        except FileNotFoundError:
            return ""

    def read_log(self, offset: int) -> tuple[str, int]:
        """Return at most 1 MiB of the log from byte *offset* on, and the next offset. Half lines wait for their end."""
        ended = (self.path / runner.EXIT).exists()
        try:
            with (self.path / runner.LOG).open("rb") as log:
                log.seek(offset)
                chunk = log.read(CHUNK)
        except FileNotFoundError:
            return "", offset
        if not ended and len(chunk) < CHUNK:
            chunk = chunk[: chunk.rfind(b"\n") + 1]
        return chunk.decode(errors="replace"), offset + len(chunk)

    def output(self) -> Output:
        """Return what the job reported; nothing when it reported nothing."""
        path = self.path / runner.OUTPUT
        return Output.read(path.read_text(), str(path)) if path.exists() else Output()

    def end_orphan(self) -> None:
        """End by force a job whose runner was killed. A process is only signalled if it began when the runner said."""
        started = self.read(runner.STARTED) or {}
        if "job" in started and not _lives(started["runner"]) and _lives(started["job"]):
            runner.end_group(started["job"]["pid"], signal.SIGKILL)


_WHY = {
    "not_started": "the program could not be started",
    "timed_out": "it ran longer than max_runtime",
    "vanished": "it was killed from outside together with its runner, so there is no exit code",
    "interrupted": "the machine was shut down while it ran",
    "rebooted": "the machine was restarted while it ran",
    "elsewhere": "it was started on another machine, which alone can tell what became of it",
}


def _signal(code: int) -> str:
    name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
    return f"ended by signal {name}" + (", as the system does when memory runs out" if name == "SIGKILL" else "")


def _lives(process: dict[str, Any]) -> bool:
    return bool(process["ticks"]) and runner.start_ticks(process["pid"]) == process["ticks"]
