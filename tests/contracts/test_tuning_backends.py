"""The contract of tuning services, kept by each of our backends against its platform's strict fake."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from airflow_mlops.testing.azureml import AzureMLFake, azureml_fake
from airflow_mlops.testing.tuning_backend import TuningBackendContract
from airflow_mlops.testing.vertex import VertexFake, vertex_fake
from airflow_mlops.training.contract import TrainingSpec
from airflow_mlops.training.tuning.azureml import AzureMLTuning
from airflow_mlops.training.tuning.vertex import VertexTuning


@pytest.fixture(scope="module")
def vertex() -> Iterator[VertexFake]:
    """Run Vertex AI for all tests of the module."""
    with vertex_fake() as fake:
        yield fake


class TestVertex(TuningBackendContract):
    """HyperparameterTuningJobs of Vertex AI, through Google's own client over REST."""

    refused: Mapping[str, Any] = {
        "too_many": {"low": 0, "high": 2000, "step": 2, "type": "int"},
        "same_words": {"choices": ["1", 1]},
        "empty": {"choices": ["", "a"]},
    }

    @pytest.fixture
    def backend(self, vertex: VertexFake) -> VertexTuning:
        """Get in as Airflow's own connection does."""
        return VertexTuning.from_connection(vertex.connection())

    def training(self, script: str, **fields: Any) -> TrainingSpec:
        """Run the script in an image."""
        return super().training(script, **{"image": "busybox:1", **fields})


@pytest.fixture(scope="module")
def workspace() -> Iterator[AzureMLFake]:
    """Run one workspace of Azure Machine Learning for all tests of the module."""
    with azureml_fake() as fake:
        yield fake


class TestAzureML(TuningBackendContract):
    """Sweep jobs of a workspace, as a service principal, with Azure's own library for the tokens."""

    refused: Mapping[str, Any] = {
        "fine": {"low": 0.0, "high": 1.0, "step": 0.0001},
        "odd": {"low": 1, "high": 4001, "step": 2, "type": "int"},
        "same_words": {"choices": ["1", 1]},
        "empty": {"choices": ["", "a"]},
    }

    @pytest.fixture
    def backend(self, workspace: AzureMLFake) -> AzureMLTuning:
        """Get in as Airflow's own connection does."""
        return AzureMLTuning.from_connection(workspace.connection())

    def training(self, script: str, **fields: Any) -> TrainingSpec:
        """Run the script in an image."""
        return super().training(script, **{"image": "busybox:1", **fields})
