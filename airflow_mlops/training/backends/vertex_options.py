"""What ``TrainingSpec.options`` may say on Vertex AI. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_mlops.core.errors import InvalidSpecError, close_match
from airflow_mlops.core.records import Record

JOB, PIPELINE = "job", "pipeline"

_LABEL = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")


@dataclass(frozen=True)
class VertexOptions(Record):
    """The names of fields are those of the API.

    :param mode: ``job`` (a CustomJob) or ``pipeline`` (a PipelineJob with one step, whose id is exact)
    :param accelerator_type: what ``resources.gpus`` counts, such as ``NVIDIA_TESLA_T4``
    :param service_account: the account the program runs as; by default the connection's
    :param network: the VPC network the job is peered with; by default the connection's
    :param labels: further labels
    :param disable_retries: false lets Vertex AI start a failed program again by itself
    :param kms_key_name: customer-managed key that encrypts what the job keeps
    """

    mode: str = JOB
    accelerator_type: str = ""
    service_account: str = ""
    network: str = ""
    reserved_ip_ranges: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    disable_retries: bool = True
    boot_disk_type: str = ""
    boot_disk_size_gb: int = 0
    persistent_resource_id: str = ""
    tensorboard: str = ""
    enable_web_access: bool = False
    kms_key_name: str = ""


def read_options(backend: str, options: Mapping[str, Any]) -> VertexOptions:
    """Return the options of a spec.

    :raises InvalidSpecError: one is unknown, or not of the right kind
    """
    known, defaults = list(VertexOptions.__dataclass_fields__), VertexOptions()
    for name, value in options.items():
        if name not in known:
            raise InvalidSpecError(
                f"{backend!r} has no option {name!r}: {close_match(name, known)}It has {', '.join(known)}."
            )
        default = getattr(defaults, name)
        wanted = (list, tuple) if isinstance(default, tuple) else Mapping if isinstance(default, Mapping) else None
        if not isinstance(value, wanted or type(default)):
            raise InvalidSpecError(f"Option {name!r} of {backend!r} is {value!r}, not such as {default!r}.")
    found = VertexOptions.from_dict(options)
    if found.mode not in (JOB, PIPELINE):
        raise InvalidSpecError(f"Option 'mode' of {backend!r} is {found.mode!r}. It is {JOB!r} or {PIPELINE!r}.")
    check_labels(found.labels)
    return found


def check_labels(labels: Mapping[str, str]) -> None:
    """Refuse what Google Cloud does not take as a label.

    https://cloud.google.com/resource-manager/docs/labels-overview#requirements

    :raises InvalidSpecError: naming the first
    """
    for key, value in labels.items():
        if not _LABEL.fullmatch(key) or not _LABEL_VALUE.fullmatch(str(value)):
            raise InvalidSpecError(
                f"The label {key!r}: {value!r} is none of Google Cloud's. Use at most 63 lower-case letters, digits, "
                "'_' and '-', and begin the key with a letter."
            )
