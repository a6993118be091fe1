"""Searches on Vertex AI: HyperparameterTuningJobs, whose trials are CustomJobs as our training backend makes them.

Vertex AI makes the id of a search itself, as it does for CustomJobs, and they are kept single in the same way. It names
no best trial: the best value decides.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Self

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import ConflictError, InvalidSpecError, NotFoundError
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.core.refs import DataVersion
from airflow_mlops.platforms.gcp import TUNING_JOBS, GcpApi
from airflow_mlops.training.backends import vertex_job as manifest
from airflow_mlops.training.backends.vertex import JOB_PAGE
from airflow_mlops.training.backends.vertex_jobs import CustomJobs, id_of
from airflow_mlops.training.backends.vertex_log import last_lines
from airflow_mlops.training.backends.vertex_start import DATA, OWNER, REPORT, address_of
from airflow_mlops.training.backends.vertex_status import status_of
from airflow_mlops.training.contract import FailureReason, JobHandle, JobState, JobStatus, TrainingResult
from airflow_mlops.training.output import Output
from airflow_mlops.training.search import Direction
from airflow_mlops.training.tuning.contract import TunedTrial, TuningResult, TuningSpec
from airflow_mlops.training.tuning.vertex_study import BY, NAME, searched, tuning_job
from airflow_mlops.training.tuning.vertex_trials import first_failed, search_status, trial_seconds, tuned_trial

__all__ = ["VertexTuning"]

Json = dict[str, Any]


class TuningJobs(CustomJobs):
    """Searches, which are kept single by a label as CustomJobs are."""

    kind, label, by = TUNING_JOBS, NAME, BY


class VertexTuning:
    """Runs searches in the project and region of a connection. A job's id is ``<project>/<region>/<number>``."""

    name: ClassVar[str] = "vertex"

    def __init__(self, api: GcpApi) -> None:
        self._api = api
        self._searches, self._trials = TuningJobs(api), CustomJobs(api)

    @classmethod
    def from_connection(cls, info: ConnectionInfo) -> Self:
        """Build it from a connection; nothing is asked yet."""
        return cls(GcpApi(info))

    def submit(self, spec: TuningSpec, *, name: str, owner: TaskIdentity) -> JobHandle:
        """Start the search called *name*, or find it."""
        api = self._api
        place = manifest.Place(api.project, api.staging, api.service_account, api.network)
        body = tuning_job(self.name, spec, name, owner, place)
        job = self._searches.find(api.scope, name) or self._searches.start(body, name)
        if (job.get("labels") or {}).get(manifest.SPEC) != manifest.short(spec.digest()):
            raise ConflictError(
                f"The search {name!r} exists on Vertex AI with another spec. "
                "Clear the task to start a new search, or submit what was submitted before."
            )
        return self._handle(id_of(job))

    def locate(self, name: str) -> JobHandle | None:
        """Return the search called *name* in the connection's project and region."""
        job = self._searches.find(self._api.scope, name)
        return None if job is None else self._handle(id_of(job))

    def observe(self, handles: Iterable[JobHandle]) -> Mapping[JobHandle, JobStatus]:
        """Look at one search directly; at many with a list of those that are active, and alone at the others."""
        wanted: dict[str, dict[str, JobHandle]] = {}
        for handle in handles:
            scope, job_id = self._place(handle)
            wanted.setdefault(scope, {})[job_id] = handle
        found: dict[JobHandle, Json] = {}
        for scope, searches in wanted.items():
            found |= {searches[job_id]: job for job_id, job in self._searches.look(scope, searches).items()}
        if len(found) == 1:
            return {handle: self._explained(handle, job) for handle, job in found.items()}
        return {handle: search_status(job) for handle, job in found.items()}

    def cancel(self, handle: JobHandle) -> None:
        """Order the end of the search with its trials, and of all others with its name."""
        self._searches.cancel(*self._place(handle))

    def collect(self, handle: JobHandle) -> TuningResult:
        """Return all trials, and what the best one reported.

        :raises NotFoundError: there is no such search, or the report of its best trial is gone
        :raises InvalidSpecError: the search has not succeeded
        :raises JobFailedError: the report is not what it should be
        """
        job = self._searches.current(*self._place(handle))
        if job is None:
            raise NotFoundError(f"Vertex AI has no search {handle.job_id!r}. Clear the task to search again.")
        status = search_status(job)
        if status.state is not JobState.SUCCEEDED:
            name = (job.get("labels") or {}).get(NAME, "")
            raise InvalidSpecError(
                f"Search {name!r} ({handle.job_id}) is {status.native!r}: only one that succeeded has results. "
                f"{status.detail}"
            )
        told, space = searched(job)
        trials = {trial["id"]: tuned_trial(trial, told["metric"], space) for trial in job["trials"]}
        best = best_of(list(trials.values()), told["direction"])
        source = next(trial for trial in job["trials"] if trial["id"] == best.trial_id)
        parameters = {**told["fixed"], **best.parameters}
        result = self._result(handle, job, source)
        return TuningResult(handle, result, parameters, tuple(trials.values()), status.billed_seconds)

    def managed(self) -> Iterator[tuple[JobHandle, TaskIdentity]]:
        """Yield every search of ours in the connection's project and region, duplicates too."""
        for job in self._searches.managed():
            if owner := _variables(job).get(OWNER):
                yield self._handle(id_of(job)), TaskIdentity.from_dict(json.loads(owner))

    def _explained(self, handle: JobHandle, job: Json) -> JobStatus:
        """Return the status of one search; of a failed one with why its first failed trial did."""
        status, trial = search_status(job), first_failed(job)
        if status.state is not JobState.FAILED or trial is None:
            return status
        scope, _ = self._place(handle)
        number = trial["custom_job"].rpartition("/")[2]
        own = status_of(self._trials.get(scope, number) or {"state": ""})
        lines = last_lines(self._api, scope.partition("/")[0], number)
        detail = f"{status.detail} Trial {trial['id']}: {own.detail or trial.get('infeasible_reason', '')}"
        detail += f" Its last lines:\n{lines}" if lines else ""
        if status.reason is not FailureReason.TIMEOUT:
            taken_away = FailureReason.PLATFORM if own.state is JobState.PREEMPTED else own.reason
            status = replace(status, reason=taken_away or status.reason)
        return replace(status, detail=detail)

    def _result(self, handle: JobHandle, job: Json, trial: Json) -> TrainingResult:
        """Return what a trial left behind, as a training job of its own would have."""
        known = _variables(job)
        folder, _, file = address_of(known[REPORT]).rpartition("/")
        address = f"{folder}/{trial['id']}/{file}"
        try:
            text = self._api.read_object(address).decode(errors="replace")
        except NotFoundError as error:
            raise NotFoundError(
                f"The search succeeded, but the report {address} of its best trial is gone. Clear the task to search "
                "again."
            ) from error
        output = Output.read(text, address)
        data = {key: DataVersion.from_dict(version) for key, version in json.loads(known.get(DATA) or "{}").items()}
        own = self._handle(trial["custom_job"].rpartition("/")[2]) if trial.get("custom_job") else handle
        return TrainingResult(
            own, output.model_uri, output.metrics, output.run_id, data, billed_seconds=trial_seconds(trial, job)
        )

    def _place(self, handle: JobHandle) -> tuple[str, str]:
        scope, _, job_id = handle.job_id.rpartition("/")
        return scope or self._api.scope, job_id

    def _handle(self, number: str) -> JobHandle:
        page = JOB_PAGE.format(project=self._api.project, region=self._api.region, id=number)
        return JobHandle(self.name, f"{self._api.scope}/{number}", page)


def best_of(trials: Iterable[TunedTrial], direction: str) -> TunedTrial:
    """Return the trial with the best value, of equals the first. At least one has a value."""
    valued = [trial for trial in trials if trial.value is not None]
    choose = max if Direction.of(direction) is Direction.MAXIMIZE else min
    return choose(valued, key=lambda trial: trial.value or 0.0)


def _variables(job: Json) -> dict[str, str]:
    return manifest.variables({"job_spec": job.get("trial_job_spec")})
