"""Searches as sweep jobs of Azure Machine Learning: one a name, found again anywhere, ended with their task.

A trial tells Azure its metric itself, and leaves what it was given and what it reached as tags of its run; so a result
costs one list of runs, however many trials there are.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, ClassVar

from airflow_mlops.core.errors import JobFailedError, MlopsError
from airflow_mlops.core.features import refuse_lacking
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.core.refs import DataVersion
from airflow_mlops.training.backends.azureml import AzureMLBackend
from airflow_mlops.training.backends.azureml_job import (
    ENVIRONMENT,
    command_job,
    environment_of,
    read_options,
    refuse_sizes,
)
from airflow_mlops.training.backends.azureml_jobs import AzureMLJobs
from airflow_mlops.training.backends.azureml_marks import DATA, read
from airflow_mlops.training.backends.azureml_status import STATES, explained, told
from airflow_mlops.training.contract import FailureReason, JobHandle, JobState, JobStatus
from airflow_mlops.training.tuning import azureml_trial
from airflow_mlops.training.tuning.azureml_sweep import LACKS, PARAMETERS, sweep_job
from airflow_mlops.training.tuning.contract import TunedTrial, TuningResult, TuningSpec

__all__ = ["AzureMLTuning"]

Json = dict[str, Any]

log = logging.getLogger(__name__)

TOLD = 3
"""Trials that failed and are named, with what each says."""

BEST = "best_child_run_id"
"""Property of a sweep in which Azure names its best trial."""


class AzureMLTuning(AzureMLJobs):
    """Runs sweep jobs in the workspace of a connection. The image needs Python 3.9 or newer besides a shell."""

    kind: ClassVar[str] = "Sweep"

    def submit(self, spec: TuningSpec, *, name: str, owner: TaskIdentity) -> JobHandle:
        """Make the sweep called *name*, or find it."""
        training = spec.training
        refuse_lacking(self.name, LACKS, training.features())
        refuse_sizes(self.name, training)
        options = read_options(self.name, training.options, self._client.defaults)
        workspace, vault = self._client.workspace_id, self._client.cloud.vault
        one = command_job(training, name, owner, options, workspace=workspace, vault=vault)
        body = sweep_job(spec, one, owner)
        environment, version = environment_of(training.image, workspace)
        if (job := self._find(name)) is not None:
            return self._same(job, spec)
        if version:
            environment = self._client.keep_environment(
                ENVIRONMENT, version, {"image": training.image, "osType": "Linux", "isAnonymous": True}
            )
        return self._put(name, {**body, "trial": {**body["trial"], "environmentId": environment}}, spec)

    def collect(self, handle: JobHandle) -> TuningResult:
        """Return all trials, and what the best of them left behind.

        :raises NotFoundError: there is no such sweep, or the report of its best trial is gone
        :raises InvalidSpecError: the sweep has not succeeded
        :raises JobFailedError: no trial has a value
        """
        job = self._succeeded(handle)
        runs = self._runs(job)
        trials = tuple(trial_of(run) for run in runs)
        best = self._best(job, trials)
        result = AzureMLBackend(self._client).collect(self._handle(best.trial_id))
        data = {key: DataVersion.from_dict(value) for key, value in read(job, DATA).items()}
        parameters = {**read(job, PARAMETERS), **best.parameters}
        return TuningResult(handle, replace(result, data=data), parameters, trials, billed_seconds(job, runs))

    def _runs(self, job: Json) -> list[Json]:
        """Return the runs of a sweep's trials, in their order."""
        return sorted(self._client.children(job), key=_number)

    def _best(self, job: Json, trials: tuple[TunedTrial, ...]) -> TunedTrial:
        """Return the trial with the best value, of equals Azure's own choice, then the first."""
        objective = job["properties"]["objective"]
        named = str((job["properties"].get("properties") or {}).get(BEST) or "")
        sign = -1 if objective["goal"] == "Maximize" else 1
        finished = [trial for trial in trials if trial.value is not None]
        if not finished:
            raise JobFailedError(
                f"The sweep {job['name']!r} is {job['properties']['status']!r}, and none of its {len(trials)} trials "
                f"has a value of {objective['primaryMetric']!r}. Look at their logs in the studio."
            )
        best = min(finished, key=lambda trial: (sign * (trial.value or 0.0), trial.trial_id != named))
        if named and named != best.trial_id:
            log.warning(
                "Azure takes %s for the best trial, but by what the programs reported at their end it is %s (%s).",
                *(named, best.trial_id, best.value),
            )
        return best

    def _explained(self, job: Json, status: JobStatus) -> JobStatus:
        """Return the status of a sweep that ended badly, with what trials that failed say."""
        found = replace(super()._explained(job, status), billed_seconds=None)
        try:
            runs = self._runs(job)
        except MlopsError:
            return found
        found = replace(found, billed_seconds=billed_seconds(job, runs))
        failed = [run for run in runs if STATES.get(str(run.get("status"))) is JobState.FAILED]
        if found.state is not JobState.FAILED or found.reason is FailureReason.TIMEOUT or not failed:
            return found
        lines = [f"Trial {run['runId']} failed: {told(run)[1]}" for run in failed[:TOLD]]
        reports = [explained(job, run, status) for run in failed]
        is_preempted = all(report.state is JobState.PREEMPTED for report in reports)
        state, reason = (JobState.PREEMPTED, FailureReason.NONE) if is_preempted else (found.state, _reason(reports))
        return replace(found, state=state, detail="\n".join([found.detail, *lines]), reason=reason)


def trial_of(run: Mapping[str, Any]) -> TunedTrial:
    """Return a trial, from its run and the tags that it left there."""
    tags, status = run.get("tags") or {}, str(run.get("status") or "")
    parameters = read({"properties": {"properties": tags}}, azureml_trial.PARAMETERS)
    value = _value(tags) if STATES.get(status) is JobState.SUCCEEDED else None
    return TunedTrial(str(run["runId"]), status, parameters, value)


def billed_seconds(job: Json, runs: list[Json]) -> float | None:
    """Return the seconds that all trials ran, times their nodes; ``None`` where one that began tells no end."""
    try:
        nodes = int((job["properties"]["trial"].get("resources") or {}).get("instanceCount") or 1)
        spans = [
            (datetime.fromisoformat(str(run["endTimeUtc"])) - datetime.fromisoformat(str(run["startTimeUtc"])))
            for run in runs
            if run.get("startTimeUtc")
        ]
    except (KeyError, ValueError, TypeError):
        return None
    return sum(max(0.0, span.total_seconds()) for span in spans) * nodes


def _reason(reports: list[JobStatus]) -> FailureReason:
    """Return why trials failed: the first reason that is told."""
    return next((report.reason for report in reports if report.reason), FailureReason.NONE)


def _value(tags: Mapping[str, Any]) -> float | None:
    try:
        found = float(json.loads(str(tags[azureml_trial.VALUE])))
    except (KeyError, ValueError, TypeError):
        return None
    return found if math.isfinite(found) else None


def _number(run: Mapping[str, Any]) -> tuple[int, str]:
    """Return a key that sorts runs by the number at the end of their ids."""
    found = re.search(r"_(\d+)$", str(run.get("runId")))
    return (int(found[1]) if found else 0), str(run.get("runId"))
