"""From an Airflow connection to a platform that runs pipelines. Nothing is decided here."""

from __future__ import annotations

from typing import Any

from airflow_mlops.core.entrypoints import PIPELINE_BACKENDS
from airflow_mlops.core.residency import split_places
from airflow_mlops.hooks.jobs import JobHook
from airflow_mlops.platforms.kfp import KfpClient

__all__ = ["PipelineHook"]


class PipelineHook(JobHook):
    """A pipeline backend.

    Connection of Kubeflow Pipelines: ``host`` (with or without scheme, with the path below which ``/apis`` is),
    ``port``, ``schema`` (``http`` or ``https``), ``password`` (bearer token), ``login`` (name of the user, for servers
    that trust the header ``kubeflow-userid``); extras ``token_path`` (file of a token that the kubelet renews),
    ``namespace`` (profile, for servers with many users), ``console_url`` (address of the pages, by default the host),
    ``userid_header``, ``verify`` (false or the path of a CA bundle) and ``timeout`` (seconds a request).

    :param backend: name of an installed pipeline backend
    :param conn_id: connection of the platform
    """

    group = PIPELINE_BACKENDS
    default_conn_name = "kubeflow_pipelines_default"
    conn_type = "kubeflow_pipelines"
    hook_name = "Kubeflow Pipelines"

    def __init__(self, backend: str = "kubeflow", conn_id: str | None = default_conn_name, **kwargs: Any) -> None:
        super().__init__(backend, conn_id or self.default_conn_name, **kwargs)

    def get_conn(self) -> KfpClient:
        """Return a client of Kubeflow Pipelines. Use it as a context manager, so that its connections are closed."""
        return KfpClient(split_places(self._info(), self.backend)[0])
