"""Pipelines on Vertex AI: one PipelineJob per name, because its id is the name.

The platform takes the id it is given and refuses a second job with it, so an order to start one may be sent again. An
arbitrary pipeline has no place of its own for the task that owns it: that is written into labels.

https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.pipelineJobs
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import yaml

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import ConflictError, InvalidSpecError
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.core.records import Record
from airflow_mlops.platforms.gcp import GcpApi
from airflow_mlops.training.backends.vertex_job import SPEC, labels, short, title
from airflow_mlops.training.backends.vertex_jobs import PipelineJobs, id_of
from airflow_mlops.training.backends.vertex_options import check_labels
from airflow_mlops.training.backends.vertex_start import checked as in_storage
from airflow_mlops.training.backends.vertex_status import status_of
from airflow_mlops.training.contract import JobHandle, JobState, JobStatus
from airflow_mlops.training.pipelines.compiled import body, check_parameters, checked, task_names, with_caching
from airflow_mlops.training.pipelines.contract import PipelineResult, PipelineSpec

__all__ = ["VertexPipelines"]

Json = dict[str, Any]

RUN_PAGE = "https://console.cloud.google.com/vertex-ai/locations/{region}/pipelines/runs/{id}?project={project}"
OWNER = "airflow_mlops_owner_"
"""Labels ``..._0``, ``..._1`` and so on: the task that owns a run, as JSON in base32, which labels can hold."""

_LABEL_SIZE = 63
FAIL_FAST = "PIPELINE_FAILURE_POLICY_FAIL_FAST"


@dataclass(frozen=True)
class RunOptions(Record):
    """The fields of a spec's ``options`` that this platform has.

    :param pipeline_root: where artifacts go; by default below the connection's ``staging_bucket``
    :param service_account: the account tasks run as; by default the connection's
    :param network: the VPC network tasks are peered with; by default the connection's
    :param cache: whether a task may take the result of an earlier one; by default as the pipeline was compiled
    :param fail_fast: no task begins after one has failed
    :param labels: further labels
    :param kms_key_name: customer-managed key that encrypts the run
    """

    pipeline_root: str = ""
    service_account: str = ""
    network: str = ""
    cache: bool | None = None
    fail_fast: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    kms_key_name: str = ""


class VertexPipelines:
    """Pipelines in the project and region of a connection. A job's id is ``<project>/<region>/<name>``.

    A spec's pipeline is a compiled one, a ``gs://`` address of one, or a template of Artifact Registry:
    ``https://<region>-kfp.pkg.dev/<project>/<repository>/<pipeline>/<version or tag>``.
    """

    name: ClassVar[str] = "vertex"

    def __init__(self, api: GcpApi) -> None:
        self._api, self._jobs = api, PipelineJobs(api)

    @classmethod
    def from_connection(cls, info: ConnectionInfo) -> Self:
        """Build it from a connection; nothing is asked yet."""
        return cls(GcpApi(info))

    def submit(self, spec: PipelineSpec, *, name: str, owner: TaskIdentity) -> JobHandle:
        """Start the run called *name*, or find it.

        :raises InvalidSpecError: an option or parameter is unknown, missing or of a wrong type, or it was refused
        :raises ConflictError: a run of that name has another spec
        """
        made = self._body(spec, name, owner)
        job = self._jobs.start(made, name)
        if (job.get("labels") or {}).get(SPEC) != short(spec.digest()):
            raise ConflictError(f"The run {name!r} exists with another spec. Clear the task to start a new one.")
        return self._handle(job)

    def locate(self, name: str) -> JobHandle | None:
        """Return the run called *name*, or ``None``."""
        job = self._jobs.find(self._api.scope, name)
        return self._handle(job) if job else None

    def observe(self, handles: Iterable[JobHandle]) -> Mapping[JobHandle, JobStatus]:
        """Look at one run directly; at many with a list of those that are active, and alone at those that are not."""
        wanted: dict[str, dict[str, JobHandle]] = {}
        for handle in handles:
            scope, job_id = self._place(handle)
            wanted.setdefault(scope, {})[job_id] = handle
        looked = {
            runs[job_id]: job for scope, runs in wanted.items() for job_id, job in self._jobs.look(scope, runs).items()
        }
        return {handle: status_of(job) for handle, job in looked.items()}

    def cancel(self, handle: JobHandle) -> None:
        """Order the end of a run that goes on."""
        self._jobs.cancel(*self._place(handle))

    def collect(self, handle: JobHandle) -> PipelineResult:
        """Return the states of its tasks, and what they made, as ``<task>.<name>``: artifacts by address, parameters.

        :raises InvalidSpecError: it has not succeeded
        """
        job = self._jobs.get(*self._place(handle)) or {}
        if status_of(job).state is not JobState.SUCCEEDED:
            raise InvalidSpecError(f"The run {handle.job_id!r} has not succeeded: it is {job.get('state')!r}.")
        known = task_names(job.get("pipeline_spec") or {})
        tasks = [task for task in (job.get("job_detail") or {}).get("task_details") or [] if task["task_name"] in known]
        outputs = {f"{task['task_name']}.{key}": value for task in tasks for key, value in outputs_of(task).items()}
        return PipelineResult(handle, {task["task_name"]: str(task["state"]) for task in tasks}, outputs)

    def managed(self) -> Iterator[tuple[JobHandle, TaskIdentity]]:
        """Yield every run of ours in the connection's project and region."""
        for job in self._jobs.managed():
            if owner := owner_in(job.get("labels") or {}):
                yield self._handle(job), owner

    def _body(self, spec: PipelineSpec, name: str, owner: TaskIdentity) -> Json:
        """Return the run as the API takes it; everything about it that can be checked has been."""
        options = RunOptions.from_dict(spec.options)
        check_labels(options.labels)
        root = options.pipeline_root or (f"{self._api.staging}/{name}" if self._api.staging else "")
        if not root:
            raise InvalidSpecError("A pipeline on Vertex AI needs a place for its artifacts. Give a pipeline_root.")
        config: Json = {"gcs_output_directory": in_storage(root), "parameter_values": dict(spec.parameters)}
        if options.fail_fast:
            config["failure_policy"] = FAIL_FAST
        job: Json = {
            "display_name": title(name, owner),
            "labels": {**labels(spec.digest(), name, options.labels), **owner_labels(owner)},
            "runtime_config": config,
            "service_account": options.service_account or self._api.service_account,
            "network": options.network or self._api.network,
            "encryption_spec": {"kms_key_name": options.kms_key_name} if options.kms_key_name else None,
            **self._source(spec, options),
        }
        return {key: value for key, value in job.items() if value}

    def _source(self, spec: PipelineSpec, options: RunOptions) -> Json:
        """Return the pipeline, or where the platform finds it."""
        pipeline = spec.pipeline
        if isinstance(pipeline, str) and pipeline.startswith("https://"):
            if options.cache is not None:
                raise InvalidSpecError(f"The pipeline {pipeline!r} is a template: 'cache' cannot change it.")
            return {"template_uri": pipeline}
        if isinstance(pipeline, str):
            pipeline = self._downloaded(pipeline)
        found = checked(pipeline)
        if (found.get("platform_spec") or {}).get("platforms"):
            raise InvalidSpecError("The pipeline has a part for a platform, which Vertex AI does not take. Remove it.")
        check_parameters(found, spec.parameters)
        plain = body(found)
        return {"pipeline_spec": dict(plain if options.cache is None else with_caching(plain, options.cache))}

    def _downloaded(self, address: str) -> Mapping[str, Any]:
        if not address.startswith("gs://"):
            raise InvalidSpecError(
                f"Vertex AI has no pipeline {address!r}. Give a compiled one, its 'gs://' address, or a template, as "
                "'https://europe-west4-kfp.pkg.dev/project/repository/pipeline/latest'."
            )
        try:
            documents = [found for found in yaml.safe_load_all(self._api.read_object(address)) if found is not None]
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InvalidSpecError(f"The pipeline {address!r} is neither YAML nor JSON: {error}") from error
        if len(documents) != 1 or not isinstance(documents[0], Mapping):
            raise InvalidSpecError(f"{address!r} holds {len(documents)} documents, not one compiled pipeline.")
        found: Mapping[str, Any] = json.loads(json.dumps(documents[0], default=str))
        return found

    def _place(self, handle: JobHandle) -> tuple[str, str]:
        scope, _, job_id = handle.job_id.rpartition("/")
        return scope or self._api.scope, job_id

    def _handle(self, job: Json) -> JobHandle:
        page = RUN_PAGE.format(project=self._api.project, region=self._api.region, id=id_of(job))
        return JobHandle(self.name, f"{self._api.scope}/{id_of(job)}", page)


def outputs_of(task: Mapping[str, Any]) -> Json:
    """Return what a task made: artifacts as a list of addresses, parameters as they are."""
    made = (task.get("execution") or {}).get("metadata") or {}
    found: Json = {key.removeprefix("output:"): value for key, value in made.items() if str(key).startswith("output:")}
    for key, listed in (task.get("outputs") or {}).items():
        found[key] = [str(artifact.get("uri") or artifact.get("name")) for artifact in listed.get("artifacts") or []]
    return found


def owner_labels(owner: TaskIdentity) -> dict[str, str]:
    """Return the labels that hold *owner*."""
    text = json.dumps(owner.to_dict(), separators=(",", ":"))
    encoded = base64.b32encode(text.encode()).decode().rstrip("=").lower()
    parts = [encoded[first : first + _LABEL_SIZE] for first in range(0, len(encoded), _LABEL_SIZE)]
    return {f"{OWNER}{number}": part for number, part in enumerate(parts)}


def owner_in(found: Mapping[str, str]) -> TaskIdentity | None:
    """Return the owner that :func:`owner_labels` wrote, or ``None``."""
    parts = sorted((int(key.removeprefix(OWNER)), value) for key, value in found.items() if key.startswith(OWNER))
    encoded = "".join(value for _, value in parts).upper()
    if not encoded:
        return None
    return TaskIdentity.from_dict(json.loads(base64.b32decode(encoded + "=" * (-len(encoded) % 8))))
