"""From an Airflow connection to a platform that searches parameters by itself. Nothing is decided here."""

from __future__ import annotations

from airflow_mlops.core.entrypoints import TUNING_BACKENDS
from airflow_mlops.hooks.jobs import JobHook

__all__ = ["TuningHook"]


class TuningHook(JobHook):
    """A tuning backend: ``sagemaker``, ``vertex`` or ``azureml``, with the connection of its training backend.

    :param backend: name of an installed tuning backend
    :param conn_id: connection of the platform
    """

    group = TUNING_BACKENDS
