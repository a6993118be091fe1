"""What the stop matrix needs of a platform: how to reach it, and what it says itself about the jobs on it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_mlops.platforms.azure_ml import AzureMLClient
from airflow_mlops.testing.azureml import AzureMLFake
from airflow_mlops.testing.kubernetes import KubernetesFake
from airflow_mlops.testing.kubernetes.kinds import NAMESPACES
from airflow_mlops.testing.kubernetes.trainer import CLUSTER_RUNTIMES, training_runtime
from airflow_mlops.testing.sagemaker import SageMakerFake
from airflow_mlops.testing.vertex import VertexFake
from airflow_mlops.training.backends.local import LocalBackend

ACTIVE, SUCCEEDED, STOPPED = "active", "succeeded", "stopped"
JOB_NAME, JOB_SET = "batch.kubernetes.io/job-name", "jobset.sigs.k8s.io/jobset-name"


@dataclass(frozen=True)
class Job:
    """One job, in the platform's own words.

    :param owner: the DAG that it belongs to
    :param state: ``active`` unless the platform is sure that nothing of it runs any more
    """

    owner: str
    name: str
    state: str


@dataclass(frozen=True)
class Platform:
    """One row of the matrix.

    :param env: the connection, as the variables of Airflow
    :param arguments: of the operator, that lead to it
    :param jobs: every job that is on it
    """

    name: str
    env: Mapping[str, str]
    arguments: Mapping[str, Any]
    jobs: Callable[[], list[Job]]


def local(folder: Path) -> Platform:
    """Return this machine: a job is over when nobody holds the lock of its folder."""
    backend = LocalBackend(folder)

    def jobs() -> list[Job]:
        owners = dict(backend.managed())
        words = {handle: status.state.value for handle, status in backend.observe(owners).items()}
        return [Job(owner.dag_id, handle.job_id, _state(words[handle])) for handle, owner in owners.items()]

    connection = {"conn_type": "mlops_local", "extra": {"workdir": str(folder), "grace": 2.0}}
    env = {"AIRFLOW_CONN_STOP_LOCAL": json.dumps(connection)}
    return Platform("local", env, {"backend": "local", "conn_id": "stop_local"}, jobs)


def kubernetes(fake: KubernetesFake) -> Platform:
    """Return a cluster: a Job is over when it says so itself and none of its pods lives."""
    fake.create(NAMESPACES, {"metadata": {"name": "kubernetes"}})
    cluster = Cluster(fake, "kubernetes")
    return Platform("kubernetes", *cluster.connection(), lambda: cluster.jobs(("batch", "v1", "jobs"), JOB_NAME))


def kubeflow(fake: KubernetesFake) -> Platform:
    """Return a cluster with Kubeflow Trainer: a TrainJob that is stopped for good is suspended."""
    fake.create(NAMESPACES, {"metadata": {"name": "kubeflow"}})
    fake.create(CLUSTER_RUNTIMES, training_runtime())
    cluster, kind = Cluster(fake, "kubeflow"), ("trainer.kubeflow.org", "v1alpha1", "trainjobs")
    return Platform("kubeflow", *cluster.connection(), lambda: cluster.jobs(kind, JOB_SET))


def vertex(fake: VertexFake) -> Platform:
    """Return Vertex AI: a job is over when it says so itself, after its programs have ended."""
    words = {4: SUCCEEDED, 5: STOPPED, 7: STOPPED}

    def jobs() -> list[Job]:
        return [
            Job(json.loads(variables(job)["MLOPS_OWNER"])["dag_id"], job["name"], words.get(job["state"], ACTIVE))
            for job in fake.jobs()
        ]

    def variables(job: dict[str, Any]) -> dict[str, str]:
        container = job["jobSpec"]["workerPoolSpecs"][0]["containerSpec"]
        return {one["name"]: one["value"] for one in container["env"] if "value" in one}

    connection = {"conn_type": "google_cloud_platform", "extra": fake.extras()}
    env = {"AIRFLOW_CONN_STOP_VERTEX": json.dumps(connection)}
    arguments = {"backend": "vertex", "conn_id": "stop_vertex", "image": "registry.test/train:1"}
    return Platform("vertex", env, arguments, jobs)


def sagemaker(fake: SageMakerFake) -> Platform:
    """Return an account: a training job has ended when SageMaker says so, which is after its last process."""

    def jobs() -> list[Job]:
        found = fake.jobs().items()
        owners = {name: {tag["Key"]: tag["Value"] for tag in job["Tags"]} for name, job in found}
        return [
            Job(owners[name]["airflow-mlops:dag_id"], name, _WORDS.get(job["TrainingJobStatus"], ACTIVE))
            for name, job in found
        ]

    env = {"AIRFLOW_CONN_STOP_SAGEMAKER": json.dumps(fake.airflow_connection())}
    return Platform("sagemaker", env, {"backend": "sagemaker", "conn_id": "stop_sagemaker", "image": "train:1"}, jobs)


_WORDS = {"Completed": SUCCEEDED, "Failed": STOPPED, "Stopped": STOPPED}


def azureml(fake: AzureMLFake) -> Platform:
    """Return a workspace of Azure Machine Learning: a job is over when it says so and none of its nodes runs."""
    client = AzureMLClient(fake.connection())
    words = {"Completed": SUCCEEDED, "Failed": STOPPED, "Canceled": STOPPED}

    def jobs() -> list[Job]:
        living = fake.going()
        found = [(job["name"], job["properties"]) for job in client.jobs("Command", "airflow-mlops")]
        owners = {name: json.loads(own["properties"]["mlops.owner"])["dag_id"] for name, own in found}
        states = {name: ACTIVE if name in living else words.get(own["status"], ACTIVE) for name, own in found}
        return [Job(owners[name], name, states[name]) for name, _ in found]

    env = {"AIRFLOW_CONN_STOP_AZUREML": json.dumps(fake.airflow_connection())}
    return Platform("azureml", env, {"backend": "azureml", "conn_id": "stop_azureml", "image": "train:1"}, jobs)


class Cluster:
    """One namespace of a cluster, asked with the official client."""

    def __init__(self, fake: KubernetesFake, namespace: str) -> None:
        from kubernetes import client

        api = client.ApiClient(fake.configuration())
        self._objects, self._core = client.CustomObjectsApi(api), client.CoreV1Api(api)
        self._kubeconfig, self._namespace = fake.kubeconfig, namespace

    def connection(self) -> tuple[dict[str, str], dict[str, Any]]:
        """Return the connection's variable and the arguments of the operator."""
        name = self._namespace
        extra = {"kube_config_path": str(self._kubeconfig), "namespace": name}
        env = {f"AIRFLOW_CONN_STOP_{name.upper()}": json.dumps({"conn_type": "kubernetes", "extra": extra})}
        return env, {"backend": name, "conn_id": f"stop_{name}", "image": "registry.test/train:1"}

    def jobs(self, kind: tuple[str, str, str], label: str) -> list[Job]:
        """Return the jobs of a kind, whose pods bear their name as a label."""
        group, version, plural = kind
        found = self._objects.list_namespaced_custom_object(group, version, self._namespace, plural)["items"]
        pods = self._core.list_namespaced_pod(self._namespace).items
        living = {pod.metadata.labels.get(label) for pod in pods if pod.status.phase not in ("Succeeded", "Failed")}
        return [_job(each, living) for each in found]


def _job(body: dict[str, Any], living: set[str | None]) -> Job:
    name, annotations = body["metadata"]["name"], body["metadata"]["annotations"]
    conditions = body.get("status", {}).get("conditions", [])
    held = {each["type"] for each in conditions if each["status"] == "True"}
    state = SUCCEEDED if "Complete" in held else STOPPED if held & {"Failed", "Suspended"} else ACTIVE
    owner = json.loads(annotations["airflow-mlops/owner"])["dag_id"]
    return Job(owner, name, ACTIVE if name in living else state)


def _state(word: str) -> str:
    return {"succeeded": SUCCEEDED, "failed": STOPPED, "cancelled": STOPPED}.get(word, ACTIVE)
