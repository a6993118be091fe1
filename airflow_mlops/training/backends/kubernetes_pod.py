"""From a training spec to what a pod runs: container, environment, resources, volumes, placement. Pure.

Other backends whose jobs end in pods take the parts: :func:`read_options`, :func:`environment`, :func:`resources`,
:func:`volumes`, :func:`init_containers`, :func:`placement`. No value of a secret ever comes here, only its name.

Pods: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_mlops.core.errors import InvalidSpecError, close_match
from airflow_mlops.core.records import Record
from airflow_mlops.training import launch
from airflow_mlops.training.backends.kubernetes_volumes import CheckpointPlace, Fetch, checkpoint_place, fetches
from airflow_mlops.training.contract import TrainingSpec

Json = dict[str, Any]

CONTAINER = "main"
OUTPUT_FILE = "/dev/termination-log"
"""Where the program reports to. The kubelet puts at most 4096 bytes of it into the pod's status.

https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/
"""

INDEX = "batch.kubernetes.io/job-completion-index"
MASTER_PORT = 29500
INSTANCE_TYPE = "node.kubernetes.io/instance-type"
WEEK = 7 * 24 * 3600


@dataclass(frozen=True)
class PodOptions(Record):
    """What ``TrainingSpec.options`` may say; the names of fields are those of Kubernetes in Python's spelling.

    :param node_selector: labels a node must have; with ``tolerations`` it leads to nodes that may be taken away
    :param volumes: as in a pod's spec, with ``volume_mounts`` of the container
    :param image_pull_secrets: names of Secrets
    :param labels: further labels of the job and its pods
    :param annotations: further annotations of the job and its pods
    :param ttl_seconds_after_finished: how long a finished job and its pods stay for the record
    :param gpu_resource: the resource that ``resources.gpus`` counts
    :param fetch_image: image with git and dvc, which fetches inputs that are data versions before the program starts
    :param fetch_secret: Secret whose keys are the variables with which it gets in
    """

    service_account: str = ""
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, Any], ...] = ()
    volumes: tuple[Mapping[str, Any], ...] = ()
    volume_mounts: tuple[Mapping[str, Any], ...] = ()
    image_pull_secrets: tuple[str, ...] = ()
    priority_class: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    ttl_seconds_after_finished: int = WEEK
    gpu_resource: str = "nvidia.com/gpu"
    fetch_image: str = ""
    fetch_secret: str = ""


def read_options(backend: str, options: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> PodOptions:
    """Return the options of a spec, on top of *defaults*.

    :raises InvalidSpecError: one is unknown, or not of the right kind
    """
    known = list(PodOptions.__dataclass_fields__)
    for name, value in options.items():
        if name not in known:
            raise InvalidSpecError(
                f"{backend!r} has no option {name!r}: {close_match(name, known)}It has {', '.join(known)}."
            )
        default = getattr(PodOptions(), name)
        wanted = (list, tuple) if isinstance(default, tuple) else Mapping if isinstance(default, Mapping) else None
        wanted = wanted or type(default)
        if not isinstance(value, wanted):
            raise InvalidSpecError(f"Option {name!r} of {backend!r} is {value!r}, not such as {default!r}.")
    return PodOptions.from_dict({**(defaults or {}), **options})


def pod_template(
    spec: TrainingSpec, name: str, options: PodOptions, *, labels: Mapping[str, str], annotations: Mapping[str, str]
) -> Json:
    """Return the template of the job's pods: one container called ``main`` that runs *spec*, and never restarts.

    :param name: the job's name, which is also that of the Secret with the worker's values and of the Service
    :raises InvalidSpecError: the spec cannot be a pod
    """
    if not spec.image:
        raise InvalidSpecError("A job on Kubernetes needs an image. Set image to one that holds the training program.")
    place, wanted = checkpoint_place(spec.checkpoint), fetches(spec, options.fetch_image)
    words = [escaped(word) for word in launch.command_line(spec)]
    container: Json = {
        "name": CONTAINER,
        "image": spec.image,
        "command": words[: len(spec.command)],
        "args": words[len(spec.command) :],
        "env": environment(spec, name, place, wanted),
        "resources": resources(spec, options),
        "terminationMessagePath": OUTPUT_FILE,
        "terminationMessagePolicy": "File",
        "volumeMounts": mounts(options, place, wanted),
    }
    pod: Json = {
        "restartPolicy": "Never",
        "containers": [container],
        "initContainers": init_containers(options, wanted),
        "volumes": volumes(options, place, wanted),
        **placement(spec, options),
    }
    if spec.nodes > 1:
        pod["subdomain"] = name
    metadata = {"labels": {**options.labels, **labels}, "annotations": {**options.annotations, **annotations}}
    return {"metadata": metadata, "spec": {key: value for key, value in pod.items() if value not in ([], {}, "")}}


def environment(
    spec: TrainingSpec, name: str, place: CheckpointPlace | None = None, wanted: tuple[Fetch, ...] = ()
) -> list[Json]:
    """Return the container's variables: the spec's, ours, those from Secrets, and the place in the world."""
    own = {launch.JOB_NAME: name, launch.OUTPUT: OUTPUT_FILE}
    if place is not None:
        own[launch.CHECKPOINT_DIR] = place.path
    plain = {"PYTHONUNBUFFERED": "1", **spec.env, **{fetch.variable: fetch.path for fetch in wanted}, **own}
    values = [{"name": key, "value": escaped(str(value))} for key, value in plain.items() if key not in spec.secret_env]
    return [*values, *secret_variables(spec, name), *world(spec.nodes, name)]


def secret_variables(spec: TrainingSpec, name: str) -> list[Json]:
    """Return the variables that come from Secrets: ``<secret>/<key>`` is one that exists, a bare name is in *name*."""
    found = []
    for variable, secret in spec.secret_env.items():
        holder, slash, key = secret.partition("/")
        reference = {"name": holder, "key": key} if slash else {"name": name, "key": variable}
        found.append({"name": variable, "valueFrom": {"secretKeyRef": reference}})
    return found


def worker_secrets(spec: TrainingSpec) -> dict[str, str]:
    """Return, of ``secret_env``, those that are variables of the worker: they go into a Secret that the job owns."""
    return {variable: secret for variable, secret in spec.secret_env.items() if "/" not in secret}


def world(nodes: int, name: str) -> list[Json]:
    """Return the variables of distributed training. The rank is the pod's index in an Indexed Job."""
    master = f"{name}-0.{name}" if nodes > 1 else "127.0.0.1"
    plain = {launch.NODES: str(nodes), launch.MASTER_ADDR: master, launch.MASTER_PORT: str(MASTER_PORT)}
    rank = {"name": launch.NODE_RANK, "valueFrom": {"fieldRef": {"fieldPath": f"metadata.annotations['{INDEX}']"}}}
    return [*({"name": key, "value": value} for key, value in plain.items()), rank]


def resources(spec: TrainingSpec, options: PodOptions) -> Json:
    """Return requests and limits. More memory than asked for is never used up unseen: the request is the limit too."""
    wanted, requests, limits = spec.resources, {}, {}
    if wanted.cpus is not None:
        requests["cpu"] = f"{round(wanted.cpus * 1000)}m"
    if wanted.memory_mib is not None:
        requests["memory"] = limits["memory"] = f"{wanted.memory_mib}Mi"
    if wanted.gpus:
        limits[options.gpu_resource] = str(wanted.gpus)
    return {key: value for key, value in (("requests", requests), ("limits", limits)) if value}


def placement(spec: TrainingSpec, options: PodOptions) -> Json:
    """Return the fields that say where and as whom the pod runs. Empty ones are left out by who uses it."""
    machine = {INSTANCE_TYPE: spec.resources.instance_type} if spec.resources.instance_type else {}
    found: Json = {
        "serviceAccountName": options.service_account,
        "nodeSelector": {**options.node_selector, **machine},
        "tolerations": [dict(one) for one in options.tolerations],
        "imagePullSecrets": [{"name": secret} for secret in options.image_pull_secrets],
        "priorityClassName": options.priority_class,
    }
    return {key: value for key, value in found.items() if value}


def volumes(options: PodOptions, place: CheckpointPlace | None, wanted: tuple[Fetch, ...]) -> list[Json]:
    """Return the pod's volumes: the options', the claim for checkpoints, an empty folder for fetched inputs."""
    own = ([place.volume] if place and place.volume else []) + ([Fetch.VOLUME] if wanted else [])
    return [*(dict(volume) for volume in options.volumes), *own]


def mounts(options: PodOptions, place: CheckpointPlace | None, wanted: tuple[Fetch, ...]) -> list[Json]:
    """Return where the container sees them."""
    own = ([place.mount] if place and place.mount else []) + ([Fetch.MOUNT] if wanted else [])
    return [*(dict(mount) for mount in options.volume_mounts), *own]


def init_containers(options: PodOptions, wanted: tuple[Fetch, ...]) -> list[Json]:
    """Return one container an input, which fetch them one after the other before the program starts."""
    source = [{"secretRef": {"name": options.fetch_secret}}] if options.fetch_secret else []
    return [
        {
            "name": f"fetch-{number}",
            "image": options.fetch_image,
            "command": fetch_command(fetch),
            "env": [{"name": fetch.variable, "value": fetch.path}],
            **({"envFrom": source} if source else {}),
            "volumeMounts": [Fetch.MOUNT],
        }
        for number, fetch in enumerate(wanted)
    ]


def fetch_command(fetch: Fetch) -> list[str]:
    """Return ``dvc get``: https://doc.dvc.org/command-reference/get. Kubernetes replaces the reference in it."""
    where = ["--rev", fetch.version.commit, "--out", f"$({fetch.variable})"]
    return ["dvc", "get", *where, "--", escaped(fetch.version.repo), escaped(fetch.version.path)]


def escaped(text: str) -> str:
    """Return what Kubernetes turns into *text* when it replaces ``$(NAME)`` in commands and variables."""
    return re.sub(r"\$(?=[$(])", "$$", text)
