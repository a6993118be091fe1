"""The smallest real backend: ``nohup sh`` in a folder of its own, on one Linux machine.

It must never run a job twice. A folder appears with its spec in one step, and of all shells that are started for it
only the one that links its process id there first goes on. So submitting again is safe, whoever was killed before.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import ConflictError, InvalidSpecError
from airflow_mlops.core.features import Feature, refuse_lacking
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.training import launch
from airflow_mlops.training.contract import (
    FailureReason,
    JobHandle,
    JobState,
    JobStatus,
    TrainingResult,
    TrainingSpec,
)
from airflow_mlops.training.output import Output

STATES = {
    "accepted": JobState.PENDING,  # its folder is there, no shell has taken it on
    "running": JobState.RUNNING,
    "stopping": JobState.RUNNING,  # it was cancelled and still lives
    "completed": JobState.SUCCEEDED,  # exit code 0
    "failed": JobState.FAILED,  # any other exit code
    "lost": JobState.FAILED,  # its shell is gone and has not said how it ended
    "cancelled": JobState.CANCELLED,
}
"""The words of this platform and what they mean."""

REASONS = {"failed": FailureReason.USER_CODE, "lost": FailureReason.PLATFORM}
"""Whose fault a failure is: the program's own is not tried again."""

SCRIPT = """
ln -s $$ pid || exit
began=$(date +%s); "$@" > log 2>&1
echo $? $(($(date +%s) - began)) > end; mv end exit
"""


class NohupBackend:
    """Runs jobs with ``nohup sh``, one folder each.

    :param folder: where the jobs' folders are
    """

    name = "nohup"
    lacks: Mapping[Feature, str] = dict.fromkeys(Feature, "nohup only starts a program")

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    @classmethod
    def from_connection(cls, info: ConnectionInfo) -> Self:
        """Take the folder from the connection's extra ``folder``; any other extra is refused."""
        return cls(**info.options(["folder"]))

    def submit(self, spec: TrainingSpec, *, name: str, owner: TaskIdentity) -> JobHandle:
        """Start the job, unless it was started."""
        refuse_lacking(self.name, self.lacks, spec.features())
        if spec.options:
            raise InvalidSpecError(f"'nohup' has no options, but got {', '.join(spec.options)}.")
        self._keep(name, {"spec": spec.to_dict(), "digest": spec.digest(), "owner": owner.to_dict()})
        if self._job(name)["digest"] != spec.digest():
            raise ConflictError(f"The job {name!r} exists with another spec. Clear the task to start a new one.")
        if word_of(self.folder / name) == "accepted":
            self._start(spec, name)
        return JobHandle(self.name, name)

    def locate(self, name: str) -> JobHandle | None:
        """Return the job if it has a folder."""
        return JobHandle(self.name, name) if (self.folder / name / "job.json").exists() else None

    def observe(self, handles: Iterable[JobHandle]) -> Mapping[JobHandle, JobStatus]:
        """Look at the folder of each job."""
        return {handle: status_of(self.folder / handle.job_id) for handle in handles if self.locate(handle.job_id)}

    def cancel(self, handle: JobHandle) -> None:
        """Kill the job's process group; a job that has not begun never will."""
        folder = self.folder / handle.job_id
        if not self.locate(handle.job_id) or status_of(folder).state.terminal:
            return
        (folder / "cancelled").touch()
        with contextlib.suppress(FileExistsError):
            (folder / "pid").symlink_to("0")
        if is_alive(folder):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int(os.readlink(folder / "pid")), signal.SIGKILL)

    def collect(self, handle: JobHandle) -> TrainingResult:
        """Return what the program reported, with the data it was trained on and what it cost."""
        folder = self.folder / handle.job_id
        status = status_of(folder)
        if status.state is not JobState.SUCCEEDED:
            raise InvalidSpecError(f"Job {handle.job_id!r} is {status.native!r}: only one that succeeded has a result.")
        spec = TrainingSpec.from_dict(self._job(handle.job_id)["spec"])
        report = folder / "output.json"
        output = Output.read(report.read_text(), str(report)) if report.exists() else Output()
        run_id = output.run_id or spec.env.get(launch.RUN_ID, "")
        return TrainingResult(handle, output.model_uri, output.metrics, run_id, spec.inputs, status.billed_seconds)

    def managed(self) -> Iterator[tuple[JobHandle, TaskIdentity]]:
        """Yield every folder's job."""
        for path in self.folder.glob("[!.]*/job.json"):
            yield JobHandle(self.name, path.parent.name), TaskIdentity.from_dict(self._job(path.parent.name)["owner"])

    def _keep(self, name: str, job: dict[str, Any]) -> None:
        """Let the job's folder appear with all that is in it, unless it is there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=".new-", dir=self.folder))
        (new / "job.json").write_text(json.dumps(job))
        try:
            new.rename(self.folder / name)
        except OSError:
            shutil.rmtree(new)

    def _start(self, spec: TrainingSpec, name: str) -> None:
        folder = self.folder / name
        own = {launch.JOB_NAME: name, launch.OUTPUT: str(folder / "output.json")}
        subprocess.run(
            ["setsid", "--fork", "nohup", "sh", "-c", SCRIPT, name, *launch.command_line(spec)],
            cwd=folder,
            env={"PATH": os.environ["PATH"], **spec.env, **own},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )

    def _job(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / name / "job.json").read_text())
        return found


def status_of(folder: Path) -> JobStatus:
    """Return what a job's folder says; a word that is not in the table is UNKNOWN."""
    word = word_of(folder)
    code, seconds = (folder / "exit").read_text().split() if word in ("completed", "failed") else ("", None)
    detail = f"exit code {code}, see {folder / 'log'}" if code else ""
    reason = REASONS.get(word, FailureReason.NONE)
    billed = None if seconds is None else float(seconds)
    return JobStatus(STATES.get(word, JobState.UNKNOWN), word, detail, reason=reason, billed_seconds=billed)


def word_of(folder: Path) -> str:
    """Return the word for what a job is doing. Whether it lives is asked first: it says how it ended before it ends."""
    has_begun, lives = (folder / "pid").is_symlink(), is_alive(folder)
    if (folder / "exit").exists():
        return "completed" if (folder / "exit").read_text().startswith("0 ") else "failed"
    if not has_begun:
        return "accepted"
    is_cancelled = (folder / "cancelled").exists()
    if lives:
        return "stopping" if is_cancelled else "running"
    return "cancelled" if is_cancelled else "lost"


def is_alive(folder: Path) -> bool:
    """Say whether the shell of a job lives. Its command line has the job's name: no other process is taken for it."""
    with contextlib.suppress(OSError):
        return folder.name.encode() in Path(f"/proc/{os.readlink(folder / 'pid')}/cmdline").read_bytes()
    return False
