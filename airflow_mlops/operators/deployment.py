"""Put models on endpoints and move their traffic. Thin: the work is in the deployment engine and its targets."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.core.refs import ModelVersion
from airflow_mlops.deployment.driver import confirmed
from airflow_mlops.hooks.deployment import DeploymentHook
from airflow_mlops.hooks.mlflow import MLflowHook
from airflow_mlops.links.deployment import EndpointLink
from airflow_mlops.operators.base import MlopsOperator
from airflow_mlops.operators.rollout import CanaryRolloutOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_mlops.deployment.contract import DeploymentTarget
    from airflow_mlops.registry.registries.mlflow import MLflowRegistry

__all__ = ["CanaryRolloutOperator", "DeployModelOperator", "RollbackDeploymentOperator", "ShiftTrafficOperator"]


class DeployModelOperator(MlopsOperator):
    """Put a registered model on an endpoint and wait until it is ready. It gets no traffic, unless it is the first one.

    Returns ``EndpointStatus`` as a dict and the key ``revision`` with the name that was deployed.

    :param endpoint: name of the endpoint
    :param model: a ``ModelVersion`` as a dict, such as ``RegisterModelOperator`` returns
    :param model_name: instead of *model*: the registered model, with *version*
    :param version: a version number or an alias
    :param revision: name on the endpoint; ``v<version>`` by default
    :param target: installed deployment target
    :param conn_id: connection of the target
    :param mlflow_conn_id: connection of the registry
    :param remove_idle: then take revisions away that get no traffic and are neither this one nor ``previous``, where a
        rollback goes: each of them costs memory, or money
    :param options: the target's own options; for ``local``: ``path`` (a folder of model files), ``ready_timeout``
    :raises JobFailedError: it did not get ready; the traffic is as it was
    """

    template_fields = (
        "endpoint", "model", "model_name", "version", "revision", "target", "conn_id", "mlflow_conn_id", "options",
    )  # fmt: skip
    operator_extra_links = (EndpointLink(),)

    def __init__(
        self,
        *,
        endpoint: str,
        model: Mapping[str, Any] | None = None,
        model_name: str = "",
        version: str = "",
        revision: str = "",
        target: str = "local",
        conn_id: str = DeploymentHook.default_conn_name,
        mlflow_conn_id: str = MLflowHook.default_conn_name,
        remove_idle: bool = False,
        options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.endpoint, self.model, self.model_name, self.version = endpoint, model, model_name, version
        self.revision, self.target, self.conn_id = revision, target, conn_id
        self.mlflow_conn_id, self.remove_idle, self.options = mlflow_conn_id, remove_idle, options

    def execute(self, context: Context) -> dict[str, Any]:
        """Deploy, keep the link and return what serves."""
        model = self._model()
        revision = self.revision or f"v{model.version}"
        target = DeploymentHook(self.target, self.conn_id).get_target()
        with ExitStack() as scratch:
            options = self._with_folder(target, model, scratch)
            status = target.deploy(model, self.endpoint, revision=revision, options=options)
        EndpointLink.keep(context, status.url)
        for idle in status.idle(revision) if self.remove_idle else ():
            self.log.info("%r gets no traffic and is taken off %r.", idle, self.endpoint)
            status = target.remove(self.endpoint, idle)
        self.log.info("%r is ready on %r. Traffic: %s", revision, self.endpoint, status.traffic)
        return {**status.to_dict(), "revision": revision}

    def _model(self) -> ModelVersion:
        if self.model:
            return ModelVersion.from_dict(self.model)
        if not self.model_name or not self.version:
            raise InvalidSpecError("DeployModelOperator needs model=<ModelVersion dict>, or model_name and version.")
        return self._registry().resolve(self.model_name, str(self.version))

    def _with_folder(self, target: DeploymentTarget, model: ModelVersion, scratch: ExitStack) -> dict[str, Any]:
        """Return the options; where the target wants files, those of the registry, checked against their digest."""
        options = dict(self.options or {})
        if target.needs_folder and "path" not in options and not model.uri.startswith(("/", "file:")):
            folder = Path(scratch.enter_context(tempfile.TemporaryDirectory(prefix="mlops-deploy-")))
            options["path"] = str(self._registry().fetch(model, folder / "model"))
        return options

    def _registry(self) -> MLflowRegistry:
        return MLflowHook(self.mlflow_conn_id).get_registry()


class ShiftTrafficOperator(MlopsOperator):
    """Set the traffic of an endpoint and read it back. Returns ``EndpointStatus`` as a dict.

    :param traffic: revision -> percent, 100 in all
    :param target: installed deployment target
    :param conn_id: connection of the target
    """

    template_fields = ("endpoint", "traffic", "target", "conn_id")
    operator_extra_links = (EndpointLink(),)

    def __init__(
        self,
        *,
        endpoint: str,
        traffic: Mapping[str, float],
        target: str = "local",
        conn_id: str = DeploymentHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.endpoint, self.traffic, self.target, self.conn_id = endpoint, traffic, target, conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Shift and return what serves."""
        wanted = {revision: float(percent) for revision, percent in self.traffic.items()}
        target = DeploymentHook(self.target, self.conn_id).get_target()
        status = confirmed(target.shift(self.endpoint, wanted), wanted)
        EndpointLink.keep(context, status.url)
        return status.to_dict()


class RollbackDeploymentOperator(MlopsOperator):
    """Give all traffic back to the revision that was wholly rolled out before. Returns ``EndpointStatus`` as a dict.

    In the middle of a canary that is the old revision, after a full roll-out ``previous``. The registry's aliases are
    not touched: put ``RollbackModelOperator`` behind it, or behind a roll-out with ``trigger_rule="one_failed"``.
    """

    template_fields = ("endpoint", "target", "conn_id")
    operator_extra_links = (EndpointLink(),)

    def __init__(
        self,
        *,
        endpoint: str,
        target: str = "local",
        conn_id: str = DeploymentHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.endpoint, self.target, self.conn_id = endpoint, target, conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Roll back and return what serves."""
        status = DeploymentHook(self.target, self.conn_id).get_target().rollback(self.endpoint)
        EndpointLink.keep(context, status.url)
        self.log.info("%r serves %s", self.endpoint, status.traffic)
        return status.to_dict()
