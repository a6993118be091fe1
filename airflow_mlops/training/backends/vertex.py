"""Training jobs on Vertex AI: CustomJobs, or pipelines of one step where the id has to be exact.

Vertex AI makes the id of a CustomJob itself, so two may be started under one name when an answer is lost; the oldest
is the job, and the others are stopped by whoever sees them. Nothing here may write the value of a secret into a job.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Self

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import ConflictError, InvalidSpecError, NotFoundError
from airflow_mlops.core.features import Feature
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.core.refs import DataVersion
from airflow_mlops.platforms.gcp import GcpApi
from airflow_mlops.training.backends import vertex_job as manifest
from airflow_mlops.training.backends.vertex_jobs import CustomJobs, PipelineJobs, id_of
from airflow_mlops.training.backends.vertex_log import last_lines, read_on
from airflow_mlops.training.backends.vertex_options import PIPELINE, read_options
from airflow_mlops.training.backends.vertex_start import DATA, OWNER, REPORT, address_of
from airflow_mlops.training.backends.vertex_status import is_over, status_of
from airflow_mlops.training.contract import JobHandle, JobState, JobStatus, TrainingResult, TrainingSpec
from airflow_mlops.training.launch import RUN_ID
from airflow_mlops.training.output import Output

__all__ = ["VertexBackend"]

Json = dict[str, Any]

CONSOLE = "https://console.cloud.google.com"
JOB_PAGE = CONSOLE + "/agent-platform/locations/{region}/training/{id}?project={project}"
RUN_PAGE = CONSOLE + "/vertex-ai/locations/{region}/pipelines/runs/{id}?project={project}"

log = logging.getLogger(__name__)


class VertexBackend:
    """Runs jobs in the project and region of a connection. ``secret_env`` names ``<secret>/<version>``.

    A job's id is ``<project>/<region>/<id>``: a number for a CustomJob, the job's name for a PipelineJob.
    """

    name: ClassVar[str] = "vertex"
    lacks: ClassVar[Mapping[Feature, str]] = {}

    def __init__(self, api: GcpApi) -> None:
        self._api = api
        self._custom, self._pipelines = CustomJobs(api), PipelineJobs(api)

    @classmethod
    def from_connection(cls, info: ConnectionInfo) -> Self:
        """Build it from a connection; nothing is asked yet."""
        return cls(GcpApi(info))

    def submit(self, spec: TrainingSpec, *, name: str, owner: TaskIdentity) -> JobHandle:
        """Start the job called *name*, or find it."""
        options = read_options(self.name, spec.options)
        api = self._api
        place = manifest.Place(api.project, api.staging, api.service_account, api.network)
        make = manifest.one_step_pipeline if options.mode == PIPELINE else manifest.custom_job
        body = make(spec, name, owner, options, place)
        kind = self._pipelines if options.mode == PIPELINE else self._custom
        job = self._find(name) or kind.start(body, name)
        if (job.get("labels") or {}).get(manifest.SPEC) != manifest.short(spec.digest()):
            raise ConflictError(
                f"The job {name!r} exists on Vertex AI with another spec. "
                "Clear the task to start a new job, or submit what was submitted before."
            )
        return self._handle(job)

    def locate(self, name: str) -> JobHandle | None:
        """Return the job called *name* in the connection's project and region."""
        job = self._find(name)
        return None if job is None else self._handle(job)

    def observe(self, handles: Iterable[JobHandle]) -> Mapping[JobHandle, JobStatus]:
        """Look at one job directly; at many with a list of those that are active, and alone at those that are not."""
        wanted: dict[tuple[str, bool], dict[str, JobHandle]] = {}
        for handle in handles:
            scope, job_id = self._place(handle)
            wanted.setdefault((scope, job_id.isdigit()), {})[job_id] = handle
        found: dict[JobHandle, JobStatus] = {}
        for (scope, is_custom), jobs in wanted.items():
            looked = (self._custom if is_custom else self._pipelines).look(scope, jobs)
            found |= {jobs[job_id]: status_of(job) for job_id, job in looked.items()}
        if len(found) == 1:
            return {handle: self._explained(handle, status) for handle, status in found.items()}
        return found

    def cancel(self, handle: JobHandle) -> None:
        """Order the end of the job, and of all others with its name."""
        scope, job_id = self._place(handle)
        self._kind(job_id).cancel(scope, job_id)

    def collect(self, handle: JobHandle) -> TrainingResult:
        """Return what the program of node 0 wrote to ``MLOPS_OUTPUT``.

        :raises NotFoundError: there is no such job; or its report is gone, and it had no tracking run
        :raises InvalidSpecError: the job has not succeeded
        :raises JobFailedError: the report is not what it should be
        """
        job = self._job(handle)
        status = status_of(job)
        if status.state is not JobState.SUCCEEDED:
            name = (job.get("labels") or {}).get(manifest.NAME, "")
            raise InvalidSpecError(
                f"Job {name!r} ({handle.job_id}) is {status.native!r}: only a job that succeeded has results."
            )
        known = manifest.variables(job)
        try:
            output = self._report(address_of(known.get(REPORT, "")))
        except NotFoundError as error:
            if not known.get(RUN_ID):
                raise
            log.warning("%s What it logged to its run %s is all there is.", error, known[RUN_ID])
            output = Output()
        data = {key: DataVersion.from_dict(value) for key, value in json.loads(known.get(DATA) or "{}").items()}
        run_id = output.run_id or known.get(RUN_ID, "")
        return TrainingResult(handle, output.model_uri, output.metrics, run_id, data, status.billed_seconds)

    def managed(self) -> Iterator[tuple[JobHandle, TaskIdentity]]:
        """Yield every job of ours in the connection's project and region, duplicates too."""
        for kind in (self._custom, self._pipelines):
            for job in kind.managed():
                if owner := manifest.variables(job).get(OWNER):
                    yield self._handle(job), TaskIdentity.from_dict(json.loads(owner))

    def read_log(self, handle: JobHandle, offset: int) -> tuple[str, int]:
        """Return what node 0 printed from *offset* on, and the offset to go on from."""
        scope, job_id = self._place(handle)
        job = self._kind(job_id).get(scope, job_id)
        number = custom_id(job) if job else ""
        if job is None or not number:
            return "", offset
        return read_on(self._api, scope.partition("/")[0], number, offset, is_over=is_over(job))

    def _find(self, name: str) -> Json | None:
        return self._custom.find(self._api.scope, name) or self._pipelines.find(self._api.scope, name)

    def _kind(self, job_id: str) -> CustomJobs | PipelineJobs:
        return self._custom if job_id.isdigit() else self._pipelines

    def _job(self, handle: JobHandle) -> Json:
        scope, job_id = self._place(handle)
        job = self._kind(job_id).current(scope, job_id)
        if job is None:
            raise NotFoundError(f"Vertex AI has no job {handle.job_id!r}. Clear the task to train again.")
        return job

    def _explained(self, handle: JobHandle, status: JobStatus) -> JobStatus:
        """Return the status of one job; of a failed one with the last lines of its log."""
        if status.state is not JobState.FAILED:
            return status
        scope, _ = self._place(handle)
        lines = last_lines(self._api, scope.partition("/")[0], custom_id(self._job(handle)))
        return replace(status, detail=f"{status.detail} Its last lines:\n{lines}") if lines else status

    def _report(self, address: str) -> Output:
        try:
            text = self._api.read_object(address).decode(errors="replace")
        except NotFoundError as error:
            raise NotFoundError(
                f"The job succeeded, but its report {address} is gone. Clear the task to train again, or give the job "
                "a tracking run."
            ) from error
        return Output.read(text, address) if text else Output()

    def _place(self, handle: JobHandle) -> tuple[str, str]:
        scope, _, job_id = handle.job_id.rpartition("/")
        return scope or self._api.scope, job_id

    def _handle(self, job: Json) -> JobHandle:
        job_id, project, region = id_of(job), self._api.project, self._api.region
        page = JOB_PAGE if job_id.isdigit() else RUN_PAGE
        return JobHandle(
            self.name, f"{self._api.scope}/{job_id}", page.format(project=project, region=region, id=job_id)
        )


def custom_id(job: Json) -> str:
    """Return the number of the CustomJob that runs the program: the job itself, or that of a pipeline's step."""
    if id_of(job).isdigit():
        return id_of(job)
    for task in (job.get("job_detail") or {}).get("task_details") or []:
        if main := ((task.get("executor_detail") or {}).get("container_detail") or {}).get("main_job"):
            return str(main).rpartition("/")[2]
    return ""
