"""TrainJobs in the fake: shape, webhook, the Job that becomes of them, and their status, as in Kubeflow Trainer 2.3."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kubernetes import client

from airflow_mlops.testing.kubernetes import KubernetesFake, kubernetes_fake
from airflow_mlops.testing.kubernetes.problems import Problem
from airflow_mlops.testing.kubernetes.trainer import (
    CLUSTER_RUNTIMES,
    RUNTIMES_OF_NAMESPACES,
    TRAINER_KINDS,
    training_runtime,
)

WHERE = ("trainer.kubeflow.org", "v1alpha1", "default", "trainjobs")


class Trainer:
    """A fake with two runtimes, and what every test does with it."""

    def __init__(self, fake: KubernetesFake) -> None:
        self.fake = fake
        api = client.ApiClient(fake.configuration())
        self.custom, self.core, self.batch = client.CustomObjectsApi(api), client.CoreV1Api(api), client.BatchV1Api(api)

    def submit(self, name: str, script: str = "true", nodes: int = 1, **spec: Any) -> Any:
        """Create a TrainJob whose nodes run *script*; *spec* is merged into its spec."""
        trainer = {"numNodes": nodes, "command": ["sh", "-c", script], **spec.pop("trainer", {})}
        body = {"runtimeRef": {"name": "torch-distributed"}, "trainer": trainer, **spec}
        kind = {"apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob"}
        return self.custom.create_namespaced_custom_object(*WHERE, {**kind, "metadata": {"name": name}, "spec": body})

    def get(self, name: str) -> Any:
        """Read a TrainJob."""
        return self.custom.get_namespaced_custom_object(*WHERE, name)

    def patch(self, name: str, **spec: Any) -> Any:
        """Merge *spec* into the spec of a TrainJob."""
        return self.custom.patch_namespaced_custom_object(*WHERE, name, {"spec": spec})

    def conditions(self, name: str) -> dict[str, str]:
        """Return the true conditions of a TrainJob with their reasons."""
        found = self.get(name).get("status", {}).get("conditions", [])
        return {one["type"]: one["reason"] for one in found if one["status"] == "True"}

    def counts(self, name: str) -> dict[str, int]:
        """Return what the status counts for the nodes: those that are not 0."""
        found = self.get(name).get("status", {}).get("jobsStatus", [{}])[0]
        return {key: value for key, value in found.items() if key != "name" and value}

    def pods(self, name: str) -> list[Any]:
        """Return the pods by the labels that JobSet writes, by index."""
        wanted = f"jobset.sigs.k8s.io/jobset-name={name},jobset.sigs.k8s.io/replicatedjob-name=node"
        return sorted(
            self.core.list_namespaced_pod("default", label_selector=wanted).items, key=lambda pod: pod.spec.hostname
        )

    def log(self, pod: str) -> str:
        """Return what a pod printed."""
        return str(self.core.read_namespaced_pod_log(pod, "default", _preload_content=False).data.decode())


@pytest.fixture(scope="module")
def trainer() -> Iterator[Trainer]:
    """Give a fake with a torch runtime of the cluster and a plain one of the namespace."""
    with kubernetes_fake(*TRAINER_KINDS) as fake:
        fake.create(CLUSTER_RUNTIMES, training_runtime())
        plain = training_runtime("plain", kind=RUNTIMES_OF_NAMESPACES, is_torch=False, network={"subdomain": "net"})
        fake.create(RUNTIMES_OF_NAMESPACES, plain, "default")
        yield Trainer(fake)


def refused(call: Callable[[], Any]) -> tuple[int, str]:
    """Return code and text with which a request is refused."""
    with pytest.raises(client.ApiException) as caught:
        call()
    return caught.value.status, str(caught.value.body)


def test_the_nodes_run_and_know_each_other(trainer: Trainer, until: Callable[..., Any]) -> None:
    """Two nodes run as an Indexed Job with JobSet's names, and torch's variables tell them their world."""
    trainer.submit("world", 'echo "$HOSTNAME $PET_NODE_RANK/$PET_NNODES at $PET_MASTER_ADDR:$PET_MASTER_PORT"', nodes=2)
    until(lambda: "Complete" in trainer.conditions("world"))
    assert (trainer.conditions("world"), trainer.counts("world")) == (
        {"Complete": "AllJobsCompleted"},
        {"succeeded": 1},
    )
    told = [trainer.log(pod.metadata.name) for pod in trainer.pods("world")]
    assert told == [f"world-node-0-{rank} {rank}/2 at world-node-0-0.world:29500\n" for rank in range(2)]
    job = trainer.batch.read_namespaced_job("world-node-0", "default")
    assert (job.spec.completion_mode, job.spec.completions) == ("Indexed", 2)
    assert [owner.kind for owner in job.metadata.owner_references] == ["JobSet"]


def test_a_node_that_fails_fails_the_job(trainer: Trainer, until: Callable[..., Any]) -> None:
    """The TrainJob only says that a Job failed; why is in the pods."""
    trainer.submit("bad", "exit 3")
    until(lambda: "Failed" in trainer.conditions("bad"))
    assert (trainer.conditions("bad"), trainer.counts("bad")) == ({"Failed": "FailedJobs"}, {"failed": 1})
    assert "first failed job: bad-node-0" in trainer.get("bad")["status"]["conditions"][0]["message"]


def test_the_deadline_deletes_the_nodes(trainer: Trainer, until: Callable[..., Any]) -> None:
    """Past ``activeDeadlineSeconds`` the TrainJob fails with a reason of its own, and nothing of it is left running."""
    trainer.submit("long", "sleep 60", activeDeadlineSeconds=1)
    until(lambda: trainer.conditions("long") == {"Failed": "DeadlineExceeded"})
    until(lambda: not trainer.pods("long"))


def test_suspending_stops_and_resuming_goes_on(trainer: Trainer, until: Callable[..., Any]) -> None:
    """A suspended TrainJob has no pods; resumed, it has new ones."""
    trainer.submit("pause", "sleep 60")
    until(lambda: trainer.counts("pause") == {"ready": 1, "active": 1})
    before = trainer.pods("pause")[0].metadata.name
    trainer.patch("pause", suspend=True)
    until(lambda: not trainer.pods("pause"))
    assert trainer.conditions("pause") == {"Suspended": "Suspended"}
    until(lambda: trainer.counts("pause") == {"suspended": 1})
    trainer.patch("pause", suspend=False)
    until(lambda: trainer.counts("pause") == {"ready": 1, "active": 1})
    assert trainer.conditions("pause") == {}
    assert [pod.metadata.name for pod in trainer.pods("pause")] != [before]
    trainer.custom.delete_namespaced_custom_object(*WHERE, "pause")
    until(lambda: not trainer.pods("pause"))


def test_the_webhook_knows_the_runtimes(trainer: Trainer) -> None:
    """An unknown runtime, a wrong kind and a runtime of another scope are refused with 403 and the webhook's words."""
    code, told = refused(lambda: trainer.submit("lost", runtimeRef={"name": "nope"}))
    assert code == 403
    assert "must be created before the TrainJob is created" in told
    assert (
        "unsupported runtime: Deployment"
        in refused(lambda: trainer.submit("odd", runtimeRef={"name": "x", "kind": "Deployment"}))[1]
    )
    assert refused(lambda: trainer.submit("scope", runtimeRef={"name": "plain"}))[0] == 403


@pytest.mark.parametrize(
    ("spec", "code", "told"),
    [
        ({"podTemplateOverrides": []}, 400, "unknown field"),
        ({"trainer": {"labels": {}}}, 400, "unknown field"),
        ({"trainer": {"env": [{"name": "A", "valve": "b"}]}}, 400, "unknown field"),
        ({"activeDeadlineSeconds": 0}, 422, "at least 1"),
        ({"trainer": {"args": ["x"] * 129}}, 422, "at most 128"),
        ({"trainer": {"env": [{"name": "PET_NNODES", "value": "3"}]}}, 403, "reserved envs"),
        ({"trainer": {"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}}, 422, "Duplicate value"),
        ({"runtimePatches": [{"manager": "me/us"}, {"manager": "me/us"}]}, 422, "Duplicate value"),
        ({"runtimePatches": [{"manager": "me"}]}, 403, "domain-prefixed"),
    ],
)
def test_what_the_api_refuses(trainer: Trainer, spec: dict[str, Any], code: int, told: str) -> None:
    """Fields of older releases, misspelt ones, bounds and reserved variables are refused as a cluster refuses them."""
    found, text = refused(lambda: trainer.submit("wrong", **spec))
    assert (found, told in text) == (code, True), text


def test_patches_reach_the_pods_and_only_what_exists(trainer: Trainer, until: Callable[..., Any]) -> None:
    """A patch of the runtime changes labels, placement and volumes of the pods; a job or container must be in it."""

    def patch(job: str = "node", container: str = "node") -> list[dict[str, Any]]:
        mounts = [{"name": "data", "mountPath": "/data"}]
        pod = {
            "nodeSelector": {"pool": "gpu"},
            "volumes": [{"name": "data", "emptyDir": {}}],
            "containers": [{"name": container, "volumeMounts": mounts}],
        }
        template = {"metadata": {"labels": {"mine": "yes"}}, "spec": pod}
        jobs = [{"name": job, "template": {"spec": {"template": template}}}]
        return [{"manager": "me/us", "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": jobs}}}}]

    trainer.submit("patched", runtimePatches=patch())
    until(lambda: "Complete" in trainer.conditions("patched"))
    (pod,) = trainer.pods("patched")
    assert (pod.metadata.labels["mine"], pod.spec.node_selector) == ("yes", {"pool": "gpu"})
    assert [mount.mount_path for mount in pod.spec.containers[0].volume_mounts] == ["/data"]
    assert trainer.get("patched")["spec"]["runtimePatches"][0]["time"]
    assert refused(lambda: trainer.submit("p1", runtimePatches=patch(job="launcher")))[0] == 403
    assert refused(lambda: trainer.submit("p2", runtimePatches=patch(container="side")))[0] == 403


def test_what_was_submitted_stays(trainer: Trainer) -> None:
    """Trainer and deadline are immutable; patches may change only while the TrainJob is suspended."""
    trainer.submit("fixed", activeDeadlineSeconds=60)
    assert refused(lambda: trainer.patch("fixed", activeDeadlineSeconds=61))[0] == 422
    assert refused(lambda: trainer.patch("fixed", trainer={"numNodes": 2}))[0] == 422
    assert refused(lambda: trainer.patch("fixed", runtimePatches=[{"manager": "me/us"}]))[0] == 403


@pytest.mark.parametrize(
    ("resources", "processes"),
    [
        ({}, "1"),
        ({"requests": {"cpu": "1500m"}}, "2"),
        ({"limits": {"nvidia.com/gpu": "2"}, "requests": {"cpu": "8"}}, "auto"),
    ],
)
def test_torch_starts_a_process_a_core_or_a_gpu(
    trainer: Trainer, until: Callable[..., Any], resources: dict[str, Any], processes: str
) -> None:
    """Unless the TrainJob says how many, the torch runtime decides by the resources that are asked for."""
    name = f"procs-{processes}"
    trainer.submit(name, "echo $PET_NPROC_PER_NODE", trainer={"resourcesPerNode": resources})
    until(lambda: "Complete" in trainer.conditions(name))
    assert trainer.log(trainer.pods(name)[0].metadata.name) == f"{processes}\n"


def test_a_runtime_of_the_namespace_with_its_own_network(trainer: Trainer, until: Callable[..., Any]) -> None:
    """The subdomain of a runtime is that of its pods; a plain runtime adds no torch variables."""
    trainer.submit("plain", "echo ${PET_NNODES:-none}", runtimeRef={"name": "plain", "kind": "TrainingRuntime"})
    until(lambda: "Complete" in trainer.conditions("plain"))
    (pod,) = trainer.pods("plain")
    assert (pod.spec.subdomain, trainer.log(pod.metadata.name)) == ("net", "none\n")


def test_what_is_not_modelled_is_refused() -> None:
    """A runtime that would restart its program in place is 501, not run in another way."""
    runtime = training_runtime()
    del runtime["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"][
        "restartPolicy"
    ]
    with kubernetes_fake(*TRAINER_KINDS) as fake, pytest.raises(Problem, match="OnFailure"):
        fake.create(CLUSTER_RUNTIMES, runtime)
