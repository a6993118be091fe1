"""Training jobs on Amazon SageMaker: exactly one a name, because SageMaker never takes a name twice.

The name is the job's own, so a second submission meets the first; whether both mean the same is told by the digest of
the spec, which the job's description holds. It must never write a value of a secret into a description or a message.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, ClassVar, Self

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import ConflictError, InvalidSpecError, NotFoundError, PlatformUnavailableError
from airflow_mlops.core.features import Feature
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.platforms.aws import Aws
from airflow_mlops.training.backends import sagemaker_job as request
from airflow_mlops.training.backends.sagemaker_list import JobList
from airflow_mlops.training.backends.sagemaker_log import last_lines, read_on
from airflow_mlops.training.backends.sagemaker_options import DEFAULTS, read_options
from airflow_mlops.training.backends.sagemaker_output import read_report
from airflow_mlops.training.backends.sagemaker_status import is_over, job_status, ran_seconds
from airflow_mlops.training.backends.sagemaker_tags import MARK, owner_of
from airflow_mlops.training.contract import JobHandle, JobState, JobStatus, TrainingResult, TrainingSpec
from airflow_mlops.training.output import Output

__all__ = ["SageMakerBackend"]

Json = dict[str, Any]

EXPLAINED = 20
"""How many ended jobs of one look are asked why; a worker looks at one."""

KEPT = timedelta(days=1)
"""How long a job that is over is still among those that :meth:`SageMakerBackend.managed` yields."""

CONSOLES = {"cn-": "console.amazonaws.cn", "us-gov-": "console.amazonaws-us-gov.com"}

log = logging.getLogger(__name__)


class SageMakerBackend:
    """Runs jobs as training jobs in the account and region of a connection. A job's id is ``<region>/<name>``.

    ``secret_env`` names ``secretsmanager:<name>[#<key>]`` or the ARN of a secret of AWS Secrets Manager.
    """

    name: ClassVar[str] = "sagemaker"
    lacks: ClassVar[Mapping[Feature, str]] = {}

    def __init__(self, aws: Aws) -> None:
        self._aws = aws
        self._lists: dict[str, JobList] = {}

    @classmethod
    def from_connection(cls, info: ConnectionInfo) -> Self:
        """Build it from a connection; nothing is asked yet."""
        return cls(Aws(info, DEFAULTS))

    def submit(self, spec: TrainingSpec, *, name: str, owner: TaskIdentity) -> JobHandle:
        """Create the training job called *name*, or find it."""
        options = read_options(spec.options, self._aws.further)
        body = request.job_request(spec, name, owner, options, self._aws.region)
        try:
            self._aws.call("sagemaker", "create_training_job", **body)
        except ConflictError:
            self._refuse_other(name, spec)
        return self.handle(self._aws.region, name)

    def locate(self, name: str) -> JobHandle | None:
        """Return the job called *name* in the connection's region."""
        region = self._aws.region
        return self.handle(region, name) if self._find(region, name) else None

    def observe(self, handles: Iterable[JobHandle]) -> Mapping[JobHandle, JobStatus]:
        """Look at one job with a request, at many of a region with a list; ask at most 20 of them why they ended."""
        places = {handle: self._place(handle) for handle in handles}
        jobs = self._looked(set(places.values()))
        return {handle: self._status(*places[handle], jobs) for handle in places if places[handle] in jobs}

    def cancel(self, handle: JobHandle) -> None:
        """Stop the job: its program gets SIGTERM, and 120 seconds later SIGKILL."""
        region, name = self._place(handle)
        if not _can_stop(self._find(region, name)):
            return
        try:
            self._aws.call("sagemaker", "stop_training_job", region=region, TrainingJobName=name)
        except InvalidSpecError:
            if _can_stop(self._find(region, name)):
                raise

    def collect(self, handle: JobHandle) -> TrainingResult:
        """Return what the program with rank 0 wrote to ``MLOPS_OUTPUT``, and the metrics that SageMaker itself read.

        :raises NotFoundError: there is no such job; or its report is lost, and it had no tracking run
        :raises InvalidSpecError: the job has not succeeded
        :raises JobFailedError: the report is not what it should be
        """
        region, name = self._place(handle)
        job = self._aws.call("sagemaker", "describe_training_job", region=region, TrainingJobName=name)
        status, run_id = job_status(job), request.run_of(job)
        if status.state is not JobState.SUCCEEDED:
            raise InvalidSpecError(f"Job {handle.job_id!r} is {status.native!r}: only one that succeeded has results.")
        try:
            output = read_report(self._aws, region, job)
        except NotFoundError as error:
            if not run_id:
                raise
            log.warning("%s What it logged to its run %s is all there is.", error, run_id)
            output = Output()
        metrics = {**_metrics(job), **output.metrics}
        return TrainingResult(
            handle,
            output.model_uri,
            metrics,
            output.run_id or run_id,
            request.data_of(job),
            billed_seconds=status.billed_seconds,
            ran_seconds=ran_seconds(job) if job.get("EnableManagedSpotTraining") else None,
        )

    def managed(self) -> Iterator[tuple[JobHandle, TaskIdentity]]:
        """Yield every job of ours in the region that is active, or ended within a day. A search may lag by seconds."""
        since = (datetime.now(UTC) - KEPT).strftime("%Y-%m-%dT%H:%M:%S")
        lately = [
            {"Name": "TrainingJobStatus", "Operator": "In", "Value": "InProgress,Stopping"},
            {"Name": "LastModifiedTime", "Operator": "GreaterThan", "Value": since},
        ]
        wanted = {
            "Filters": [{"Name": f"Tags.{MARK}", "Operator": "Exists"}],
            "SubExpressions": [{"Filters": lately, "Operator": "Or"}],
        }
        query: Json = {"Resource": "TrainingJob", "SearchExpression": wanted, "MaxResults": 100}
        for page in self._aws.pages("sagemaker", "search", "Results", **query):
            for found in page:
                if owner := owner_of(found["TrainingJob"].get("Tags") or ()):
                    yield self.handle(self._aws.region, found["TrainingJob"]["TrainingJobName"]), owner

    def read_log(self, handle: JobHandle, offset: int) -> tuple[str, int]:
        """Return what node 0 printed from *offset* on, and the offset to go on from."""
        return read_on(self._aws, *self._place(handle), offset)

    def _refuse_other(self, name: str, spec: TrainingSpec) -> None:
        """Refuse the name if it was used for another spec."""
        job = self._find(self._aws.region, name)
        if job is None:
            raise PlatformUnavailableError(f"SageMaker says that job {name!r} exists, and does not find it. Try again.")
        if request.digest_of(job) != spec.digest():
            raise ConflictError(
                f"The training job {name!r} exists with another spec, and SageMaker never takes a name twice. "
                "Clear the task to start a new job, or submit what was submitted before."
            )

    def _looked(self, places: set[tuple[str, str]]) -> dict[tuple[str, str], Json]:
        """Return the jobs that were found, by region and name."""
        found: dict[tuple[str, str], Json] = {}
        for region in {region for region, _ in places}:
            names = {name for where, name in places if where == region}
            if len(names) == 1:
                name = next(iter(names))
                jobs = {name: job} if (job := self._find(region, name)) else {}
            else:
                jobs = self._listed(region, names)
            found |= {(region, name): job for name, job in jobs.items()}
        return found

    def _listed(self, region: str, names: set[str]) -> dict[str, Json]:
        jobs = self._list(region).look(names)
        unclear = [name for name, job in jobs.items() if _is_unexplained(job)]
        for name in unclear[:EXPLAINED]:
            jobs[name] = self._find(region, name) or jobs[name]
        return jobs

    def _list(self, region: str) -> JobList:
        ask = partial(self._aws.pages, "sagemaker", "list_training_jobs", "TrainingJobSummaries", region=region)
        return self._lists.setdefault(region, JobList(ask))

    def _find(self, region: str, name: str) -> Json | None:
        """Return the description of one job, or ``None``."""
        try:
            job = self._aws.call("sagemaker", "describe_training_job", region=region, TrainingJobName=name)
        except NotFoundError:
            return None
        self._list(region).note(job)
        return job

    def _status(self, region: str, name: str, jobs: Mapping[tuple[str, str], Json]) -> JobStatus:
        status = job_status(jobs[region, name])
        if status.state is JobState.FAILED and len(jobs) == 1:
            lines = last_lines(self._aws, region, name)
            return replace(status, detail=f"{status.detail} Its last lines:\n{lines}" if lines else status.detail)
        return status

    def _place(self, handle: JobHandle) -> tuple[str, str]:
        region, _, name = handle.job_id.rpartition("/")
        return region or self._aws.region, name

    def handle(self, region: str, name: str) -> JobHandle:
        """Return the handle of a job by its name."""
        console = next((CONSOLES[start] for start in CONSOLES if region.startswith(start)), "console.aws.amazon.com")
        page = f"https://{region}.{console}/sagemaker/home?region={region}#/jobs/{name}"
        return JobHandle(self.name, f"{region}/{name}", page)


def _can_stop(job: Json | None) -> bool:
    return job is not None and job.get("TrainingJobStatus") == "InProgress"


def _is_unexplained(job: Json) -> bool:
    """Say whether a job ended in a way that a list does not explain."""
    return is_over(job) and job["TrainingJobStatus"] != "Completed" and "ResourceConfig" not in job


def _metrics(job: Json) -> dict[str, float]:
    """Return the last value of each metric that SageMaker read from the log: it keeps seven digits."""
    return {one["MetricName"]: float(f"{one['Value']:.7g}") for one in job.get("FinalMetricDataList") or ()}
