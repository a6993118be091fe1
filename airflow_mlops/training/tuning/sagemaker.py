"""Searches by SageMaker's automatic model tuning: exactly one a name, because SageMaker never takes a name twice.

The trials are training jobs, described and read as those of :mod:`airflow_mlops.training.backends.sagemaker`. It must
never write a value of a secret into a description or a message.

https://docs.aws.amazon.com/sagemaker/latest/dg/automatic-model-tuning.html
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, ClassVar, Self

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import ConflictError, InvalidSpecError, NotFoundError, PlatformUnavailableError
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.platforms.aws import Aws
from airflow_mlops.training.backends.sagemaker import CONSOLES, KEPT, SageMakerBackend
from airflow_mlops.training.backends.sagemaker_list import JobList
from airflow_mlops.training.backends.sagemaker_log import last_lines
from airflow_mlops.training.backends.sagemaker_options import DEFAULTS, read_options
from airflow_mlops.training.backends.sagemaker_status import billed_seconds
from airflow_mlops.training.backends.sagemaker_tags import MARK, owner_of
from airflow_mlops.training.contract import JobHandle, JobState, JobStatus
from airflow_mlops.training.tuning import sagemaker_request as request
from airflow_mlops.training.tuning.contract import TuningResult, TuningSpec
from airflow_mlops.training.tuning.sagemaker_options import read_search_options
from airflow_mlops.training.tuning.sagemaker_status import explained, search_status
from airflow_mlops.training.tuning.sagemaker_trials import best_of, read_trial

__all__ = ["SageMakerTuning"]

Json = dict[str, Any]


class SageMakerTuning:
    """Runs searches as tuning jobs in the account and region of a connection. A search's id is ``<region>/<name>``.

    The image has a program ``train`` that carries out the variable ``MLOPS_START``: SageMaker lets nobody choose the
    entry point of a trial.
    """

    name: ClassVar[str] = "sagemaker"

    def __init__(self, aws: Aws) -> None:
        self._aws, self._jobs = aws, SageMakerBackend(aws)
        self._lists: dict[str, JobList] = {}

    @classmethod
    def from_connection(cls, info: ConnectionInfo) -> Self:
        """Build it from a connection; nothing is asked yet."""
        return cls(Aws(info, DEFAULTS))

    def submit(self, spec: TuningSpec, *, name: str, owner: TaskIdentity) -> JobHandle:
        """Create the tuning job called *name*, or find it."""
        options = read_options(spec.training.options, self._aws.further)
        further, region = read_search_options(spec.options), self._aws.region
        body = request.search_request(spec, name, owner, options, further, region=region)
        try:
            self._aws.call("sagemaker", "create_hyper_parameter_tuning_job", **body)
        except ConflictError:
            self._refuse_other(name, spec)
        return self._handle(region, name)

    def locate(self, name: str) -> JobHandle | None:
        """Return the search called *name* in the connection's region."""
        region = self._aws.region
        return self._handle(region, name) if self._find(region, name) else None

    def observe(self, handles: Iterable[JobHandle]) -> Mapping[JobHandle, JobStatus]:
        """Look at one search with a request, at many with a list, which tells no reasons."""
        places = {handle: self._place(handle) for handle in handles}
        if len(places) == 1:
            return {handle: found for handle in places if (found := self._looked(*places[handle]))}
        jobs: dict[tuple[str, str], Json] = {}
        for region in {region for region, _ in places.values()}:
            names = {name for where, name in places.values() if where == region}
            jobs |= {(region, name): job for name, job in self._list(region).look(names).items()}
        return {handle: search_status(jobs[place]) for handle, place in places.items() if place in jobs}

    def cancel(self, handle: JobHandle) -> None:
        """Stop the search and all its trials: their programs get SIGTERM, and 120 seconds later SIGKILL."""
        region, name = self._place(handle)
        if not _can_stop(self._find(region, name)):
            return
        try:
            self._call("stop", region, name)
        except InvalidSpecError:
            if _can_stop(self._find(region, name)):
                raise

    def collect(self, handle: JobHandle) -> TuningResult:
        """Return what the best trial left behind, and all trials. It asks once for each trial.

        :raises NotFoundError: there is no such search; or the best trial's report is lost
        :raises InvalidSpecError: the search has not succeeded
        :raises JobFailedError: SageMaker's choice of the best trial is not the best
        """
        region, name = self._place(handle)
        job = self._call("describe", region, name)
        if (status := search_status(job)).state is not JobState.SUCCEEDED:
            raise InvalidSpecError(f"Search {handle.job_id!r} is {status.native!r}: only a good one has a best trial.")
        fixed, space = request.told_of(job)
        trials = tuple(read_trial(summary, space) for summary in self._trials(region, name))
        best = best_of(job, trials)
        billed = [found for trial in trials if (found := self._billed(region, trial.trial_id)) is not None]
        return TuningResult(
            handle,
            self._jobs.collect(self._jobs.handle(region, best.trial_id)),
            {**fixed, **best.parameters},
            trials,
            sum(billed) if billed else None,
        )

    def managed(self) -> Iterator[tuple[JobHandle, TaskIdentity]]:
        """Yield every search of ours in the region that is active, or changed within a day. It may lag by seconds."""
        since = (datetime.now(UTC) - KEPT).strftime("%Y-%m-%dT%H:%M:%S")
        lately = [
            {"Name": "HyperParameterTuningJobStatus", "Operator": "In", "Value": "InProgress,Stopping"},
            {"Name": "LastModifiedTime", "Operator": "GreaterThan", "Value": since},
        ]
        wanted = {
            "Filters": [{"Name": f"Tags.{request.SEARCH_MARK}", "Operator": "Exists"}],
            "SubExpressions": [{"Filters": lately, "Operator": "Or"}],
        }
        query: Json = {"Resource": "HyperParameterTuningJob", "SearchExpression": wanted, "MaxResults": 100}
        for page in self._aws.pages("sagemaker", "search", "Results", **query):
            for job in (found["HyperParameterTuningJob"] for found in page):
                if owner := owner_of([*job.get("Tags", ()), {"Key": MARK, "Value": "1"}]):
                    yield self._handle(self._aws.region, job["HyperParameterTuningJobName"]), owner

    def _refuse_other(self, name: str, spec: TuningSpec) -> None:
        """Refuse the name if it was used for another spec."""
        job = self._find(self._aws.region, name)
        if job is None:
            raise PlatformUnavailableError(f"SageMaker says that {name!r} exists, and does not find it. Try again.")
        if request.digest_of(job) != spec.digest():
            raise ConflictError(
                f"The tuning job {name!r} exists with another spec, and SageMaker never takes a name twice. "
                "Clear the task to start a new search, or submit what was submitted before."
            )

    def _looked(self, region: str, name: str) -> JobStatus | None:
        """Return the status of one search, and why it failed, if it did."""
        job = self._find(region, name)
        if job is None:
            return None
        status = search_status(job)
        if status.state is not JobState.FAILED:
            return status
        trials = list(self._trials(region, name))
        failed = [trial["TrainingJobName"] for trial in trials if trial.get("FailureReason")]
        lines = last_lines(self._aws, region, failed[0]) if failed else ""
        found = explained(status, job, trials)
        return replace(found, detail=f"{found.detail} Its last lines:\n{lines}") if lines else found

    def _trials(self, region: str, name: str) -> Iterator[Json]:
        query: Json = {"HyperParameterTuningJobName": name, "MaxResults": 100, "SortBy": "CreationTime"}
        operation = "list_training_jobs_for_hyper_parameter_tuning_job"
        for page in self._aws.pages(
            "sagemaker", operation, "TrainingJobSummaries", region=region, SortOrder="Ascending", **query
        ):
            yield from page

    def _billed(self, region: str, trial: str) -> float | None:
        job = self._aws.call("sagemaker", "describe_training_job", region=region, TrainingJobName=trial)
        return billed_seconds(job)

    def _list(self, region: str) -> JobList:
        """Return the list of a region's searches, with the names that the list of training jobs has."""

        def ask(**query: Any) -> Iterator[list[Json]]:
            what = ("sagemaker", "list_hyper_parameter_tuning_jobs", "HyperParameterTuningJobSummaries")
            for page in self._aws.pages(*what, region=region, **query):
                yield [_renamed(job) for job in page]

        return self._lists.setdefault(region, JobList(ask))

    def _find(self, region: str, name: str) -> Json | None:
        """Return the description of one search, or ``None``."""
        if len(name) > request.LONGEST_NAME:
            return None
        try:
            job = self._call("describe", region, name)
        except NotFoundError:
            return None
        self._list(region).note(_renamed(job))
        return job

    def _call(self, verb: str, region: str, name: str) -> Json:
        operation = f"{verb}_hyper_parameter_tuning_job"
        return self._aws.call("sagemaker", operation, region=region, HyperParameterTuningJobName=name)

    def _place(self, handle: JobHandle) -> tuple[str, str]:
        region, _, name = handle.job_id.rpartition("/")
        return region or self._aws.region, name

    def _handle(self, region: str, name: str) -> JobHandle:
        console = next((CONSOLES[start] for start in CONSOLES if region.startswith(start)), "console.aws.amazon.com")
        page = f"https://{region}.{console}/sagemaker/home?region={region}#/hyper-tuning-jobs/{name}"
        return JobHandle(self.name, f"{region}/{name}", page)


def _can_stop(job: Json | None) -> bool:
    return job is not None and job.get("HyperParameterTuningJobStatus") == "InProgress"


def _renamed(job: Json) -> Json:
    status = job["HyperParameterTuningJobStatus"]
    return {**job, "TrainingJobName": job["HyperParameterTuningJobName"], "TrainingJobStatus": status}
