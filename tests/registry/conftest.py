"""A client of the shared server and models that cost nothing to train."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.platforms.mlflow import MLflowClient
from airflow_mlops.registry.registries.mlflow import MLflowRegistry


@pytest.fixture
def client(mlflow_server: str) -> Iterator[MLflowClient]:
    """Give a client of the shared server."""
    with MLflowClient(ConnectionInfo(conn_id="mlflow_default", host=mlflow_server)) as client:
        yield client


@pytest.fixture
def registry(client: MLflowClient) -> MLflowRegistry:
    """Give the registry of the shared server."""
    return MLflowRegistry(client)


@pytest.fixture
def name() -> str:
    """Give a model name that no other test uses."""
    return f"model-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def log_model(client: MLflowClient) -> Callable[[bytes], tuple[str, str]]:
    """Give a function that keeps a model with some bytes in a new run: (address, run id)."""

    def log(content: bytes) -> tuple[str, str]:
        run = client.create_run(client.experiment_id("registry-tests"), "run")
        root = f"{run['info']['artifact_uri']}/model"
        client.artifacts.write(f"{root}/MLmodel", b"flavors: {}\n")
        client.artifacts.write(f"{root}/data/weights.bin", content)
        return f"runs:/{run['info']['run_id']}/model", run["info"]["run_id"]

    return log
