"""Pipelines as pipeline jobs of Azure Machine Learning: one a name, however often it is asked for.

A pipeline is the description of a pipeline job, or a pipeline component that the workspace has.

Vendor page: https://learn.microsoft.com/rest/api/azureml/jobs/create-or-update?view=rest-azureml-2024-10-01#pipelinejob
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from airflow_mlops.core.errors import InvalidSpecError, MlopsError, close_match
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.core.records import Record
from airflow_mlops.training.backends.azureml_job import EXPERIMENT, check_name
from airflow_mlops.training.backends.azureml_jobs import AzureMLJobs
from airflow_mlops.training.backends.azureml_marks import TAG, marks
from airflow_mlops.training.backends.azureml_status import STATES, explained, told
from airflow_mlops.training.contract import JobHandle, JobState, JobStatus
from airflow_mlops.training.pipelines.contract import PipelineResult, PipelineSpec

__all__ = ["AzureMLPipelines"]

Json = dict[str, Any]

TOLD = 5
"""Steps that failed and are named, with what each says."""


@dataclass(frozen=True)
class PipelineOptions(Record):
    """The fields of a spec's ``options`` that this platform has.

    :param experiment: experiment of the studio that the job is shown in
    :param compute: compute target of steps that name none
    :param force_rerun: whether every step runs, also one whose result is kept from an earlier run
    :param tags: further tags of the job
    """

    experiment: str = ""
    compute: str = ""
    force_rerun: bool | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


class AzureMLPipelines(AzureMLJobs):
    """Runs pipeline jobs in the workspace of a connection."""

    kind: ClassVar[str] = "Pipeline"

    def submit(self, spec: PipelineSpec, *, name: str, owner: TaskIdentity) -> JobHandle:
        """Make the job called *name*, or find it.

        :raises InvalidSpecError: an option or parameter is unknown, missing or of a wrong type, or the service refused
        :raises NotFoundError: the workspace has no such component
        :raises ConflictError: a job of that name has another spec
        """
        check_name(name)
        options = PipelineOptions.from_dict(spec.options)
        body, declared = self._described(spec)
        inputs = {**body.get("inputs", {}), **job_inputs(name_of(spec), spec.parameters, declared)}
        if (job := self._find(name)) is not None:
            return self._same(job, spec)
        properties = {
            **body,
            "jobType": "Pipeline",
            "displayName": body.get("displayName") or f"{owner.dag_id}.{owner.task_id}"[:256],
            "experimentName": options.experiment or body.get("experimentName") or EXPERIMENT,
            "settings": {**body.get("settings", {}), **self._settings(options)},
            "inputs": inputs,
            "tags": {**body.get("tags", {}), **options.tags, TAG: "true"},
            "properties": {**body.get("properties", {}), **marks(spec, owner)},
        }
        return self._put(name, {key: value for key, value in properties.items() if value}, spec)

    def collect(self, handle: JobHandle) -> PipelineResult:
        """Return the states of its steps, and where its outputs are, by name.

        :raises InvalidSpecError: it has not succeeded
        """
        job = self._succeeded(handle)
        states = {step_name(run): str(run.get("status", "")) for run in self._client.children(job)}
        outputs = {key: one.get("uri") for key, one in (job["properties"].get("outputs") or {}).items()}
        return PipelineResult(handle, states, outputs)

    def _described(self, spec: PipelineSpec) -> tuple[Json, Mapping[str, Any]]:
        """Return the description of the job, and the inputs that its pipeline declares."""
        if not isinstance(spec.pipeline, str):
            body = pipeline_job(spec.pipeline)
            return body, body.get("inputs", {})
        name, version = component_name(spec.pipeline)
        found = self._client.component(name, version)
        declared = (found["properties"].get("componentSpec") or {}).get("inputs") or {}
        return {"componentId": f"{self._client.workspace_id}/components/{name}/versions/{version}"}, declared

    def _settings(self, options: PipelineOptions) -> Json:
        compute = options.compute or self._client.defaults["compute"]
        found = {"default_compute": f"{self._client.workspace_id}/computes/{compute}"} if compute else {}
        return found | ({} if options.force_rerun is None else {"force_rerun": options.force_rerun})

    def _explained(self, job: Json, status: JobStatus) -> JobStatus:
        """Return the status of a pipeline that ended badly: what it says itself is that some steps failed."""
        if status.state is not JobState.FAILED:
            return status
        found = super()._explained(job, status)
        try:
            failed = [
                run for run in self._client.children(job) if STATES.get(str(run.get("status"))) is JobState.FAILED
            ]
        except MlopsError:
            return found
        reports = [explained(job, run, status) for run in failed[:TOLD]]
        if not reports:
            return found
        lines = [f"Step {step_name(run)!r} failed: {told(run)[1]}" for run in failed[:TOLD]]
        return replace(found, detail="\n".join([*lines, found.detail]), reason=reports[0].reason)


def pipeline_job(pipeline: Mapping[str, Any]) -> Json:
    """Return the properties of a pipeline job; they may be given as the whole body of a request.

    :raises InvalidSpecError: it has no steps
    """
    body = dict(pipeline["properties"]) if set(pipeline) == {"properties"} else dict(pipeline)
    if body.get("jobType", "Pipeline") != "Pipeline" or not (body.get("jobs") or body.get("componentId")):
        raise InvalidSpecError(
            "A pipeline for Azure Machine Learning is the description of a pipeline job: 'jobs' with its steps, and "
            "'inputs'. Or give '<component>@<version>' of one that the workspace has."
        )
    return body


def component_name(text: str) -> tuple[str, str]:
    """Return the name and the version of a component, written ``<name>@<version>`` or ``azureml:<name>:<version>``.

    :raises InvalidSpecError: it is neither
    """
    plain = text.removeprefix("azureml:")
    name, _, version = plain.partition("@" if "@" in plain else ":")
    if not (name and version) or "/" in plain:
        raise InvalidSpecError(f"The pipeline {text!r} is not '<component>@<version>' of the workspace.")
    return name, version


def job_inputs(pipeline: str, parameters: Mapping[str, Any], declared: Mapping[str, Any]) -> dict[str, Json]:
    """Return parameters as inputs of a job: a mapping with ``jobInputType`` as it is, anything else as a literal.

    :raises InvalidSpecError: naming the first that is unknown, or that is needed and not given
    """
    for key in parameters:
        if key not in declared:
            raise InvalidSpecError(
                f"Pipeline {pipeline!r} has no parameter {key!r}: {close_match(key, declared)}"
                f"It has {', '.join(declared) or 'none'}."
            )
    for key in _needed(declared):
        if key not in parameters:
            raise InvalidSpecError(f"Pipeline {pipeline!r} needs the parameter {key!r}.")
    return {key: _input(value) for key, value in parameters.items()}


def _needed(declared: Mapping[str, Any]) -> Iterator[str]:
    """Yield the inputs of a component that have no default. Those of a job have a value of their own."""
    for key, one in declared.items():
        if isinstance(one, Mapping) and "type" in one and "default" not in one and not one.get("optional"):
            yield key


def _input(value: Any) -> Json:
    if isinstance(value, Mapping) and "jobInputType" in value:
        return dict(value)
    return {"jobInputType": "literal", "value": value if isinstance(value, str) else json.dumps(value)}


def name_of(spec: PipelineSpec) -> str:
    """Return what messages call a pipeline."""
    return spec.pipeline if isinstance(spec.pipeline, str) else str(spec.pipeline.get("displayName") or "of this job")


def step_name(run: Mapping[str, Any]) -> str:
    """Return the name that a step has in its pipeline."""
    return str(run.get("displayName") or run.get("runId") or "")
