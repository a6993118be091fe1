"""The small process that watches one local job, so that the job needs no worker to stay alive.

It runs as a script of its own (``python -I -S local_runner.py <job folder>``) with the standard library only. It holds
the folder's lock as long as the job lives, ends the job when told to or when its time is over, and writes down how it
ended. It must never start a job that was started before: a folder with ``started.json`` is never started again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

JOB, STARTED, EXIT, CANCEL, LOCK, LOG, OUTPUT = (
    "job.json",
    "started.json",
    "exit.json",
    "cancel",
    "lock",
    "log.txt",
    "output.json",
)
_TICK = 0.1


def main(folder: Path) -> None:
    """Run the job of *folder* once, detached from whoever called."""
    if os.fork():
        os._exit(0)
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    if take(descriptor) and not (folder / STARTED).exists() and not (folder / EXIT).exists():
        _run(folder, descriptor)


def take(descriptor: int, *, patience: float = 2.0) -> bool:
    """Take the lock, unless another runner or job has it. Whoever merely looks at it has it for an instant."""
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        else:
            return True


def write(path: Path, value: dict[str, Any]) -> None:
    """Write *value* as JSON so that a reader sees all of it or none."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with part.open("w") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def boot_id() -> str:
    """Return what names this start of the machine, or an empty string where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def start_ticks(pid: int) -> str:
    """Return when process *pid* began, in the kernel's words, or an empty string when there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def end_group(group: int, number: int) -> bool:
    """Send a signal to every process of *group* and return whether one was left. Signal 0 only asks."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _run(folder: Path, descriptor: int) -> None:
    interrupted: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _: interrupted.append(received))
    began = time.time()
    who = {"host": socket.gethostname(), "boot": boot_id(), "began": began, "runner": _process(os.getpid())}
    if (folder / CANCEL).exists():
        write(folder / EXIT, {"word": "cancelled", "code": None, "began": began, "ended": began})
        return
    write(folder / STARTED, who)
    word, code = _job(folder, descriptor, who, lambda: bool(interrupted))
    write(folder / EXIT, {"word": word, "code": code, "began": began, "ended": time.time()})


def _job(folder: Path, lock: int, who: dict[str, Any], interrupted: Callable[[], bool]) -> tuple[str, int | None]:
    job = json.loads((folder / JOB).read_text())
    with (folder / LOG).open("ab") as log:
        try:
            child = subprocess.Popen(
                job["argv"],
                cwd=job["cwd"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=[lock],  # as long as the job lives the lock is held, even if this process is killed
            )
        except OSError as error:
            log.write(f"The program could not be started: {error}\n".encode())
            return "not_started", None
    write(folder / STARTED, {**who, "job": _process(child.pid)})
    return _watch(child, folder, job, interrupted)


def _watch(
    child: subprocess.Popen[bytes], folder: Path, job: dict[str, Any], interrupted: Callable[[], bool]
) -> tuple[str, int | None]:
    limit, grace = job["max_runtime"], job["grace"]
    deadline = None if limit is None else time.monotonic() + limit
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return _ended(child.wait(_TICK), interrupted())
        if (folder / CANCEL).exists():
            return "cancelled", _end(child, grace)
        if interrupted():
            return "interrupted", _end(child, grace)
        if deadline is not None and time.monotonic() > deadline:
            return "timed_out", _end(child, grace)


def _ended(code: int, interrupted: bool) -> tuple[str, int]:
    if code == 0:
        return "completed", code
    if code > 0:
        return "failed", code
    return ("interrupted" if interrupted else "killed"), code  # a machine that stops ends the job and us together


def _end(child: subprocess.Popen[bytes], grace: float) -> int:
    """Ask the job's whole process group to end, then end it; return the exit code of its first process."""
    end_group(child.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while end_group(child.pid, 0) and time.monotonic() < deadline:
        time.sleep(_TICK / 2)
        child.poll()
    end_group(child.pid, signal.SIGKILL)
    return child.wait()


def _process(pid: int) -> dict[str, Any]:
    return {"pid": pid, "ticks": start_ticks(pid)}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
