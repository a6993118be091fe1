"""The contract of tuning services, kept by each of ours, with the vendor's own client."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from airflow_mlops.testing.azureml import AzureMLFake, azureml_fake
from airflow_mlops.testing.sagemaker import SageMakerFake, sagemaker_fake
from airflow_mlops.testing.tuning_backend import TuningBackendContract
from airflow_mlops.testing.vertex import VertexFake, vertex_fake
from airflow_mlops.training.contract import TrainingSpec
from airflow_mlops.training.tuning.azureml import AzureMLTuning
from airflow_mlops.training.tuning.sagemaker import SageMakerTuning
from airflow_mlops.training.tuning.vertex import VertexTuning

TRAIN = '#!/bin/sh\neval "$MLOPS_START"\n'
"""The program ``train`` that docs/howto/sagemaker.md asks of an image."""

REFUSED_BY_SAGEMAKER = {
    "stepped": {"low": 0.0, "high": 1.0, "step": 0.25},
    "even": {"low": 2, "high": 8, "step": 2, "type": "int"},
    "fixed": {"low": 1, "high": 1},
    "bias": {"choices": [True, False]},
    "decay": {"choices": ["cosine", None]},
    "quoted": {"choices": ['say "yes"', "no"]},
    "same": {"choices": [1, "1"]},
    "many": {"choices": [str(number) for number in range(31)]},
    "mlops_spec": {"choices": ["a", "b"]},
}
"""Ranges and choices that SageMaker does not have, and names and words that the start of a trial could not read."""


@pytest.fixture(scope="module")
def aws() -> Iterator[SageMakerFake]:
    """Run one account for all tests, with images as they should be."""
    with sagemaker_fake() as fake:
        fake.add_program("train", TRAIN)
        yield fake


class TestSageMaker(TuningBackendContract):
    """Tuning jobs of Amazon SageMaker, through the official client."""

    refused = REFUSED_BY_SAGEMAKER

    @pytest.fixture
    def backend(self, aws: SageMakerFake) -> SageMakerTuning:
        """Get in as Airflow's own connection does."""
        return SageMakerTuning.from_connection(aws.connection())

    def training(self, script: str, **fields: Any) -> TrainingSpec:
        """Run the script in an image."""
        return super().training(script, **{"image": "busybox:1", **fields})


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
