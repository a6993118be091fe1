"""From an Airflow connection to MLflow. Nothing is decided here, and MLflow itself is not imported."""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseHook

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import MlopsError
from airflow_mlops.platforms.mlflow import MLflowClient
from airflow_mlops.registry.registries.mlflow import MLflowRegistry

__all__ = ["MLflowHook"]


class MLflowHook(BaseHook):
    """An MLflow server: tracking, artifacts and the model registry.

    Connection: ``host`` (with or without scheme), ``port``, ``schema`` (``http`` or ``https``), ``login`` and
    ``password`` (basic credentials; a password alone is a bearer token), extras ``verify`` (false or the path of a CA
    bundle) and ``timeout`` (seconds a request).

    :param mlflow_conn_id: the connection
    """

    conn_name_attr = "mlflow_conn_id"
    default_conn_name = "mlflow_default"
    conn_type = "mlflow"
    hook_name = "MLflow"

    def __init__(self, mlflow_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mlflow_conn_id = mlflow_conn_id

    def get_client(self) -> MLflowClient:
        """Return a client. Use it as a context manager, so that its connections are closed."""
        return MLflowClient(ConnectionInfo.of(self.get_connection(self.mlflow_conn_id)))

    async def aget_client(self) -> MLflowClient:
        """Return a client from within a trigger. Its verbs block: call them in a thread."""
        return MLflowClient(ConnectionInfo.of(await self.aget_connection(self.mlflow_conn_id)))

    def get_conn(self) -> MLflowClient:
        """Return a client, under the name that Airflow's own code uses."""
        return self.get_client()

    def get_registry(self) -> MLflowRegistry:
        """Return the model registry of the server."""
        return MLflowRegistry(self.get_client())

    def test_connection(self) -> tuple[bool, str]:
        """Ask the server for its version and, with the credentials, for its models."""
        try:
            with self.get_client() as client:
                version = client.server_version()
                client.models(limit=1)
        except MlopsError as error:
            return False, str(error)
        return True, f"Connected to MLflow {version}."
