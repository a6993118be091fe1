"""The columns of the kill-point matrix: where jobs run, and what the platform itself says about how many there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

from airflow_mlops.testing.azureml import AzureMLFake, azureml_fake
from airflow_mlops.testing.kubernetes import KubernetesFake, kubernetes_fake
from airflow_mlops.testing.kubernetes.kinds import NAMESPACES
from airflow_mlops.testing.kubernetes.trainer import CLUSTER_RUNTIMES, TRAINER_KINDS, training_runtime
from airflow_mlops.testing.sagemaker import SageMakerFake, sagemaker_fake
from airflow_mlops.testing.vertex import VertexFake, vertex_fake


class Platform(Protocol):
    """One column of the matrix: where jobs run, and what is there."""

    def connection(self, cell: str) -> dict[str, Any]:
        """Return the connection to a place of the cell's own."""
        ...

    def arguments(self) -> dict[str, Any]:
        """Return what the operator needs here besides."""
        ...

    def jobs(self, cell: str) -> int:
        """Count the jobs that were ever made at the cell's place, as the platform knows them."""
        ...


class Local:
    """Jobs are folders, and processes of this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def connection(self, cell: str) -> dict[str, Any]:
        return {"conn_type": "mlops_local", "extra": {"workdir": str(self._folder / cell), "grace": 0.5}}

    def arguments(self) -> dict[str, Any]:
        return {}

    def jobs(self, cell: str) -> int:
        return len(list((self._folder / cell).glob("*/job.json")))


@contextmanager
def local(folder: Path) -> Iterator[Platform]:
    """Keep jobs in a folder."""
    yield Local(folder / "jobs")


class Kubernetes:
    """Jobs are objects of a cluster, which keeps account of what it accepted. Each cell has a namespace."""

    def __init__(self, fake: KubernetesFake, plural: str) -> None:
        self._fake, self._plural = fake, plural

    def connection(self, cell: str) -> dict[str, Any]:
        self._fake.create(NAMESPACES, {"metadata": {"name": cell}})
        extra = {"kube_config_path": str(self._fake.kubeconfig), "namespace": cell}
        return {"conn_type": "kubernetes", "extra": extra}

    def arguments(self) -> dict[str, Any]:
        return {"image": "busybox:1"}

    def jobs(self, cell: str) -> int:
        return [call.namespace for call in self._fake.calls.seen("create", self._plural, 201)].count(cell)


@contextmanager
def kubernetes(folder: Path) -> Iterator[Platform]:
    """Run a cluster."""
    with kubernetes_fake() as fake:
        yield Kubernetes(fake, "jobs")


@contextmanager
def kubeflow(folder: Path) -> Iterator[Platform]:
    """Run a cluster with Kubeflow Trainer and a runtime."""
    with kubernetes_fake(*TRAINER_KINDS) as fake:
        fake.create(CLUSTER_RUNTIMES, training_runtime())
        yield Kubernetes(fake, "trainjobs")


class AzureML:
    """Jobs are of a workspace of Azure Machine Learning. Each cell has one of its own."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack, self._workspaces = stack, dict[str, AzureMLFake]()

    def connection(self, cell: str) -> dict[str, Any]:
        self._workspaces[cell] = self._stack.enter_context(azureml_fake())
        return self._workspaces[cell].airflow_connection()

    def arguments(self) -> dict[str, Any]:
        return {"image": "train:1"}

    def jobs(self, cell: str) -> int:
        return self._workspaces[cell].started()


@contextmanager
def azureml(folder: Path) -> Iterator[Platform]:
    """Run a workspace a cell."""
    with ExitStack() as stack:
        yield AzureML(stack)


class Vertex:
    """Jobs are CustomJobs of Vertex AI. Each cell has a project."""

    def __init__(self, fake: VertexFake) -> None:
        self._fake = fake

    def connection(self, cell: str) -> dict[str, Any]:
        return {"conn_type": "google_cloud_platform", "extra": self._fake.extras(project=cell)}

    def arguments(self) -> dict[str, Any]:
        return {"image": "train:1"}

    def jobs(self, cell: str) -> int:
        return len(self._fake.jobs(project=cell))


@contextmanager
def vertex(folder: Path) -> Iterator[Platform]:
    """Run Vertex AI."""
    with vertex_fake() as fake:
        yield Vertex(fake)


class SageMaker:
    """Training jobs stay in the account for ever. Each cell has a region."""

    def __init__(self, fake: SageMakerFake) -> None:
        self._fake = fake

    def connection(self, cell: str) -> dict[str, Any]:
        return self._fake.airflow_connection(region_name=cell)

    def arguments(self) -> dict[str, Any]:
        return {"image": "train:1"}

    def jobs(self, cell: str) -> int:
        return len(self._fake.jobs(cell))


@contextmanager
def sagemaker(folder: Path) -> Iterator[Platform]:
    """Run an account."""
    with sagemaker_fake() as fake:
        yield SageMaker(fake)


PLATFORMS: dict[str, Callable[[Path], AbstractContextManager[Platform]]] = {
    "local": local,
    "kubernetes": kubernetes,
    "kubeflow": kubeflow,
    "sagemaker": sagemaker,
    "azureml": azureml,
    "vertex": vertex,
}
