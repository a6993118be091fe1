"""From an Airflow connection to a deployment target. Nothing is decided here."""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseHook

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.entrypoints import DEPLOYMENT_TARGETS, load_plugin
from airflow_mlops.core.errors import MlopsError
from airflow_mlops.deployment.contract import DeploymentTarget

__all__ = ["DeploymentHook"]


class DeploymentHook(BaseHook):
    """A deployment target, found by name, with what the connection says about where it is.

    Connection of the local target: ``host``, ``port``, ``password`` (bearer token), extra ``timeout`` (seconds a call).

    :param target: name of an installed target, for example ``local``
    :param conn_id: connection of the platform
    """

    conn_name_attr = "conn_id"
    default_conn_name = "gateway_default"
    conn_type = "mlops_gateway"
    hook_name = "MLOps gateway"

    def __init__(self, target: str = "local", conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.target = target
        self.conn_id = conn_id

    def get_target(self) -> DeploymentTarget:
        """Return the target that the connection leads to.

        :raises UnknownPluginError: no installed package offers it
        """
        return self._target(self.get_connection(self.conn_id))

    async def aget_target(self) -> DeploymentTarget:
        """Return the target from within a trigger. Its verbs block: call them in a thread."""
        return self._target(await self.aget_connection(self.conn_id))

    def test_connection(self) -> tuple[bool, str]:
        """Ask the platform for its endpoints."""
        try:
            names = self.get_target().endpoints()
        except MlopsError as error:
            return False, str(error)
        return True, f"Connected. Endpoints: {', '.join(names) or 'none yet'}."

    def _target(self, connection: Any) -> DeploymentTarget:
        found: DeploymentTarget = load_plugin(DEPLOYMENT_TARGETS, self.target).from_connection(
            ConnectionInfo.of(connection)
        )
        return found
