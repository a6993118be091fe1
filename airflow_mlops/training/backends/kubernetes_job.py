"""From a training spec to the objects on the cluster: the Job, the Secret and the headless Service it owns. Pure.

The Job comes first and says all; the others belong to it and go with it. A Secret holds the values of the worker, so
that the Job shows only their names.

Jobs: https://kubernetes.io/docs/concepts/workloads/controllers/job/
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.training.backends.kubernetes_pod import MASTER_PORT, PodOptions, pod_template
from airflow_mlops.training.contract import TrainingSpec

Json = dict[str, Any]

MANAGED = {"app.kubernetes.io/managed-by": "airflow-mlops"}
"""On every object we make."""

SELECTOR = ",".join(f"{key}={value}" for key, value in MANAGED.items())
OWNER, SPEC, DATA = "airflow-mlops/owner", "airflow-mlops/spec", "airflow-mlops/data"
"""Annotations: the task that owns the job, the digest of its spec, the data versions it is trained on."""

CANCELLED = "airflow-mlops/cancelled"
"""Annotation that is written when we stop a job: how it then ends is CANCELLED."""

CANCEL = {"metadata": {"annotations": {CANCELLED: "true"}}, "spec": {"activeDeadlineSeconds": 1}}
"""The patch that stops a Job: its controller ends the pods, and the Job stays for the record."""

JOB_NAME = "batch.kubernetes.io/job-name"
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_LONGEST_NAME = 60  # a pod's host is the name with "-<index>", which has 63 characters at most


def job_body(spec: TrainingSpec, name: str, owner: TaskIdentity, options: PodOptions) -> Json:
    """Return the Job.

    :raises InvalidSpecError: the name or the spec cannot be a Job
    """
    if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
        raise InvalidSpecError(
            f"The job name {name!r} cannot be a Job. Use at most {_LONGEST_NAME} lower-case letters, digits and '-'."
        )
    body: Json = {
        "completionMode": "Indexed",
        "completions": spec.nodes,
        "parallelism": spec.nodes,
        "backoffLimit": 0,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": failure_policy(spec),
        "ttlSecondsAfterFinished": options.ttl_seconds_after_finished,
        "template": pod_template(spec, name, options, labels=MANAGED, annotations={}),
    }
    if spec.max_runtime is not None:
        body["activeDeadlineSeconds"] = max(1, math.ceil(spec.max_runtime))
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata(spec, name, owner, options), "spec": body}


def metadata(spec: TrainingSpec, name: str, owner: TaskIdentity, options: PodOptions) -> Json:
    """Return who owns an object and what it stands for, as labels and annotations."""
    data = {key: version.to_dict() for key, version in spec.inputs.items()}
    own = {OWNER: _compact(owner.to_dict()), SPEC: spec.digest(), DATA: _compact(data)}
    labels = {**options.labels, **MANAGED}
    return {"name": name, "labels": labels, "annotations": {**options.annotations, **own}}


def failure_policy(spec: TrainingSpec) -> Json:
    """Return what a pod means that the cluster takes away: the end of this attempt, or just another pod.

    With one node that nobody said may be taken away, Kubernetes replaces the pod by itself. Otherwise our own driver
    starts the next attempt, which counts, and all nodes begin together.
    """
    action = "FailJob" if spec.spot or spec.nodes > 1 else "Ignore"
    return {"rules": [{"action": action, "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]}


def secret_body(job: Json, values: Mapping[str, str]) -> Json:
    """Return the Secret of a Job with the worker's *values*."""
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": _owned(job), "type": "Opaque", "data": data}


def service_body(job: Json) -> Json:
    """Return the headless Service that gives each pod of a Job its name, also before all are ready.

    https://kubernetes.io/docs/concepts/workloads/controllers/job/#completion-mode
    """
    name = job["metadata"]["name"]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _owned(job),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {JOB_NAME: name},
            "ports": [{"name": "master", "port": MASTER_PORT}],
        },
    }


def read_annotation(job: Json, name: str) -> dict[str, Any]:
    """Return the JSON object of an annotation; an empty one if it is absent or was written by somebody else."""
    try:
        found = json.loads((job["metadata"].get("annotations") or {}).get(name, "{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _owned(job: Json) -> Json:
    name, uid = job["metadata"]["name"], job["metadata"]["uid"]
    kind = {"apiVersion": job.get("apiVersion", "batch/v1"), "kind": job.get("kind", "Job")}
    owner = {**kind, "name": name, "uid": uid}
    return {"name": name, "labels": dict(MANAGED), "ownerReferences": [owner]}


def _compact(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
