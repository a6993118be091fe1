"""From a training spec to a CustomJob, or to a pipeline with that one step. Pure.

Both carry the same labels and run the same container. Only the pipeline's id can be chosen.

https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.customJobs
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_mlops.core.errors import InvalidSpecError, UnsupportedFeatureError
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.training.backends.vertex_machine import machine_spec
from airflow_mlops.training.backends.vertex_options import VertexOptions
from airflow_mlops.training.backends.vertex_start import checked, environment, start_command
from airflow_mlops.training.contract import TrainingSpec

Json = dict[str, Any]

MANAGED, NAME, SPEC = "managed_by", "airflow_mlops_job", "airflow_mlops_spec"
"""Labels of every job of ours: who made it, its stable name, the digest of its spec."""

BY = "airflow-mlops"
STEP = "train"
_NAME = re.compile(r"[a-z][-a-z0-9]{0,62}")
_DIGEST = 40
"""Hexadecimal digits of the spec's SHA-256 that a label has room for, roundly."""


@dataclass(frozen=True)
class Place:
    """Where a job is made, and what its connection says besides."""

    project: str
    staging: str
    service_account: str = ""
    network: str = ""


def labels(digest: str, name: str, further: Mapping[str, str]) -> Json:
    """Return the labels of a job called *name* of the spec with *digest*.

    :raises InvalidSpecError: the name cannot be a label and an id
    """
    if not _NAME.fullmatch(name):
        raise InvalidSpecError(
            f"The job name {name!r} cannot be on Vertex AI. Use at most 63 lower-case letters, digits and '-'."
        )
    return {**further, MANAGED: BY, NAME: name, SPEC: short(digest)}


def short(digest: str) -> str:
    """Return the part of a ``sha256:<hex>`` that is kept as a label."""
    return digest.removeprefix("sha256:")[:_DIGEST]


def report_address(place: Place, name: str) -> str:
    """Return where the report of a job is kept.

    :raises InvalidSpecError: there is no staging bucket
    """
    if not place.staging:
        raise InvalidSpecError(
            "A job on Vertex AI needs a place in Cloud Storage for what it reports. Set the connection's extra "
            "'staging_bucket', such as 'gs://bucket/folder'."
        )
    return f"{checked(place.staging)}/{name}/report.json"


def custom_job(spec: TrainingSpec, name: str, owner: TaskIdentity, options: VertexOptions, place: Place) -> Json:
    """Return the CustomJob.

    :raises InvalidSpecError: the name or the spec cannot be a job on Vertex AI
    """
    pool: Json = {
        "machine_spec": machine_spec(spec.resources, options.accelerator_type),
        "replica_count": 1,
        "container_spec": {"image_uri": _image(spec), **_container(spec, name, owner, place)},
    }
    disk = {"boot_disk_type": options.boot_disk_type, "boot_disk_size_gb": options.boot_disk_size_gb}
    if any(disk.values()):
        pool["disk_spec"] = {key: value for key, value in disk.items() if value}
    others = [{**pool, "replica_count": spec.nodes - 1}] if spec.nodes > 1 else []
    base = spec.checkpoint or report_address(place, name).rpartition("/")[0]
    job_spec: Json = {
        "worker_pool_specs": [pool, *others],
        "scheduling": _scheduling(spec, options),
        "base_output_directory": {"output_uri_prefix": base},
        "service_account": options.service_account or place.service_account,
        "network": options.network or place.network,
        "reserved_ip_ranges": list(options.reserved_ip_ranges),
        "persistent_resource_id": options.persistent_resource_id,
        "tensorboard": options.tensorboard,
        "enable_web_access": options.enable_web_access,
    }
    job: Json = {
        "display_name": title(name, owner),
        "job_spec": {key: value for key, value in job_spec.items() if value not in ("", [], False)},
        "labels": labels(spec.digest(), name, options.labels),
    }
    return job | _encryption(options.kms_key_name)


def one_step_pipeline(spec: TrainingSpec, name: str, owner: TaskIdentity, options: VertexOptions, place: Place) -> Json:
    """Return a PipelineJob that does nothing but run the container once, never from its cache.

    https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.pipelineJobs

    :raises UnsupportedFeatureError: a field that a step of a pipeline does not have
    :raises InvalidSpecError: the name or the spec cannot be one
    """
    _refuse_for_pipelines(spec, options)
    container = {"image": _image(spec), **_container(spec, name, owner, place)}
    if "{{$" in json.dumps(container, ensure_ascii=False):
        raise InvalidSpecError("A command or variable holds '{{$', which a pipeline replaces. Use mode 'job'.")
    if found := _limits(spec, options):
        container["resources"] = found
    step = {
        "taskInfo": {"name": STEP},
        "componentRef": {"name": f"comp-{STEP}"},
        "cachingOptions": {"enableCache": False},
    }
    pipeline = {
        "pipelineInfo": {"name": name},
        "schemaVersion": "2.1.0",
        "sdkVersion": BY,
        "root": {"dag": {"tasks": {STEP: step}}},
        "components": {f"comp-{STEP}": {"executorLabel": f"exec-{STEP}"}},
        "deploymentSpec": {"executors": {f"exec-{STEP}": {"container": container}}},
    }
    job: Json = {
        "display_name": title(name, owner),
        "pipeline_spec": pipeline,
        "runtime_config": {"gcs_output_directory": report_address(place, name).rpartition("/")[0]},
        "labels": labels(spec.digest(), name, options.labels),
        "service_account": options.service_account or place.service_account,
        "network": options.network or place.network,
        "reserved_ip_ranges": list(options.reserved_ip_ranges),
    }
    return {key: value for key, value in job.items() if value} | _encryption(options.kms_key_name)


def title(name: str, owner: TaskIdentity) -> str:
    """Return what people see in lists: the stable name, and whose it is."""
    return f"{name} {owner.dag_id}.{owner.task_id}"[:128]


def variables(job: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables of the program in a job of either kind; none if it is another's."""
    pools = (job.get("job_spec") or {}).get("worker_pool_specs") or [{}]
    steps = ((job.get("pipeline_spec") or {}).get("deploymentSpec") or {}).get("executors") or {}
    container = pools[0].get("container_spec") or (steps.get(f"exec-{STEP}") or {}).get("container") or {}
    return {one["name"]: str(one.get("value", "")) for one in container.get("env") or []}


def _container(spec: TrainingSpec, name: str, owner: TaskIdentity, place: Place) -> Json:
    command, args = start_command(spec)
    report = report_address(place, name)
    env = environment(spec, name, owner, project=place.project, report=report)
    return {"command": command, "args": args, "env": env}


def _image(spec: TrainingSpec) -> str:
    if not spec.image:
        raise InvalidSpecError("A job on Vertex AI needs an image. Set image to one that holds the training program.")
    return spec.image


def _scheduling(spec: TrainingSpec, options: VertexOptions) -> Json:
    """Return how long and on what it runs. Whether to try again is our own driver's to say, unless options differ."""
    found: Json = {"disable_retries": options.disable_retries}
    if spec.spot:
        found["strategy"] = "SPOT"
    if spec.max_runtime is not None:
        found["timeout"] = {"seconds": max(1, math.ceil(spec.max_runtime))}
    return found


def _encryption(key: str) -> Json:
    return {"encryption_spec": {"kms_key_name": key}} if key else {}


def _limits(spec: TrainingSpec, options: VertexOptions) -> Json:
    """Return what the step's machine must have, memory in GB. Vertex AI chooses the machine."""
    wanted, found = spec.resources, {}
    accelerator = machine_spec(wanted, options.accelerator_type)
    if wanted.cpus is not None:
        found["cpuLimit"] = wanted.cpus
    if wanted.memory_mib is not None:
        found["memoryLimit"] = wanted.memory_mib * 1024**2 / 1e9
    limits: Json = dict(found)
    if wanted.gpus:
        limits["accelerator"] = {"count": str(wanted.gpus), "type": accelerator["accelerator_type"]}
    return limits


def _refuse_for_pipelines(spec: TrainingSpec, options: VertexOptions) -> None:
    asked = {
        "nodes": spec.nodes > 1,
        "spot": spec.spot,
        "max_runtime": spec.max_runtime is not None,
        "resources.instance_type": bool(spec.resources.instance_type),
        "options.boot_disk_type": bool(options.boot_disk_type),
        "options.boot_disk_size_gb": bool(options.boot_disk_size_gb),
        "options.persistent_resource_id": bool(options.persistent_resource_id),
        "options.tensorboard": bool(options.tensorboard),
        "options.enable_web_access": options.enable_web_access,
        "options.disable_retries": not options.disable_retries,
    }
    for name, is_asked in asked.items():
        if is_asked:
            raise UnsupportedFeatureError(
                "vertex", name, "with options {'mode': 'pipeline'} the job is a step of a pipeline, which has none"
            )
