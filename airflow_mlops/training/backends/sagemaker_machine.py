"""Which machine a job gets: the one that the spec names, or the smallest common one that has enough. Pure.

Machines: https://aws.amazon.com/sagemaker/ai/pricing/instance-types/
"""

from __future__ import annotations

from airflow_mlops.core.errors import InvalidSpecError, UnsupportedFeatureError
from airflow_mlops.training.contract import Resources

_M5 = {"large": 2, "xlarge": 4, "2xlarge": 8, "4xlarge": 16, "12xlarge": 48, "24xlarge": 96}
_G5 = {"xlarge": (4, 1), "2xlarge": (8, 1), "4xlarge": (16, 1), "8xlarge": (32, 1), "16xlarge": (64, 1)}
_G5 |= {"12xlarge": (48, 4), "24xlarge": (96, 4), "48xlarge": (192, 8)}

MACHINES: dict[str, tuple[int, int, int]] = {
    **{f"ml.m5.{size}": (cpus, 4 * cpus, 0) for size, cpus in _M5.items()},
    **{f"ml.r5.{size}": (cpus, 8 * cpus, 0) for size, cpus in _M5.items()},
    **{f"ml.g5.{size}": (cpus, 4 * cpus, gpus) for size, (cpus, gpus) in _G5.items()},
}
"""Machines that are chosen from: virtual cores, GiB of memory, GPUs. Within GPUs and cores, less memory comes first."""


def instance_type(wanted: Resources) -> str:
    """Return the machine for *wanted*.

    :raises UnsupportedFeatureError: none of the common machines has that much, or the one that is named has not
    :raises InvalidSpecError: what is named is no machine of SageMaker
    """
    named = wanted.instance_type
    if not named:
        return _smallest(wanted)
    if not named.startswith("ml."):
        raise InvalidSpecError(f"The instance_type {named!r} is none of SageMaker, such as 'ml.m5.xlarge'.")
    if named in MACHINES and (short := _short(wanted, named)):
        raise UnsupportedFeatureError("sagemaker", f"resources.{short}", f"{named} has less than {wanted!r} asks for")
    return named


def _smallest(wanted: Resources) -> str:
    fitting = [name for name in MACHINES if not _short(wanted, name)]
    if not fitting:
        why = f"no machine of {', '.join(sorted({name.split('.')[1] for name in MACHINES}))} has as much as {wanted!r}"
        raise UnsupportedFeatureError("sagemaker", "resources", f"{why}; name one as instance_type")
    return min(fitting, key=lambda name: (MACHINES[name][2], MACHINES[name][0], MACHINES[name][1]))


def _short(wanted: Resources, name: str) -> str:
    """Return which wish a machine does not fulfil, or an empty text."""
    cpus, memory_gib, gpus = MACHINES[name]
    if wanted.gpus > gpus:
        return "gpus"
    if (wanted.cpus or 0) > cpus:
        return "cpus"
    return "memory_mib" if (wanted.memory_mib or 0) > memory_gib * 1024 else ""
