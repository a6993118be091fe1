"""Where checkpoints and inputs of a pod are: mounted claims, addresses, and what is fetched before the start. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar

from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.core.refs import DataVersion
from airflow_mlops.training.contract import TrainingSpec
from airflow_mlops.training.launch import INPUT_PREFIX

Json = dict[str, Any]

CHECKPOINTS = "/mlops/checkpoints"
INPUTS = "/mlops/inputs"
_CLAIM = re.compile(r"pvc://([a-z0-9]([-.a-z0-9]*[a-z0-9])?)(/(.*))?")


@dataclass(frozen=True)
class CheckpointPlace:
    """What the program sees as ``MLOPS_CHECKPOINT_DIR``, and what has to be mounted for it, if anything."""

    path: str
    volume: Json | None = None
    mount: Json | None = None


def checkpoint_place(checkpoint: str) -> CheckpointPlace | None:
    """Return where checkpoints go: a claim that is mounted (``pvc://<claim>/<sub path>``), or an address as it is.

    :raises InvalidSpecError: it is a bare path, or leaves the claim
    """
    if not checkpoint:
        return None
    if "://" not in checkpoint:
        raise InvalidSpecError(
            f"The checkpoint {checkpoint!r} is a path, and a pod's own disk ends with it. Write "
            "'pvc://<claim>/<sub path>' or an address that the program can reach, such as 's3://bucket/path'."
        )
    if not checkpoint.startswith("pvc://"):
        return CheckpointPlace(checkpoint)
    found = _CLAIM.fullmatch(checkpoint)
    below = (found[4] or "").strip("/") if found else ""
    if found is None or ".." in below.split("/"):
        raise InvalidSpecError(f"The checkpoint {checkpoint!r} is not 'pvc://<claim>/<sub path>'.")
    volume = {"name": "mlops-checkpoints", "persistentVolumeClaim": {"claimName": found[1]}}
    mount = {"name": volume["name"], "mountPath": CHECKPOINTS, **({"subPath": below} if below else {})}
    return CheckpointPlace(CHECKPOINTS, volume, mount)


@dataclass(frozen=True)
class Fetch:
    """One input that is fetched into the pod before the program starts.

    :param variable: the program sees *path* as this
    """

    VOLUME: ClassVar[Json] = {"name": "mlops-inputs", "emptyDir": {}}
    MOUNT: ClassVar[Json] = {"name": "mlops-inputs", "mountPath": INPUTS}

    variable: str
    path: str
    version: DataVersion


def fetches(spec: TrainingSpec, image: str) -> tuple[Fetch, ...]:
    """Return the inputs to fetch: those that are known only by the address of a data version in a repository."""
    found = []
    for name, version in spec.inputs.items() if image else ():
        word = re.sub(r"\W", "_", name)
        variable = INPUT_PREFIX + word.upper()
        if version.repo and spec.env.get(variable) == version.uri:
            found.append(Fetch(variable, f"{INPUTS}/{word}", version))
    return tuple(found)
