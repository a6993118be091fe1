"""Training jobs as processes of this machine that outlive the worker and are found again by name.

Exactly one process per name on one host, whatever is killed and when: a job is first written down, then taken on by a
runner that holds the folder's lock, and a job that was taken on is never started again. Worker and triggerer must be
on the same machine. A container or a systemd unit (with its default ``KillMode``) that ends takes its jobs with it.
It never writes a secret to disk.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import (
    ConflictError,
    InvalidSpecError,
    NotFoundError,
    PlatformUnavailableError,
    UnsupportedFeatureError,
)
from airflow_mlops.core.features import Feature, refuse_lacking
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.training import launch
from airflow_mlops.training.backends import local_runner as runner
from airflow_mlops.training.backends.local_folder import JobFolder
from airflow_mlops.training.contract import JobHandle, JobState, JobStatus, TrainingResult, TrainingSpec

OPTIONS = ("workdir", "cwd", "inherit_env", "grace")
"""Extras of the connection, named as the parameters of :class:`LocalBackend`."""

SPEC_OPTIONS = ("cwd",)

# fmt: off
INHERITED = (
    "PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH", "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "NO_PROXY",
    "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "DO_NOT_TRACK", "MLFLOW_DISABLE_TELEMETRY",
)
# fmt: on
"""Variables of the worker that a job sees without asking. All others must be named, so that no credential slips in."""

_RUNNER = Path(runner.__file__).resolve()
_PATIENCE = 20.0


class LocalBackend:
    """Runs jobs as processes of this machine.

    :param workdir: folder that holds one folder a job
    :param cwd: where programs run; by default in the folder of their job
    :param inherit_env: variables of the worker that jobs see, besides :data:`INHERITED`
    :param grace: seconds a cancelled job has to end in peace before it is ended by force
    """

    name: ClassVar[str] = "local"
    lacks: ClassVar[Mapping[Feature, str]] = {
        Feature.IMAGE: "a local job runs in the worker's own environment, not in a container",
        Feature.NODES: "a local job has this one machine",
        Feature.SPOT: "this machine costs the same either way",
    }

    def __init__(
        self, workdir: str | Path, *, cwd: str = "", inherit_env: Iterable[str] = (), grace: float = 10.0
    ) -> None:
        self.workdir = Path(workdir).expanduser().absolute()
        self.cwd, self.grace = cwd, grace
        self.inherit_env = (*INHERITED, *inherit_env)

    @classmethod
    def from_connection(cls, info: ConnectionInfo) -> Self:
        """Build it from a connection; without an extra ``workdir`` jobs are under ``$AIRFLOW_HOME/mlops/jobs``."""
        options = info.options(OPTIONS)
        home = Path(os.environ.get("AIRFLOW_HOME") or "~/airflow")
        return cls(options.pop("workdir", "") or home / "mlops" / "jobs", **options)

    def submit(self, spec: TrainingSpec, *, name: str, owner: TaskIdentity) -> JobHandle:
        """Start the job called *name*, or find it. On return its runner has taken it on."""
        _refuse(spec, name)
        environment = self._environment(spec, name)
        folder = JobFolder(self.workdir / name)
        folder.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _locked(folder.path / "submit.lock"):
            if folder.job is None:
                runner.write(folder.path / runner.JOB, self._job(spec, name, owner))
            _same_spec(folder, spec, name)
            if not folder.begun():
                _start(folder, environment)
        return self._handle(folder)

    def locate(self, name: str) -> JobHandle | None:
        """Return the job called *name* if this folder of jobs has it."""
        folder = JobFolder(self.workdir / name)
        return None if folder.job is None else self._handle(folder)

    def observe(self, handles: Iterable[JobHandle]) -> Mapping[JobHandle, JobStatus]:
        """Look at the folder of each job. A job of another machine is UNKNOWN here, not absent."""
        found = {handle: self._look(handle) for handle in handles}
        return {handle: status for handle, status in found.items() if status is not None}

    def _look(self, handle: JobHandle) -> JobStatus | None:
        folder = JobFolder(self.workdir / handle.job_id)
        if folder.job is not None:
            return folder.status()
        host = urlsplit(handle.console_url).hostname
        if host and host != socket.gethostname().lower():
            return JobStatus(JobState.UNKNOWN, "elsewhere", f"it runs on {host!r}, and this is another machine")
        return None

    def cancel(self, handle: JobHandle) -> None:
        """Order the end of the job's whole process group; after ``grace`` seconds it is ended by force."""
        folder = JobFolder(self.workdir / handle.job_id)
        if folder.job is not None and not folder.status().state.terminal:
            (folder.path / runner.CANCEL).touch()
            folder.end_orphan()

    def collect(self, handle: JobHandle) -> TrainingResult:
        """Return what the job wrote to ``MLOPS_OUTPUT``. The machine was its own for as long as it ran.

        :raises NotFoundError: there is no such job
        :raises InvalidSpecError: the job has not succeeded
        :raises JobFailedError: the output file is not what it should be
        """
        folder = JobFolder(self.workdir / handle.job_id)
        job = folder.job
        if job is None:
            raise NotFoundError(f"There is no job {handle.job_id!r} in {str(self.workdir)!r}.")
        if folder.status().state is not JobState.SUCCEEDED:
            raise InvalidSpecError(
                f"Job {handle.job_id!r} is {folder.word()!r}: only a job that succeeded has results."
            )
        spec = TrainingSpec.from_dict(job["spec"])
        output = folder.output()
        run_id = output.run_id or spec.env.get(launch.RUN_ID, "")
        return TrainingResult(handle, output.model_uri, output.metrics, run_id, spec.inputs, folder.took())

    def managed(self) -> Iterator[tuple[JobHandle, TaskIdentity]]:
        """Yield every job in the folder of jobs."""
        for path in sorted(self.workdir.glob(f"*/{runner.JOB}")):
            folder = JobFolder(path.parent)
            yield self._handle(folder), folder.owner

    def read_log(self, handle: JobHandle, offset: int) -> tuple[str, int]:
        """Return what the job printed from byte *offset* on, and the offset to go on from."""
        return JobFolder(self.workdir / handle.job_id).read_log(offset)

    def _handle(self, folder: JobFolder) -> JobHandle:
        host = (folder.job or {})["host"]
        return JobHandle(self.name, folder.path.name, f"file://{host}{folder.path / runner.LOG}")

    def _job(self, spec: TrainingSpec, name: str, owner: TaskIdentity) -> dict[str, Any]:
        return {
            "name": name,
            "digest": spec.digest(),
            "owner": owner.to_dict(),
            "host": socket.gethostname(),
            "spec": spec.to_dict(),
            "argv": launch.command_line(spec),
            "cwd": spec.options.get("cwd") or self.cwd or str(self.workdir / name),
            "max_runtime": spec.max_runtime,
            "grace": self.grace,
        }

    def _environment(self, spec: TrainingSpec, name: str) -> dict[str, str]:
        inherited = {key: os.environ[key] for key in self.inherit_env if key in os.environ}
        own = {launch.JOB_NAME: name, launch.OUTPUT: str(self.workdir / name / runner.OUTPUT)}
        if spec.checkpoint:
            own[launch.CHECKPOINT_DIR] = str(self._checkpoints(spec))
        return {**inherited, "PYTHONUNBUFFERED": "1", **spec.env, **_secrets(spec), **own}

    def _checkpoints(self, spec: TrainingSpec) -> Path:
        """Return the folder of the checkpoints, which is there from now on; a relative one is beside the jobs."""
        folder = self.workdir / "checkpoints" / Path(spec.checkpoint).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def _refuse(spec: TrainingSpec, name: str) -> None:
    """Refuse what this machine cannot give, by name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise InvalidSpecError(f"The job name {name!r} cannot be a folder. Use letters, digits, '.', '_' and '-'.")
    refuse_lacking(LocalBackend.name, LocalBackend.lacks, spec.features())
    for option in spec.options:
        if option not in SPEC_OPTIONS:
            raise InvalidSpecError(f"'local' has no option {option!r}. It has {', '.join(SPEC_OPTIONS)}.")
    if "://" in spec.checkpoint:
        raise UnsupportedFeatureError("local", "checkpoint", f"{spec.checkpoint!r} is not a folder of this machine")
    wanted, has = spec.resources, _machine()
    if wanted.instance_type:
        raise UnsupportedFeatureError("local", "resources.instance_type", "there is only this machine")
    for field, amount in has.items():
        if (getattr(wanted, field) or 0) > amount:
            raise UnsupportedFeatureError("local", f"resources.{field}", f"this machine has {amount}")


def _machine() -> dict[str, int]:
    """Return what this machine has, in the units of :class:`Resources`."""
    return {
        "cpus": os.cpu_count() or 1,
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
        "gpus": len(list(Path("/dev").glob("nvidia[0-9]*"))),
    }


def _secrets(spec: TrainingSpec) -> dict[str, str]:
    """Read the worker's variables that the spec names."""
    for variable, secret in spec.secret_env.items():
        if secret not in os.environ:
            raise InvalidSpecError(
                f"The secret {secret!r} for {variable!r} is not set. Set it as an environment variable of the worker."
            )
    return {variable: os.environ[secret] for variable, secret in spec.secret_env.items()}


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _same_spec(folder: JobFolder, spec: TrainingSpec, name: str) -> None:
    if (folder.job or {})["digest"] != spec.digest():
        raise ConflictError(
            f"The job {name!r} exists with another spec: {folder.path / runner.JOB} holds it. "
            "Clear the task to start a new job, or submit what was submitted before."
        )


def _start(folder: JobFolder, environment: Mapping[str, str]) -> None:
    """Start a runner and wait until it, or one that was faster, has taken the job on."""
    subprocess.run(
        [sys.executable, "-I", "-S", str(_RUNNER), str(folder.path)],
        env=dict(environment),
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        check=True,
    )
    deadline = time.monotonic() + _PATIENCE
    while not folder.begun():
        if time.monotonic() > deadline:
            raise PlatformUnavailableError(f"The runner of {str(folder.path)!r} did not begin within {_PATIENCE:g} s.")
        time.sleep(0.01)
