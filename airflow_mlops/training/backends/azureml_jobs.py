"""What training jobs and pipeline jobs of Azure Machine Learning have in common: found, looked at, stopped, swept.

A job is known by its name, which is ours, so it is made once however often it is asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Self

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import (
    ConflictError,
    InvalidSpecError,
    MlopsError,
    NotFoundError,
    PlatformUnavailableError,
)
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.platforms.azure_ml import AzureMLClient
from airflow_mlops.training.backends.azureml_marks import OWNER, TAG, digest, read
from airflow_mlops.training.backends.azureml_status import UNCLEAR, explained, job_status
from airflow_mlops.training.contract import JobHandle, JobSpec, JobState, JobStatus

__all__ = ["AzureMLJobs"]

Json = dict[str, Any]

log = logging.getLogger(__name__)

FEW = 3
"""Jobs that are asked for one by one; more are read from the list."""

MOST = 2000
"""Jobs of the list, newest first, that one look reads. The watcher asks for those that were not among them alone."""

EXPLAINED = 20
"""How many jobs of one look are asked why they ended; a worker looks at one."""


class AzureMLJobs:
    """The jobs of one type in a workspace. A job's id is ``<subscription>/<resource group>/<workspace>/<name>``.

    :param client: of the workspace
    """

    name: ClassVar[str] = "azureml"
    kind: ClassVar[str] = "Command"

    def __init__(self, client: AzureMLClient) -> None:
        self._client = client

    @classmethod
    def from_connection(cls, info: ConnectionInfo) -> Self:
        """Build it from a connection; nothing is asked yet."""
        return cls(AzureMLClient(info))

    def locate(self, name: str) -> JobHandle | None:
        """Return the job called *name*, or ``None``."""
        return None if self._find(name) is None else self._handle(name)

    def observe(self, handles: Iterable[JobHandle]) -> Mapping[JobHandle, JobStatus]:
        """Look at few jobs one by one, at many with the list, newest first; ask at most 20 that ended badly why."""
        wanted = {name: handle for handle in handles if (name := self._name(handle))}
        jobs = self._listed(set(wanted)) if len(wanted) > FEW else self._asked(wanted)
        found = {wanted[name]: job_status(job) for name, job in jobs.items()}
        unclear = [handle for handle, status in found.items() if status.state in UNCLEAR][:EXPLAINED]
        return found | self._why({handle: jobs[self._name(handle)] for handle in unclear}, found)

    def cancel(self, handle: JobHandle) -> None:
        """Order the end of a job that goes on; one that is over, or that nobody knows, is left alone."""
        name = self._name(handle)
        if self._is_over(name):
            return
        try:
            self._client.cancel_job(name)
        except (InvalidSpecError, ConflictError):
            if not self._is_over(name):
                raise

    def managed(self) -> Iterator[tuple[JobHandle, TaskIdentity]]:
        """Yield every job of ours in the workspace, newest first."""
        for job in self._client.jobs(self.kind, TAG):
            if owner := read(job, OWNER):
                yield self._handle(job["name"]), TaskIdentity.from_dict(owner)

    def _put(self, name: str, properties: Json, spec: JobSpec) -> JobHandle:
        """Make the job, or find that somebody else has just made it."""
        try:
            job = self._client.put_job(name, properties)
        except ConflictError:
            job = self._client.job(name)
        return self._same(job, spec)

    def _same(self, job: Json, spec: JobSpec) -> JobHandle:
        """Return the handle of a job that exists, if it was made for the same spec."""
        if digest(job) != spec.digest():
            raise ConflictError(
                f"The job {job['name']!r} exists in {self._client.scope} with another spec. "
                "Clear the task to start a new job, or submit what was submitted before."
            )
        return self._handle(job["name"])

    def _why(
        self, jobs: Mapping[JobHandle, Json], statuses: Mapping[JobHandle, JobStatus]
    ) -> dict[JobHandle, JobStatus]:
        """Return the statuses of jobs that ended badly, with why.

        While the run history does not answer they are UNKNOWN: whether another attempt is right depends on why. It is
        asked once then, not for each.
        """
        found = {handle: replace(statuses[handle], state=JobState.UNKNOWN) for handle in jobs}
        for handle, job in jobs.items():
            try:
                found[handle] = self._explained(job, statuses[handle])
            except PlatformUnavailableError as error:
                log.warning("Why jobs ended cannot be told now: %s", error)
                break
        return found

    def _explained(self, job: Json, status: JobStatus) -> JobStatus:
        """Return the status with why the job ended; without, where the run history has nothing of it."""
        try:
            return explained(job, self._client.details(job), status)
        except PlatformUnavailableError:
            raise
        except MlopsError as error:
            log.warning("Why the job %s ended is not known: %s", job["name"], error)
            return status

    def _asked(self, names: Iterable[str]) -> dict[str, Json]:
        return {name: job for name in names if (job := self._find(name)) is not None}

    def _listed(self, names: set[str]) -> dict[str, Json]:
        """Return those of the jobs that are among the newest in the list, which may be behind."""
        found: dict[str, Json] = {}
        for number, job in enumerate(self._client.jobs(self.kind, TAG)):
            if job["name"] in names:
                found[job["name"]] = job
            if len(found) == len(names) or number >= MOST:
                break
        return found

    def _is_over(self, name: str) -> bool:
        job = self._find(name) if name else None
        return job is None or job_status(job).state.terminal

    def _find(self, name: str) -> Json | None:
        try:
            return self._client.job(name)
        except NotFoundError:
            return None

    def _succeeded(self, handle: JobHandle) -> Json:
        """Return a job that has results.

        :raises NotFoundError: there is no such job
        :raises InvalidSpecError: it has not succeeded
        """
        job = self._client.job(self._name(handle))
        status = job_status(job)
        if status.state is not JobState.SUCCEEDED:
            raise InvalidSpecError(f"Job {handle.job_id!r} is {status.native!r}: only one that succeeded has results.")
        return job

    def _name(self, handle: JobHandle) -> str:
        """Return the name of a job, an empty one for a job of another workspace."""
        scope, _, name = handle.job_id.rpartition("/")
        return name if scope in ("", self._client.scope) else ""

    def _handle(self, name: str) -> JobHandle:
        return JobHandle(self.name, f"{self._client.scope}/{name}", self._client.console_url(name))
