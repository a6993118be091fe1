"""From a training spec to the description of a command job of Azure Machine Learning. Pure.

Vendor page: https://learn.microsoft.com/rest/api/azureml/jobs/create-or-update?view=rest-azureml-2024-10-01#commandjob
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_mlops.core.errors import InvalidSpecError, UnsupportedFeatureError, close_match
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.core.records import Record
from airflow_mlops.training import launch
from airflow_mlops.training.backends.azureml_marks import DATA, TAG, marks, written
from airflow_mlops.training.backends.azureml_start import CHECKPOINT_OUTPUT, MPI, PYTORCH, TENSORFLOW, start_line
from airflow_mlops.training.contract import TrainingSpec

Json = dict[str, Any]

MASTER_PORT = "29500"
EXPERIMENT = "airflow-mlops"
ENVIRONMENT = "airflow-mlops"
"""Name of the environments that stand for an image each; the version is made from the image."""

IDENTITIES = {"": None, "managed": "Managed", "user": "UserIdentity", "aml_token": "AMLToken"}
"""https://learn.microsoft.com/azure/machine-learning/how-to-identity-based-service-authentication"""

DISTRIBUTIONS = (PYTORCH, MPI, TENSORFLOW)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,254}")
_DATASTORE = "azureml://"


@dataclass(frozen=True)
class AzureMLOptions(Record):
    """What ``TrainingSpec.options`` may say.

    :param compute: compute target of the workspace; without one the job is serverless
    :param spot_compute: compute target of low priority, for ``spot``; without ``compute`` none is needed
    :param experiment: experiment of the studio that the job is shown in
    :param identity: whom the program is to Azure: ``managed``, ``user`` or ``aml_token``; else Azure chooses
    :param identity_client_id: which managed identity, where the compute has several
    :param distribution: how several nodes find each other: ``pytorch``, ``mpi`` or ``tensorflow``
    :param shm_size: shared memory of the container, such as ``2g``
    :param tags: further tags of the job
    """

    compute: str = ""
    spot_compute: str = ""
    experiment: str = EXPERIMENT
    identity: str = ""
    identity_client_id: str = ""
    distribution: str = PYTORCH
    shm_size: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


def read_options(backend: str, options: Mapping[str, Any], defaults: Mapping[str, str]) -> AzureMLOptions:
    """Return the options of a spec, on top of the connection's *defaults*.

    :raises InvalidSpecError: one is unknown, of another type, or none of its words
    """
    known = list(AzureMLOptions.__dataclass_fields__)
    for name, value in options.items():
        if name not in known:
            raise InvalidSpecError(
                f"{backend!r} has no option {name!r}: {close_match(name, known)}It has {', '.join(known)}."
            )
        if not isinstance(value, Mapping if name == "tags" else str):
            raise InvalidSpecError(
                f"Option {name!r} of {backend!r} is {value!r}, not {'a mapping' if name == 'tags' else 'text'}."
            )
    found = AzureMLOptions.from_dict({**defaults, **options})
    for name, value, words in (
        ("identity", found.identity, IDENTITIES),
        ("distribution", found.distribution, DISTRIBUTIONS),
    ):
        if value not in words:
            raise InvalidSpecError(
                f"Option {name!r} is {value!r}: {close_match(value, words)}It is one of {list(words)}."
            )
    return found


def refuse_sizes(backend: str, spec: TrainingSpec) -> None:
    """Refuse fields that only the machine type can give.

    :raises UnsupportedFeatureError: naming the field
    """
    for name, value in (("cpus", spec.resources.cpus), ("memory_mib", spec.resources.memory_mib)):
        if value is not None:
            raise UnsupportedFeatureError(backend, f"resources.{name}", "the machine type decides; set instance_type")


def check_name(name: str) -> None:
    """Refuse a name that a job cannot have.

    :raises InvalidSpecError: naming the rule
    """
    if not _NAME.fullmatch(name):
        raise InvalidSpecError(f"The job name {name!r} cannot be one. Use up to 255 letters, digits, '-' and '_'.")


def command_job(
    spec: TrainingSpec, name: str, owner: TaskIdentity, options: AzureMLOptions, *, workspace: str, vault: str
) -> Json:
    """Return the properties of the job, but for its environment.

    :param workspace: id of the workspace
    :param vault: last part of the names of this cloud's key vaults
    :raises InvalidSpecError: the name or the spec cannot be a job
    """
    check_name(name)
    place = _checkpoint(spec.checkpoint)
    compute = _compute(spec, options)
    line = start_line(spec, distribution=options.distribution, mounted=bool(place), vault=vault)
    found: Json = {
        "jobType": "Command",
        "displayName": f"{owner.dag_id}.{owner.task_id}"[:256],
        "experimentName": options.experiment,
        "command": line,
        "environmentVariables": environment(spec, name, mounted=bool(place)),
        "computeId": f"{workspace}/computes/{compute}" if compute else "",
        "resources": _resources(spec, options),
        "distribution": _distribution(spec, options),
        "limits": _limits(spec),
        "queueSettings": {"jobTier": "Spot"} if spec.spot and not compute else {},
        "identity": _identity(options),
        "outputs": place,
        "tags": {**options.tags, TAG: "true"},
        "properties": _properties(spec, owner),
    }
    return {key: value for key, value in found.items() if value}


def environment_of(image: str, workspace: str) -> tuple[str, str]:
    """Return the id of the environment that *image* names, or an empty text and the version that stands for an image.

    :param image: ``azureml:<name>:<version>`` of the workspace, ``azureml://registries/...``, an id of Azure Resource
        Manager, or a container image
    :raises InvalidSpecError: there is none
    """
    if not image:
        raise InvalidSpecError(
            "A job on Azure Machine Learning needs an environment. Set image to a container image, or to "
            "'azureml:<environment>:<version>'."
        )
    if image.startswith((_DATASTORE, "/subscriptions/")):
        return image, ""
    if image.startswith("azureml:"):
        _, name, version = [*image.split(":", 2), "", ""][:3]
        if not (name and version):
            raise InvalidSpecError(f"The environment {image!r} is not 'azureml:<environment>:<version>'.")
        return f"{workspace}/environments/{name}/versions/{version}", ""
    return "", hashlib.sha256(image.encode()).hexdigest()[:32]


def environment(spec: TrainingSpec, name: str, *, mounted: bool) -> dict[str, str]:
    """Return the job's variables: the spec's and ours. Secrets are read at the start and never stand here.

    :raises InvalidSpecError: a value holds what Azure would replace
    """
    own = {launch.JOB_NAME: name, launch.NODES: str(spec.nodes)}
    if spec.nodes == 1:
        own |= {launch.NODE_RANK: "0", launch.MASTER_ADDR: "127.0.0.1", launch.MASTER_PORT: MASTER_PORT}
    if spec.checkpoint and not mounted:
        own[launch.CHECKPOINT_DIR] = spec.checkpoint
    found = {key: str(value) for key, value in {"PYTHONUNBUFFERED": "1", **spec.env, **own}.items()}
    for key, value in found.items():
        if "${{" in value:
            raise InvalidSpecError(
                f"The variable {key!r} is {value!r}. Azure replaces '${{{{...}}}}': write it otherwise."
            )
    return {key: value for key, value in found.items() if key not in spec.secret_env}


def _checkpoint(checkpoint: str) -> Json:
    """Return the output that checkpoints are mounted from; none for an address that the program reaches itself.

    :raises InvalidSpecError: it is a bare path
    """
    if checkpoint and "://" not in checkpoint:
        raise InvalidSpecError(
            f"The checkpoint {checkpoint!r} is a path, and a node's own disk ends with it. Write "
            "'azureml://datastores/<datastore>/paths/<path>' or an address that the program can reach."
        )
    if not checkpoint.startswith(_DATASTORE):
        return {}
    return {CHECKPOINT_OUTPUT: {"jobOutputType": "uri_folder", "mode": "ReadWriteMount", "uri": checkpoint}}


def _compute(spec: TrainingSpec, options: AzureMLOptions) -> str:
    """Return the compute target; spot is a matter of the target, and of the job's tier where there is none."""
    if not spec.spot:
        return options.compute
    if options.compute and not options.spot_compute:
        raise InvalidSpecError(
            f"spot asks for machines of low priority, and the compute target {options.compute!r} decides that itself. "
            "Set the option 'spot_compute' to a target of low priority, or leave 'compute' out to be serverless."
        )
    return options.spot_compute


def _resources(spec: TrainingSpec, options: AzureMLOptions) -> Json:
    found = {
        "instanceCount": spec.nodes,
        "instanceType": spec.resources.instance_type,
        "shmSize": options.shm_size,
    }
    return {key: value for key, value in found.items() if value}


def _distribution(spec: TrainingSpec, options: AzureMLOptions) -> Json:
    """Return how nodes find each other: one process a node, which may start more itself."""
    if spec.nodes == 1:
        return {}
    if options.distribution == TENSORFLOW:
        return {"distributionType": "TensorFlow", "workerCount": spec.nodes}
    kind = {PYTORCH: "PyTorch", MPI: "Mpi"}[options.distribution]
    return {"distributionType": kind, "processCountPerInstance": 1}


def _limits(spec: TrainingSpec) -> Json:
    if spec.max_runtime is None:
        return {}
    return {"jobLimitsType": "Command", "timeout": f"PT{max(1, math.ceil(spec.max_runtime))}S"}


def _identity(options: AzureMLOptions) -> Json:
    kind = IDENTITIES[options.identity]
    if kind is None:
        return {}
    client = {"clientId": options.identity_client_id} if kind == "Managed" and options.identity_client_id else {}
    return {"identityType": kind, **client}


def _properties(spec: TrainingSpec, owner: TaskIdentity) -> dict[str, str]:
    data = {key: version.to_dict() for key, version in spec.inputs.items()}
    return {**marks(spec, owner), **(written(DATA, data) if data else {})}
