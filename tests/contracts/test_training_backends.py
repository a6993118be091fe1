"""The training contract, kept by our own backend and by a stranger's that comes in through its entry point."""

from __future__ import annotations

import importlib
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.entrypoints import TRAINING_BACKENDS, load_plugin
from airflow_mlops.hooks.training import TrainingHook
from airflow_mlops.operators.training import TrainModelOperator
from airflow_mlops.testing.azureml import AzureMLFake, azureml_fake
from airflow_mlops.testing.kubernetes import KubernetesFake, kubernetes_fake
from airflow_mlops.testing.kubernetes.trainer import CLUSTER_RUNTIMES, TRAINER_KINDS, training_runtime
from airflow_mlops.testing.sagemaker import SageMakerFake, sagemaker_fake
from airflow_mlops.testing.task_runner import run_task
from airflow_mlops.testing.training_backend import TrainingBackendContract
from airflow_mlops.testing.vertex import VertexFake, vertex_fake
from airflow_mlops.training.backends.azureml import AzureMLBackend
from airflow_mlops.training.backends.kubeflow import KubeflowBackend
from airflow_mlops.training.backends.kubernetes import KubernetesBackend
from airflow_mlops.training.backends.local import LocalBackend
from airflow_mlops.training.backends.sagemaker import SageMakerBackend
from airflow_mlops.training.backends.vertex import VertexBackend
from airflow_mlops.training.contract import TrainingBackend, TrainingSpec

EXAMPLE = Path(__file__).parents[1] / "example_plugin"


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


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the example plugin for one test: its file on the path, its metadata as an installer would write it."""
    project: dict[str, Any] = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    info = tmp_path / "site" / f"mlops_nohup-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = project["entry-points"][TRAINING_BACKENDS]
    lines = [f"[{TRAINING_BACKENDS}]", *(f"{name} = {value}" for name, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    importlib.invalidate_caches()


class TestStranger(TrainingBackendContract):
    """A backend of another package: one file, one entry-point line."""

    @pytest.fixture
    def backend(self, installed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainingBackend:
        """Get it by its name, as a task does."""
        connection = {"conn_type": "generic", "extra": {"folder": str(tmp_path / "jobs")}}
        monkeypatch.setenv("AIRFLOW_CONN_NOHUP", json.dumps(connection))
        return TrainingHook("nohup", "nohup").get_backend()

    def test_the_operator_runs_on_it(self, backend: TrainingBackend) -> None:
        """Only the name of the backend changes in a DAG; one that shows no log is waited for all the same."""
        where = {"backend": "nohup", "conn_id": "nohup", "deferrable": False, "poll_interval": 0.1}
        run = run_task(TrainModelOperator(task_id="train", command="true", **where))
        assert (run.state, run.result["job"]["backend"]) == ("success", "nohup")


def test_our_own_backend_comes_in_by_the_same_door() -> None:
    """The local backend is found through the entry points of the installed package."""
    assert load_plugin(TRAINING_BACKENDS, "local") is LocalBackend
