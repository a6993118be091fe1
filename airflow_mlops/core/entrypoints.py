"""Plugin look-up: our own backends, targets and stores come in by the same door as strangers'."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from airflow_mlops.core.errors import UnknownPluginError

TRAINING_BACKENDS = "airflow_mlops.training_backends"
PIPELINE_BACKENDS = "airflow_mlops.pipeline_backends"
TUNING_BACKENDS = "airflow_mlops.tuning_backends"
DEPLOYMENT_TARGETS = "airflow_mlops.deployment_targets"
DATA_STORES = "airflow_mlops.data_stores"
VALIDATORS = "airflow_mlops.validators"
MODEL_REGISTRIES = "airflow_mlops.model_registries"

_KINDS = {
    TRAINING_BACKENDS: "training backend",
    PIPELINE_BACKENDS: "pipeline backend",
    TUNING_BACKENDS: "tuning backend",
    DEPLOYMENT_TARGETS: "deployment target",
    DATA_STORES: "data store",
    VALIDATORS: "validator",
    MODEL_REGISTRIES: "model registry",
}


def load_plugin(group: str, name: str) -> Any:
    """Return the class that the installed packages offer under *name* in *group*.

    :raises UnknownPluginError: no package offers it; the message lists what is installed
    """
    found = entry_points(group=group)
    if name not in found.names:
        raise UnknownPluginError(_KINDS.get(group, group), name, found.names)
    return found[name].load()
