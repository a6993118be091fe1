"""What Vertex AI demands of a job beyond its message: sizes, names, and fields that belong together."""

from __future__ import annotations

import re
from typing import Any

from airflow_mlops.testing.vertex.problems import Problem, bad

LABEL_KEY, LABEL_VALUE = re.compile(r"[a-z][a-z0-9_-]{0,62}"), re.compile(r"[a-z0-9_-]{0,63}")
PIPELINE_JOB_ID = re.compile(r"[a-z][-a-z0-9]{0,126}")
MOST_LABELS, MOST_VARIABLES, LONGEST_NAME = 64, 100, 128
BUCKET = re.compile(r"gs://[a-z0-9][a-z0-9._-]*[a-z0-9](/.*)?")


def check_custom_job(job: Any) -> None:
    """Refuse a CustomJob that the service would refuse.

    :raises Problem: what is wrong
    """
    _check_common(job)
    spec = job.job_spec
    for number, pool in enumerate(spec.worker_pool_specs):
        _check_pool(pool, number)
    base = spec.base_output_directory.output_uri_prefix
    if base and not BUCKET.fullmatch(base):
        raise bad(f"base_output_directory.output_uri_prefix: {base} is no Cloud Storage URI.")
    if spec.tensorboard and not spec.service_account:
        raise bad("A service account is required when a Tensorboard is specified.")
    if spec.scheduling.timeout.seconds < 0:
        raise bad("scheduling.timeout must be positive.")


def check_pipeline_job(job: Any, job_id: str) -> None:
    """Refuse a PipelineJob that the service would refuse.

    :raises Problem: what is wrong
    """
    _check_common(job)
    if not PIPELINE_JOB_ID.fullmatch(job_id):
        raise bad(f"pipeline_job_id {job_id} is invalid: use less than 128 of a-z, 0-9 and -.")
    if not BUCKET.fullmatch(job.runtime_config.gcs_output_directory):
        raise bad(f"gcs_output_directory {job.runtime_config.gcs_output_directory} is no Cloud Storage URI.")
    if not job.template_uri and not job.pipeline_spec.fields:
        raise bad("Either pipeline_spec or template_uri is required.")


def _check_common(job: Any) -> None:
    if len(job.display_name) > LONGEST_NAME:
        raise bad(f"display_name has more than {LONGEST_NAME} characters.")
    if len(job.labels) > MOST_LABELS:
        raise bad(f"There are more than {MOST_LABELS} labels.")
    for key, value in job.labels.items():
        if not LABEL_KEY.fullmatch(key) or not LABEL_VALUE.fullmatch(value):
            raise bad(f"Label {key}={value} is invalid.")


def _check_pool(pool: Any, number: int) -> None:
    where = f"worker_pool_specs[{number}]"
    if pool.WhichOneof("task") != "container_spec":
        raise Problem("UNIMPLEMENTED", f"The Vertex AI fake runs containers only: {where}.")
    if not pool.machine_spec.machine_type:
        raise bad(f"{where}.machine_spec.machine_type is required.")
    if bool(pool.machine_spec.accelerator_count) != bool(pool.machine_spec.accelerator_type):
        raise bad(f"{where}.machine_spec: accelerator_type and accelerator_count belong together.")
    if number == 0 and pool.replica_count != 1:
        raise bad("The first worker pool must have exactly one replica.")
    if pool.replica_count < 1:
        raise bad(f"{where}.replica_count must be positive.")
    names = [variable.name for variable in pool.container_spec.env]
    if len(names) > MOST_VARIABLES or len(set(names)) != len(names):
        raise bad(f"{where}.container_spec.env: at most {MOST_VARIABLES} variables, each once.")
