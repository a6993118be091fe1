"""The pipeline contract, kept by our backend against the strict fake, for one user and for many."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from airflow_mlops.core.entrypoints import PIPELINE_BACKENDS, load_plugin
from airflow_mlops.core.identity import text_digest
from airflow_mlops.testing.azureml import AzureMLFake, azureml_fake
from airflow_mlops.testing.kfp import KfpFake, kfp_fake
from airflow_mlops.testing.kfp.pipelines import shell_pipeline
from airflow_mlops.testing.pipeline_backend import PipelineBackendContract
from airflow_mlops.testing.sagemaker import SageMakerFake, sagemaker_fake
from airflow_mlops.testing.vertex import VertexFake, vertex_fake
from airflow_mlops.training.pipelines.azureml import AzureMLPipelines
from airflow_mlops.training.pipelines.contract import PipelineSpec
from airflow_mlops.training.pipelines.kubeflow import KubeflowPipelines
from airflow_mlops.training.pipelines.sagemaker import SageMakerPipelines
from airflow_mlops.training.pipelines.vertex import VertexPipelines


@pytest.fixture(scope="module")
def one_user() -> Iterator[KfpFake]:
    """Give a server without namespaces."""
    with kfp_fake() as fake:
        yield fake


@pytest.fixture(scope="module")
def many_users() -> Iterator[KfpFake]:
    """Give a server with namespaces."""
    with kfp_fake(multi_user=True) as fake:
        yield fake


class TestKubeflow(PipelineBackendContract):
    """A server for one user."""

    @pytest.fixture
    def backend(self, one_user: KfpFake) -> KubeflowPipelines:
        """Use the server."""
        return KubeflowPipelines.from_connection(one_user.connection())

    def spec(self, script: str, **fields: Any) -> PipelineSpec:
        """Wrap the script."""
        return PipelineSpec(shell_pipeline({"only": script}), **fields)


class TestKubeflowProfiles(TestKubeflow):
    """A server on which every user has a namespace."""

    @pytest.fixture
    def backend(self, many_users: KfpFake) -> KubeflowPipelines:
        """Use the namespace of one user."""
        return KubeflowPipelines.from_connection(many_users.connection(namespace="team-a"))


@pytest.fixture(scope="module")
def vertex() -> Iterator[VertexFake]:
    """Give a project on Vertex AI."""
    with vertex_fake() as fake:
        yield fake


class TestVertex(PipelineBackendContract):
    """PipelineJobs of Vertex AI."""

    @pytest.fixture
    def backend(self, vertex: VertexFake) -> VertexPipelines:
        """Use the project."""
        return VertexPipelines.from_connection(vertex.connection())

    def spec(self, script: str, **fields: Any) -> PipelineSpec:
        """Wrap the script."""
        return PipelineSpec(shell_pipeline({"only": script}), **fields)


@pytest.fixture(scope="module")
def workspace() -> Iterator[AzureMLFake]:
    """Give a workspace of Azure Machine Learning."""
    with azureml_fake() as fake:
        yield fake


class TestAzureML(PipelineBackendContract):
    """Pipeline jobs of a workspace, whose steps are a component that it has."""

    @pytest.fixture
    def backend(self, workspace: AzureMLFake) -> AzureMLPipelines:
        """Use the workspace."""
        return AzureMLPipelines.from_connection(workspace.connection())

    @pytest.fixture(autouse=True)
    def described(self, workspace: AzureMLFake) -> None:
        """Let pipelines be made of the workspace's component."""
        self.workspace = workspace

    def spec(self, script: str, **fields: Any) -> PipelineSpec:
        """Wrap the script."""
        return PipelineSpec(self.workspace.shell_pipeline({"only": script}), **fields)


@pytest.fixture(scope="module")
def aws() -> Iterator[SageMakerFake]:
    """Give an account with SageMaker."""
    with sagemaker_fake() as fake:
        yield fake


class TestSageMaker(PipelineBackendContract):
    """Executions of pipelines that an account of SageMaker has."""

    fake: SageMakerFake

    @pytest.fixture
    def backend(self, aws: SageMakerFake) -> SageMakerPipelines:
        """Use the account."""
        self.fake = aws
        return SageMakerPipelines.from_connection(aws.connection())

    def spec(self, script: str, **fields: Any) -> PipelineSpec:
        """Let the account have a pipeline for the script."""
        name = f"pipeline-{text_digest(script)[-12:]}"
        self.fake.add_pipeline(name, {"only": script})
        return PipelineSpec(name, **fields)


def test_our_own_backend_comes_in_by_its_entry_point() -> None:
    """It is found through the entry points of the installed package."""
    assert load_plugin(PIPELINE_BACKENDS, "kubeflow") is KubeflowPipelines
