"""What may be said about a SageMaker job beyond its spec: in its options, or as defaults of the connection. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_mlops.core.errors import InvalidSpecError, close_match
from airflow_mlops.core.records import Record

DEFAULTS = (
    "execution_role",
    "output_path",
    "subnets",
    "security_group_ids",
    "kms_key",
    "volume_kms_key",
    "volume_gib",
    "encrypt_traffic",
    "network_isolation",
    "tags",
)
"""Options for which the connection may have a default, as an extra of the same name."""


@dataclass(frozen=True)
class SageMakerOptions(Record):
    """What ``TrainingSpec.options`` may say.

    :param execution_role: ARN of the role that the job runs as
    :param output_path: ``s3://<bucket>/<prefix>``; below it each job has a folder of its own
    :param volume_gib: disk of each machine
    :param subnets: of the VPC in which the job runs, with *security_group_ids*
    :param kms_key: key for what the job uploads
    :param volume_kms_key: key for the disks
    :param encrypt_traffic: encrypt what the nodes of one job send each other
    :param network_isolation: no way out of the containers at all
    :param max_wait: seconds that a spot job may wait for machines in all, beside the time it may run
    :param keep_alive: seconds that the machines wait for the next job (a warm pool); they are billed meanwhile
    :param inputs: channel -> ``s3://`` address; its files are in ``/opt/ml/input/data/<channel>``
    :param input_mode: ``File`` (copied before the program starts), ``FastFile`` or ``Pipe`` (streamed)
    :param fetch_inputs: data versions are fetched at the start; the image has git and DVC
    :param metric_definitions: metric -> regular expression whose first group is its value in a line of the log
    :param tags: further tags
    """

    execution_role: str = ""
    output_path: str = ""
    volume_gib: int = 30
    subnets: tuple[str, ...] = ()
    security_group_ids: tuple[str, ...] = ()
    kms_key: str = ""
    volume_kms_key: str = ""
    encrypt_traffic: bool = False
    network_isolation: bool = False
    max_wait: int = 1800
    keep_alive: int = 0
    inputs: Mapping[str, str] = field(default_factory=dict)
    input_mode: str = "File"
    fetch_inputs: bool = False
    metric_definitions: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


def read_options(options: Mapping[str, Any], defaults: Mapping[str, Any]) -> SageMakerOptions:
    """Return the options of a spec, on top of *defaults*.

    :raises InvalidSpecError: one is unknown, not of the right kind, or missing
    """
    found = {**defaults, **options}
    for name, value in found.items():
        _check(name, value)
    read = SageMakerOptions.from_dict(found)
    for name, example in (
        ("execution_role", "arn:aws:iam::<account>:role/<name>"),
        ("output_path", "s3://<bucket>/<prefix>"),
    ):
        if not getattr(read, name).startswith(example[:4]):
            raise InvalidSpecError(
                f"A SageMaker job needs {name!r}, such as {example!r}; it is {getattr(read, name)!r}. "
                "Set it in the connection's extras or in the options."
            )
    if bool(read.subnets) != bool(read.security_group_ids):
        raise InvalidSpecError("The options 'subnets' and 'security_group_ids' make sense together only. Give both.")
    return read


def _check(name: str, value: Any) -> None:
    known = list(SageMakerOptions.__dataclass_fields__)
    if name not in known:
        raise InvalidSpecError(
            f"'sagemaker' has no option {name!r}: {close_match(name, known)}It has {', '.join(known)}."
        )
    default = getattr(SageMakerOptions(), name)
    wanted = (list, tuple) if isinstance(default, tuple) else Mapping if isinstance(default, Mapping) else type(default)
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise InvalidSpecError(f"Option {name!r} of 'sagemaker' is {value!r}, not such as {default!r}.")
