"""Every registry of this package keeps the contract, on a real server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.platforms.mlflow import MLflowClient
from airflow_mlops.registry.registries.mlflow import MLflowRegistry
from airflow_mlops.testing.model_registry import LogModel, ModelRegistryContract


class TestMLflowRegistry(ModelRegistryContract):
    """MLflow's registry keeps the contract."""

    @pytest.fixture
    def registry(self, mlflow_server: str) -> Iterator[MLflowRegistry]:
        """Give the registry of the shared server."""
        with MLflowClient(ConnectionInfo(host=mlflow_server)) as client:
            yield MLflowRegistry(client)

    @pytest.fixture
    def log_model(self, registry: MLflowRegistry) -> LogModel:
        """Give a function that keeps a model in a new run."""

        def log(content: bytes) -> tuple[str, str]:
            client = registry.client
            run = client.create_run(client.experiment_id("contract"), "run")
            root = f"{run['info']['artifact_uri']}/model"
            client.artifacts.write(f"{root}/MLmodel", b"flavors: {}\n")
            client.artifacts.write(f"{root}/data/weights.bin", content)
            return f"runs:/{run['info']['run_id']}/model", run["info"]["run_id"]

        return log
