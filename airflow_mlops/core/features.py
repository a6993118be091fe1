"""The optional abilities of training backends. A backend that lacks one says why in its ``lacks`` table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

from airflow_mlops.core.errors import UnsupportedFeatureError


class Feature(StrEnum):
    """A field of a training spec that not every platform can honour."""

    IMAGE = "image"
    NODES = "nodes"
    GPUS = "resources.gpus"
    SPOT = "spot"
    CHECKPOINT = "checkpoint"
    SECRET_ENV = "secret_env"
    MAX_RUNTIME = "max_runtime"


def refuse_lacking(plugin: str, lacks: Mapping[Feature, str], used: Iterable[Feature]) -> None:
    """Refuse the first used feature that *plugin* lacks.

    :raises UnsupportedFeatureError: naming the plugin, the field and the reason
    """
    for feature in used:
        if feature in lacks:
            raise UnsupportedFeatureError(plugin, feature.value, lacks[feature])
