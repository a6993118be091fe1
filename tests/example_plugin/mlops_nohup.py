"""The smallest real backend: ``nohup sh`` in a folder of its own.

It must never start a second job of a name: a folder appears with its spec in one step, and only who made it starts it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Self

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import ConflictError, InvalidSpecError
from airflow_mlops.core.features import Feature, refuse_lacking
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.training.contract import JobHandle, JobState, JobStatus, TrainingResult, TrainingSpec
from airflow_mlops.training.launch import JOB_NAME, command_line

SCRIPT = 'echo $$ > pid; "$@" > log 2>&1; echo $? > part; mv part exit'


class NohupBackend:
    """Runs jobs with ``nohup sh``, one folder each."""

    name = "nohup"
    lacks: Mapping[Feature, str] = dict.fromkeys(Feature, "nohup only starts a program")

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    @classmethod
    def from_connection(cls, info: ConnectionInfo) -> Self:
        """Take the folder from the connection's extra ``folder``."""
        return cls(**info.options(["folder"]))

    def submit(self, spec: TrainingSpec, *, name: str, owner: TaskIdentity) -> JobHandle:
        """Start the job, unless its folder is there."""
        refuse_lacking(self.name, self.lacks, spec.features())
        if spec.options:
            raise InvalidSpecError(f"'nohup' has no options, but got {', '.join(spec.options)}.")
        if self._claim(name, {"digest": spec.digest(), "owner": owner.to_dict()}):
            command = ["setsid", "--fork", "nohup", "sh", "-c", SCRIPT, "sh", *command_line(spec)]
            env = {**os.environ, **spec.env, JOB_NAME: name}
            subprocess.run(command, cwd=self.folder / name, env=env, check=True, stderr=subprocess.DEVNULL)
        elif self._job(name)["digest"] != spec.digest():
            raise ConflictError(f"The job {name!r} exists with another spec. Choose another name.")
        return JobHandle(self.name, name)

    def locate(self, name: str) -> JobHandle | None:
        """Return the job if it has a folder."""
        return JobHandle(self.name, name) if (self.folder / name).is_dir() else None

    def observe(self, handles: Iterable[JobHandle]) -> Mapping[JobHandle, JobStatus]:
        """Look at the files of each job."""
        return {handle: self._status(self.folder / handle.job_id) for handle in handles if self.locate(handle.job_id)}

    def cancel(self, handle: JobHandle) -> None:
        """Kill the job's process group."""
        folder = self.folder / handle.job_id
        if (folder / "pid").exists() and not self._status(folder).state.terminal:
            (folder / "cancelled").touch()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int((folder / "pid").read_text()), signal.SIGKILL)

    def collect(self, handle: JobHandle) -> TrainingResult:
        """Return a result without a model: these jobs report nothing."""
        if self._status(self.folder / handle.job_id).state is not JobState.SUCCEEDED:
            raise InvalidSpecError(f"Job {handle.job_id!r} has not succeeded, so it has no result.")
        return TrainingResult(handle)

    def managed(self) -> Iterator[tuple[JobHandle, TaskIdentity]]:
        """Yield every folder's job."""
        for path in self.folder.glob("*/job.json"):
            yield JobHandle(self.name, path.parent.name), TaskIdentity.from_dict(self._job(path.parent.name)["owner"])

    def _claim(self, name: str, job: dict) -> bool:
        """Make the job's folder, whole, and return whether it was us who made it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=".new-", dir=self.folder))
        (new / "job.json").write_text(json.dumps(job))
        try:
            new.rename(self.folder / name)
        except OSError:
            (new / "job.json").unlink()
            new.rmdir()
            return False
        return True

    def _job(self, name: str) -> dict:
        return json.loads((self.folder / name / "job.json").read_text())

    def _status(self, folder: Path) -> JobStatus:
        if (folder / "exit").exists():
            code = int((folder / "exit").read_text())
            return JobStatus(JobState.FAILED if code else JobState.SUCCEEDED, "exit", f"exit code {code}")
        if (folder / "cancelled").exists():
            return JobStatus(JobState.CANCELLED, "cancelled")
        return JobStatus(JobState.RUNNING if (folder / "pid").exists() else JobState.PENDING, "pid")
