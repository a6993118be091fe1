"""From a TrainJob and its runtime to the Job that the Trainer and JobSet make of it together. Pure.

Source: https://github.com/kubeflow/trainer/tree/v2.3.0/pkg/runtime (``newRuntimeInfo``, the torch and JobSet plugins)
and ``constructJob`` of https://github.com/kubernetes-sigs/jobset/tree/v0.12.0. The JobSet between the two is not kept.
"""

from __future__ import annotations

import copy
import hashlib
import math
import uuid
from collections.abc import Iterable
from typing import Any

from airflow_mlops.testing.kubernetes.defaults import COMPLETION_INDEX
from airflow_mlops.testing.kubernetes.problems import Json
from airflow_mlops.testing.kubernetes.trainer_admission import NODE

JOB_SET = "jobset.sigs.k8s.io"
PORT = 29500


def job_name(train_job: Json) -> str:
    """Return the name of the one Job of a TrainJob."""
    return f"{train_job['metadata']['name']}-{NODE}-0"


def job_of(train_job: Json, runtime: Json) -> Json:
    """Return the Job, complete but for the server's own defaults."""
    name, template = train_job["metadata"]["name"], runtime["spec"]["template"]
    made = _patched(copy.deepcopy(template["spec"]["replicatedJobs"][0]["template"]), train_job)
    spec, nodes = made["spec"], _nodes(train_job, runtime)
    spec |= {"parallelism": nodes, "completions": nodes, "suspend": train_job["spec"]["suspend"]}
    spec.setdefault("completionMode", "Indexed")
    pod = spec["template"]["spec"]
    pod["subdomain"] = template["spec"].get("network", {}).get("subdomain") or name
    _train(pod["containers"][0], train_job, runtime, nodes)
    ties, owner = _ties(train_job), job_set_uid(train_job)
    for metadata in (made.setdefault("metadata", {}), spec["template"].setdefault("metadata", {})):
        for key in ("labels", "annotations"):
            metadata[key] = (metadata.get(key) or {}) | ties
    made["metadata"] |= {"name": job_name(train_job), "namespace": train_job["metadata"]["namespace"]}
    reference = {"apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet", "name": name, "uid": owner}
    made["metadata"]["ownerReferences"] = [reference | {"controller": True, "blockOwnerDeletion": True}]
    return made


def belongs(job: Json, train_job: Json) -> bool:
    """Say whether a Job was made of this very TrainJob, and not of one of the same name before it."""
    return any(owner["uid"] == job_set_uid(train_job) for owner in job["metadata"].get("ownerReferences", []))


def job_set_uid(train_job: Json) -> str:
    """Return the identity of the JobSet between the TrainJob and its Job."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, train_job["metadata"]["uid"]))


def _nodes(train_job: Json, runtime: Json) -> int:
    default = runtime["spec"].get("mlPolicy", {}).get("numNodes", 1)
    return int(train_job["spec"].get("trainer", {}).get("numNodes", default))


def _train(container: Json, train_job: Json, runtime: Json, nodes: int) -> None:
    """Put what the TrainJob's trainer says into the container called ``node``."""
    trainer = train_job["spec"].get("trainer", {})
    container |= {key: trainer[key] for key in ("image", "command", "args") if key in trainer}
    resources = container.setdefault("resources", {})
    for key, value in trainer.get("resourcesPerNode", {}).items():
        resources[key] = {**resources.get(key, {}), **value} if isinstance(value, dict) else value
    container["env"] = _upserted(container.get("env") or [], trainer.get("env", []))
    if "torch" in runtime["spec"].get("mlPolicy", {}):
        container["env"] = _upserted(container["env"], _torch(train_job, nodes, resources))
        container["ports"] = [*(container.get("ports") or []), {"containerPort": PORT}]


def _processes(resources: Json) -> int | str:
    """Return how many processes torch starts on a node: one a processor core, unless there are GPUs."""
    asked = {**resources.get("limits", {}), **resources.get("requests", {})}
    if any("gpu" in name.lower() for name in asked):
        return "auto"
    cpus = str(asked.get("cpu", "1"))
    return max(1, math.ceil(float(cpus[:-1]) / 1000 if cpus.endswith("m") else float(cpus)))


def _torch(train_job: Json, nodes: int, resources: Json) -> list[Json]:
    name = train_job["metadata"]["name"]
    per_node = train_job["spec"].get("trainer", {}).get("numProcPerNode") or _processes(resources)
    rank = {"fieldRef": {"fieldPath": f"metadata.annotations['{COMPLETION_INDEX}']"}}
    return [
        {"name": "PET_NNODES", "value": str(nodes)},
        {"name": "PET_NPROC_PER_NODE", "value": str(per_node)},
        {"name": "PET_NODE_RANK", "valueFrom": rank},
        {"name": "PET_MASTER_ADDR", "value": f"{name}-{NODE}-0-0.{name}"},
        {"name": "PET_MASTER_PORT", "value": str(PORT)},
    ]


def _patched(template: Json, train_job: Json) -> Json:
    """Merge the runtime patches into the template of the Job."""
    for patch in train_job["spec"].get("runtimePatches", []):
        jobs = patch.get("trainingRuntimeSpec", {}).get("template", {}).get("spec", {}).get("replicatedJobs", [])
        for job in jobs:
            template = _merged(template, job.get("template", {}))
    return template


def _merged(old: Any, new: Any) -> Any:
    """Merge as a strategic merge patch does: objects by key, lists of named things by name, other lists replaced."""
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **{key: _merged(old.get(key), value) for key, value in new.items()}}
    for key in ("mountPath", "name"):
        if _is_keyed(old, key) and _is_keyed(new, key):
            before = {one[key]: one for one in old}
            return _upserted(old, [_merged(before.get(one[key], {}), one) for one in new], key)
    return copy.deepcopy(new)


def _is_keyed(value: Any, key: str) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) and key in one for one in value)


def _upserted(old: Iterable[Json], new: Iterable[Json], key: str = "name") -> list[Json]:
    """Return *old* with what *new* has under the same keys, and then the rest of *new*."""
    merged = {one[key]: one for one in old}
    return list((merged | {one[key]: one for one in new}).values())


def _ties(train_job: Json) -> dict[str, str]:
    """Return what JobSet writes on the Job and on its pods, as labels and as annotations."""
    metadata = train_job["metadata"]
    key = hashlib.sha1(f"{metadata['namespace']}/{job_name(train_job)}".encode(), usedforsecurity=False).hexdigest()
    values = {
        "jobset-name": metadata["name"],
        "jobset-uid": job_set_uid(train_job),
        "replicatedjob-name": NODE,
        "replicatedjob-replicas": "1",
        "global-replicas": "1",
        "restart-attempt": "0",
        "job-index": "0",
        "job-global-index": "0",
        "job-key": key,
        "group-name": "default",
        "group-replicas": "1",
        "job-group-index": "0",
    }
    return {f"{JOB_SET}/{name}": value for name, value in values.items()}
