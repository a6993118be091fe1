"""From an Airflow connection to a platform that runs pipelines. Nothing is decided here."""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseHook

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.entrypoints import PIPELINE_BACKENDS, load_plugin
from airflow_mlops.core.errors import MlopsError
from airflow_mlops.platforms.kfp import KfpClient
from airflow_mlops.training.pipelines.contract import PipelineBackend

__all__ = ["PipelineHook"]


class PipelineHook(BaseHook):
    """A pipeline backend, found by name, with what its connection says about where it is.

    Connection of Kubeflow Pipelines: ``host`` (with or without scheme, with the path below which ``/apis`` is),
    ``port``, ``schema`` (``http`` or ``https``), ``password`` (bearer token), ``login`` (name of the user, for servers
    that trust the header ``kubeflow-userid``); extras ``token_path`` (file of a token that the kubelet renews),
    ``namespace`` (profile, for servers with many users), ``console_url`` (address of the pages, by default the host),
    ``userid_header``, ``verify`` (false or the path of a CA bundle) and ``timeout`` (seconds a request).

    :param conn_id: connection of the platform
    :param backend: name of an installed pipeline backend
    """

    conn_name_attr = "conn_id"
    default_conn_name = "kubeflow_pipelines_default"
    conn_type = "kubeflow_pipelines"
    hook_name = "Kubeflow Pipelines"

    def __init__(self, conn_id: str = default_conn_name, backend: str = "kubeflow", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conn_id, self.backend = conn_id, backend

    def get_backend(self) -> PipelineBackend:
        """Return the backend that the connection leads to.

        :raises UnknownPluginError: no installed package offers it
        """
        return self._backend(ConnectionInfo.of(self.get_connection(self.conn_id)))

    async def aget_backend(self) -> PipelineBackend:
        """Return the backend from within a trigger. Its verbs block: call them in a thread."""
        return self._backend(ConnectionInfo.of(await self.aget_connection(self.conn_id)))

    def get_conn(self) -> KfpClient:
        """Return a client of Kubeflow Pipelines. Use it as a context manager, so that its connections are closed."""
        return KfpClient(ConnectionInfo.of(self.get_connection(self.conn_id)))

    def test_connection(self) -> tuple[bool, str]:
        """Ask the platform for the first of our runs."""
        try:
            found = next(iter(self.get_backend().managed()), None)
        except MlopsError as error:
            return False, str(error)
        return True, f"The backend {self.backend!r} answers" + (f"; it knows {found[0].job_id!r}." if found else ".")

    def _backend(self, info: ConnectionInfo) -> PipelineBackend:
        found: PipelineBackend = load_plugin(PIPELINE_BACKENDS, self.backend).from_connection(info)
        return found
