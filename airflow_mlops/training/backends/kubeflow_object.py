"""From a training spec to a TrainJob of Kubeflow Trainer. Pure; no value of a secret ever comes here.

The runtime that a TrainJob refers to holds the rest of what runs: how often a program that failed is started again, and
what becomes of the job when a node is taken away. A TrainJob cannot say either.

https://github.com/kubeflow/trainer/blob/v2.3.0/pkg/apis/trainer/v1alpha1/trainjob_types.go
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from airflow_mlops.core.errors import InvalidSpecError, UnsupportedFeatureError, close_match
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.core.records import Record
from airflow_mlops.training import launch
from airflow_mlops.training.backends import kubernetes_pod as pods
from airflow_mlops.training.backends.kubeflow_status import is_ours
from airflow_mlops.training.backends.kubernetes_job import CANCELLED, MANAGED, metadata
from airflow_mlops.training.backends.kubernetes_volumes import CheckpointPlace, checkpoint_place
from airflow_mlops.training.contract import TrainingSpec

Json = dict[str, Any]

API_VERSION, KIND = "trainer.kubeflow.org/v1alpha1", "TrainJob"
NODE = "node"
"""The replicated job and the container in which a runtime's trainer runs."""
MANAGER = "airflow-mlops/training"
LONGEST_NAME = 35
"""JobSet, Job and pods add up to 28 characters to the name, and 63 are allowed."""

_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
JOB_SET = "jobset.sigs.k8s.io/jobset-name"
"""Label of the pods of a TrainJob, with its name."""
QUEUE = "kueue.x-k8s.io/queue-name"
"""Label of what Kueue starts, stops and resumes: https://kueue.sigs.k8s.io/docs/tasks/run/trainjobs/"""

CANCEL = {"metadata": {"annotations": {CANCELLED: "true"}}, "spec": {"suspend": True}}
"""The patch that stops a TrainJob: its controllers end the pods, and it stays for the record."""

REFUSED = {
    "priority_class": "a TrainJob cannot set it; set priorityClassName in the runtime",
    "ttl_seconds_after_finished": "a TrainJob stays until it is deleted",
    "fetch_image": "a TrainJob cannot add an init container; fetch the input in a task before, or in the program",
    "fetch_secret": "a TrainJob cannot add an init container; fetch the input in a task before, or in the program",
}
"""Options of the Kubernetes backend that the API cannot carry, and what to do instead."""


@dataclass(frozen=True)
class TrainerOptions(Record):
    """What ``TrainingSpec.options`` may say besides the options of the Kubernetes backend.

    :param runtime: name of the runtime
    :param runtime_kind: ``ClusterTrainingRuntime``, or ``TrainingRuntime`` of the job's namespace
    :param num_proc_per_node: processes a node, for runtimes that start them; 0 leaves it to the runtime
    """

    runtime: str = "torch-distributed"
    runtime_kind: str = "ClusterTrainingRuntime"
    num_proc_per_node: int = 0


RUNTIMES = {"ClusterTrainingRuntime": ("clustertrainingruntimes", True), "TrainingRuntime": ("trainingruntimes", False)}
"""Kinds of runtimes: how their addresses name them, and whether they are the cluster's."""


def read_options(
    backend: str, given: Mapping[str, Any], defaults: Mapping[str, Any]
) -> tuple[TrainerOptions, pods.PodOptions]:
    """Return the options of a spec: those of the TrainJob on top of the connection's, and those of its pods.

    :raises InvalidSpecError: one is unknown or not of the right kind
    :raises UnsupportedFeatureError: a TrainJob cannot carry it
    """
    own = [field.name for field in fields(TrainerOptions)]
    known = [*own, *(field.name for field in fields(pods.PodOptions) if field.name not in REFUSED)]
    for name in given:
        if name in REFUSED:
            raise UnsupportedFeatureError(backend, f"options.{name}", REFUSED[name])
        if name not in known:
            told = f"{backend!r} has no option {name!r}: {close_match(name, known)}It has {', '.join(known)}."
            raise InvalidSpecError(told)
    of_job = {**defaults, **{name: value for name, value in given.items() if name in own}}
    _check(backend, of_job)
    of_pods = {name: value for name, value in given.items() if name not in own}
    return TrainerOptions.from_dict(of_job), pods.read_options(backend, of_pods)


def _check(backend: str, given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        default = getattr(TrainerOptions(), name)
        if not isinstance(value, type(default)) or isinstance(value, bool):
            raise InvalidSpecError(f"Option {name!r} of {backend!r} is {value!r}, not such as {default!r}.")
    kind = given.get("runtime_kind", TrainerOptions.runtime_kind)
    if kind not in RUNTIMES:
        raise InvalidSpecError(f"Option 'runtime_kind' is {kind!r}: give one of {', '.join(RUNTIMES)}.")


def train_job(
    spec: TrainingSpec, name: str, owner: TaskIdentity, options: tuple[TrainerOptions, pods.PodOptions]
) -> Json:
    """Return the TrainJob called *name*.

    :raises InvalidSpecError: the name or the spec cannot be a TrainJob
    """
    if not _NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        raise InvalidSpecError(
            f"The job name {name!r} cannot be a TrainJob. Use at most {LONGEST_NAME} lower-case letters, digits and "
            "'-', with a letter first: its pods get longer names."
        )
    own, pod = options
    place = checkpoint_place(spec.checkpoint)
    body: Json = {
        "runtimeRef": {"name": own.runtime, "kind": own.runtime_kind, "apiGroup": API_VERSION.partition("/")[0]},
        "trainer": _trainer(spec, options, _environment(spec, name, place)),
        "runtimePatches": [_patch(spec, pod, place)],
    }
    if spec.max_runtime is not None:
        body["activeDeadlineSeconds"] = max(1, math.ceil(spec.max_runtime))
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata(spec, name, owner, pod), "spec": body}


def set_subdomain(train_job: Json, subdomain: str) -> None:
    """Change the host of node 0 in place, if the runtime gives its nodes a subdomain of its own."""
    name = train_job["metadata"]["name"]
    for variable in train_job["spec"]["trainer"]["env"] if subdomain else ():
        if variable["name"] == launch.MASTER_ADDR and variable["value"] == _master(name, name):
            variable["value"] = _master(name, subdomain)


def is_queued(train_job: Json) -> bool:
    """Say whether somebody else decides when it runs, and would resume what we suspend."""
    labels = train_job["metadata"].get("labels") or {}
    is_suspended_by_others = train_job["spec"].get("suspend") and not is_ours(train_job)
    return QUEUE in labels or bool(is_suspended_by_others)


def _trainer(spec: TrainingSpec, options: tuple[TrainerOptions, pods.PodOptions], env: list[Json]) -> Json:
    own, pod = options
    words = [pods.escaped(word) for word in launch.command_line(spec)]
    found: Json = {
        "image": spec.image,
        "command": words[: len(spec.command)],
        "args": words[len(spec.command) :],
        "env": env,
        "numNodes": spec.nodes,
        "numProcPerNode": own.num_proc_per_node,
        "resourcesPerNode": pods.resources(spec, pod),
    }
    return {key: value for key, value in found.items() if value or key == "args"}


def _environment(spec: TrainingSpec, name: str, place: CheckpointPlace | None) -> list[Json]:
    """Return what the Kubernetes backend says, but for the host of node 0: it has the names that JobSet gives."""
    variables = {one["name"]: one for one in pods.environment(spec, name, place)}  # the API takes a name only once
    if spec.nodes > 1:
        variables[launch.MASTER_ADDR] = {"name": launch.MASTER_ADDR, "value": _master(name, name)}
    return list(variables.values())


def _master(name: str, subdomain: str) -> str:
    """Return the host of node 0, as JobSet names it."""
    return f"{name}-{NODE}-0-0.{subdomain}"


def _patch(spec: TrainingSpec, pod: pods.PodOptions, place: CheckpointPlace | None) -> Json:
    """Return our patch of the runtime: labels on the pods, and where and with which volumes they run."""
    of_pods: Json = {"labels": {**pod.labels, **MANAGED}}
    if pod.annotations:
        of_pods["annotations"] = dict(pod.annotations)
    body: Json = pods.placement(spec, pod)
    if volumes := pods.volumes(pod, place, ()):
        body["volumes"] = volumes
    if mounts := pods.mounts(pod, place, ()):
        _refuse_twice(mounts)
        body["containers"] = [{"name": NODE, "volumeMounts": mounts}]
    template: Json = {"metadata": of_pods, **({"spec": body} if body else {})}
    job = {"name": NODE, "template": {"spec": {"template": template}}}
    return {"manager": MANAGER, "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [job]}}}}


def _refuse_twice(mounts: list[Json]) -> None:
    """Refuse what the API, unlike that of pods, cannot say: one volume at two paths."""
    names = [mount.get("name") for mount in mounts]
    if len(names) > len(set(names)):
        told = "a TrainJob mounts each volume only once; give the volume a second time under another name"
        raise UnsupportedFeatureError("kubeflow", "options.volume_mounts", told)
