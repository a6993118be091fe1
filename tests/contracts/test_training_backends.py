"""The training contract, kept by all our backends. ``tests/example_plugin`` keeps it as the plugin of a stranger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.entrypoints import TRAINING_BACKENDS, load_plugin
from airflow_mlops.testing.azureml import AzureMLFake, azureml_fake
from airflow_mlops.testing.kubernetes import KubernetesFake, kubernetes_fake
from airflow_mlops.testing.kubernetes.trainer import CLUSTER_RUNTIMES, TRAINER_KINDS, training_runtime
from airflow_mlops.testing.sagemaker import SageMakerFake, sagemaker_fake
from airflow_mlops.testing.training_backend import TrainingBackendContract
from airflow_mlops.testing.vertex import VertexFake, vertex_fake
from airflow_mlops.training.backends.azureml import AzureMLBackend
from airflow_mlops.training.backends.kubeflow import KubeflowBackend
from airflow_mlops.training.backends.kubernetes import KubernetesBackend
from airflow_mlops.training.backends.local import LocalBackend
from airflow_mlops.training.backends.sagemaker import SageMakerBackend
from airflow_mlops.training.backends.vertex import VertexBackend
from airflow_mlops.training.contract import TrainingSpec


class TestLocal(TrainingBackendContract):
    """Processes of this machine."""

    tells_reasons = True

    @pytest.fixture
    def backend(self, tmp_path: Path) -> LocalBackend:
        """Keep jobs in the test's own folder."""
        return LocalBackend(tmp_path / "jobs")


@pytest.fixture(scope="module")
def cluster() -> Iterator[KubernetesFake]:
    """Run one cluster for all tests."""
    with kubernetes_fake() as fake:
        yield fake


class TestKubernetes(TrainingBackendContract):
    """Jobs of a Kubernetes cluster, through the official client over TLS."""

    tells_reasons = True

    @pytest.fixture
    def backend(self, cluster: KubernetesFake) -> KubernetesBackend:
        """Get in as Airflow's own connection does."""
        extra = {"kube_config_path": str(cluster.kubeconfig), "xcom_sidecar_container_image": ""}
        return KubernetesBackend.from_connection(ConnectionInfo("cluster", extra=extra))

    def spec(self, script: str, **fields: Any) -> TrainingSpec:
        """Run the script in an image."""
        return super().spec(script, **{"image": "busybox:1", **fields})


@pytest.fixture(scope="module")
def kubeflow() -> Iterator[KubernetesFake]:
    """Run one cluster with Kubeflow Trainer for all tests of the module."""
    with kubernetes_fake(*TRAINER_KINDS) as fake:
        fake.create(CLUSTER_RUNTIMES, training_runtime())
        yield fake


class TestKubeflow(TrainingBackendContract):
    """TrainJobs of a cluster."""

    @pytest.fixture
    def backend(self, kubeflow: KubernetesFake) -> KubeflowBackend:
        """Get in as any tool does: by the kube config."""
        extras = {"kube_config_path": str(kubeflow.kubeconfig)}
        return KubeflowBackend.from_connection(ConnectionInfo("cluster", extra=extras))


@pytest.fixture(scope="module")
def workspace() -> Iterator[AzureMLFake]:
    """Run one workspace of Azure Machine Learning for all tests of the module."""
    with azureml_fake() as fake:
        yield fake


class TestAzureML(TrainingBackendContract):
    """Command jobs of a workspace, as a service principal, with Azure's own library for the tokens."""

    tells_reasons = True

    @pytest.fixture
    def backend(self, workspace: AzureMLFake) -> AzureMLBackend:
        """Get in as Airflow's own connection does."""
        return AzureMLBackend.from_connection(workspace.connection())

    def spec(self, script: str, **fields: Any) -> TrainingSpec:
        """Run the script in an image."""
        return super().spec(script, **{"image": "busybox:1", **fields})


@pytest.fixture(scope="module")
def vertex() -> Iterator[VertexFake]:
    """Run Vertex AI for all tests of the module."""
    with vertex_fake() as fake:
        yield fake


class TestVertex(TrainingBackendContract):
    """CustomJobs of Vertex AI, through Google's own client over REST."""

    tells_reasons = True

    @pytest.fixture
    def backend(self, vertex: VertexFake) -> VertexBackend:
        """Get in as Airflow's own connection does."""
        return VertexBackend.from_connection(vertex.connection())

    def spec(self, script: str, **fields: Any) -> TrainingSpec:
        """Run the script in an image."""
        return super().spec(script, **{"image": "busybox:1", **fields})


class TestVertexPipeline(TestVertex):
    """The same container as the only step of a PipelineJob, whose id is exact."""

    def spec(self, script: str, **fields: Any) -> TrainingSpec:
        """Ask for the other mode."""
        return super().spec(script, **{"options": {"mode": "pipeline"}, **fields})


@pytest.fixture(scope="module")
def aws() -> Iterator[SageMakerFake]:
    """Run one account for all tests."""
    with sagemaker_fake() as fake:
        yield fake


class TestSageMaker(TrainingBackendContract):
    """Training jobs of Amazon SageMaker, through the official client."""

    tells_reasons = True

    @pytest.fixture
    def backend(self, aws: SageMakerFake) -> SageMakerBackend:
        """Get in as Airflow's own connection does."""
        return SageMakerBackend.from_connection(aws.connection())

    def spec(self, script: str, **fields: Any) -> TrainingSpec:
        """Run the script in an image."""
        return super().spec(script, **{"image": "busybox:1", **fields})


def test_our_own_backend_comes_in_by_the_same_door() -> None:
    """The local backend is found through the entry points of the installed package."""
    assert load_plugin(TRAINING_BACKENDS, "local") is LocalBackend
