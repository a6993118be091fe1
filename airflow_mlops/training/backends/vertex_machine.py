"""Which machine of Vertex AI a training spec asks for. Pure.

Machines have names; one that is not named is chosen from the series that takes most accelerators.

https://cloud.google.com/vertex-ai/docs/training/configure-compute#machine-types
"""

from __future__ import annotations

from typing import Any

from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.training.contract import Resources

FAMILIES = {
    "n1-highcpu": (921, (16, 32, 64, 96)),
    "n1-standard": (3840, (4, 8, 16, 32, 64, 96)),
    "n1-highmem": (6656, (2, 4, 8, 16, 32, 64, 96)),
}
"""Family -> MiB of memory for each processor, and the numbers of processors that custom training offers."""

DEFAULT = "n1-standard-4"


def machine_spec(resources: Resources, accelerator_type: str) -> dict[str, Any]:
    """Return the ``MachineSpec`` of a node.

    :raises InvalidSpecError: no machine is large enough, or the kind of accelerator is missing or has no use
    """
    if bool(accelerator_type) != bool(resources.gpus):
        raise InvalidSpecError(
            f"resources.gpus is {resources.gpus} and the option accelerator_type {accelerator_type!r}: Vertex AI needs "
            "both or none. Give such as options={'accelerator_type': 'NVIDIA_TESLA_T4'}."
        )
    found: dict[str, Any] = {"machine_type": resources.instance_type or chosen(resources)}
    if resources.gpus:
        found |= {"accelerator_type": accelerator_type, "accelerator_count": resources.gpus}
    return found


def chosen(resources: Resources) -> str:
    """Return the smallest machine with the processors and the memory asked for: fewest processors, then least memory.

    :raises InvalidSpecError: none is large enough
    """
    if resources.cpus is None and resources.memory_mib is None:
        return DEFAULT
    fitting = [
        (cpus, cpus * each, f"{family}-{cpus}")
        for family, (each, sizes) in FAMILIES.items()
        for cpus in sizes
        if cpus >= (resources.cpus or 0) and cpus * each >= (resources.memory_mib or 0)
    ]
    if not fitting:
        raise InvalidSpecError(
            f"No machine of the series n1 has {resources.cpus} cpus and {resources.memory_mib} MiB. Name a larger one "
            "with resources.instance_type."
        )
    return min(fitting)[2]
