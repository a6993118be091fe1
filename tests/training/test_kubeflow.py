"""The Kubeflow backend against a strict fake of Kubernetes and Kubeflow Trainer, whose nodes really run."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import (
    ConflictError,
    InvalidSpecError,
    NotFoundError,
    PlatformUnavailableError,
    UnsupportedFeatureError,
)
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.core.refs import DataVersion
from airflow_mlops.platforms.kubernetes import JOBS, PODS, KubernetesApi
from airflow_mlops.platforms.kubernetes import SECRETS as SECRETS_OF_API
from airflow_mlops.testing.kubernetes import KubernetesFake, kubernetes_fake
from airflow_mlops.testing.kubernetes.kinds import EVENTS, SECRETS
from airflow_mlops.testing.kubernetes.trainer import (
    CLUSTER_RUNTIMES,
    RUNTIMES_OF_NAMESPACES,
    TRAINER_KINDS,
    training_runtime,
)
from airflow_mlops.testing.kubernetes.trainer import TRAIN_JOBS as KIND
from airflow_mlops.training.backends.kubeflow import TRAIN_JOBS, KubeflowBackend
from airflow_mlops.training.contract import FailureReason, JobHandle, JobState, JobStatus, TrainingSpec

OWNER = TaskIdentity("dag", "run", "train", deployment_id="here")
QUEUE = {"kueue.x-k8s.io/queue-name": "team"}


@pytest.fixture(scope="module")
def fake() -> Iterator[KubernetesFake]:
    """Give a cluster with the runtime of our guide, and two others."""
    with kubernetes_fake(*TRAINER_KINDS) as found:
        found.create(CLUSTER_RUNTIMES, training_runtime())
        found.create(CLUSTER_RUNTIMES, training_runtime("careless", fails_on_disruption=False))
        plain = training_runtime("plain", kind=RUNTIMES_OF_NAMESPACES, is_torch=False, network={"subdomain": "net"})
        found.create(RUNTIMES_OF_NAMESPACES, plain, "default")
        patient = training_runtime("patient")
        job = patient["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]
        job["template"]["spec"]["terminationGracePeriodSeconds"] = 30
        found.create(CLUSTER_RUNTIMES, patient)
        yield found


def connect(fake: KubernetesFake, **extras: Any) -> KubeflowBackend:
    """Return a backend as a new process makes it."""
    return KubeflowBackend.from_connection(
        ConnectionInfo("c", extra={"kube_config_path": str(fake.kubeconfig), **extras})
    )


@pytest.fixture
def backend(fake: KubernetesFake) -> KubeflowBackend:
    """Give a backend."""
    return connect(fake)


@pytest.fixture
def api(fake: KubernetesFake) -> KubernetesApi:
    """Give an administrator's view."""
    return KubernetesApi(ConnectionInfo("admin", extra={"kube_config_path": str(fake.kubeconfig)}))


@pytest.fixture
def name() -> str:
    """Give a name nobody has used."""
    return f"aml-{uuid.uuid4().hex[:16]}"


def shell(script: str, **fields: Any) -> TrainingSpec:
    """Return a spec that runs a shell script."""
    return TrainingSpec(("sh", "-c", script), **fields)


def deaf(gate: Path, **options: Any) -> TrainingSpec:
    """Return a spec whose program saves its state until there is a *gate*, after it was told to end."""
    script = f"trap 'while [ ! -e {gate} ]; do sleep 0.02; done; exit 0' TERM; while :; do sleep 0.02; done"
    return shell(script, options={"runtime": "patient", **options})


def until(look: Callable[[], Any], seconds: float = 15) -> Any:
    """Look until there is something."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.03)
    return found


def state(backend: KubeflowBackend, handle: JobHandle, *wanted: JobState) -> JobStatus:
    """Wait until the job is in one of these states; by default in any last one."""

    def look() -> JobStatus | None:
        status = backend.observe([handle])[handle]
        return status if (status.state in wanted if wanted else status.state.terminal) else None

    found: JobStatus = until(look)
    return found


def pods(api: KubernetesApi, name: str) -> list[dict[str, Any]]:
    """Return the pods of a TrainJob."""
    return api.list(PODS, "default", labels=f"jobset.sigs.k8s.io/jobset-name={name}")[0]


def lives(process: int) -> bool:
    """Say whether a process runs."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_two_nodes_train_and_node_0_reports(backend: KubeflowBackend, api: KubernetesApi, name: str) -> None:
    """Each node knows its rank, the world and its master; the result is what node 0 wrote, with run and data."""
    script = (
        'echo "$MLOPS_NODE_RANK of $MLOPS_NODES, master $MLOPS_MASTER_ADDR:$MLOPS_MASTER_PORT, torch $PET_NODE_RANK";'
        'echo "{\\"metrics\\": {\\"rank\\": $MLOPS_NODE_RANK}, \\"model_uri\\": \\"models:/m\\"}" > "$MLOPS_OUTPUT"'
    )
    data = DataVersion("data/churn", "main", "c" * 40, "md5:" + "0" * 32, 10)
    spec = shell(script, nodes=2, env={"MLFLOW_RUN_ID": "r1"}, inputs={"train": data})
    handle = backend.submit(spec, name=name, owner=OWNER)
    assert handle.job_id == f"default/{name}"
    assert state(backend, handle).state is JobState.SUCCEEDED
    result = backend.collect(handle)
    assert (result.metrics, result.model_uri, result.run_id) == ({"rank": 0.0}, "models:/m", "r1")
    assert result.data == {"train": data}
    told = {b"".join(api.log("default", pod["metadata"]["name"])).decode() for pod in pods(api, name)}
    world = f"2, master {name}-node-0-0.{name}:29500"
    assert told == {f"{rank} of {world}, torch {rank}\n" for rank in range(2)}
    assert backend.read_log(handle, 0)[0] == f"0 of {world}, torch 0\n"


def test_a_failed_program_is_explained_by_its_pod(backend: KubeflowBackend, name: str) -> None:
    """Exit code, pod and last lines are told, and that it was the program."""
    handle = backend.submit(shell("echo 'no such column: age'; exit 7"), name=name, owner=OWNER)
    status = state(backend, handle)
    assert (status.state, status.reason, status.native) == (JobState.FAILED, FailureReason.USER_CODE, "Failed")
    assert "exit code 7" in status.detail
    assert "no such column: age" in status.detail


def test_out_of_memory_and_out_of_time_have_their_reasons(
    backend: KubeflowBackend, fake: KubernetesFake, api: KubernetesApi, name: str
) -> None:
    """Memory is told by the pod; time by the TrainJob, whose pods are gone by then."""
    hungry = backend.submit(shell("sleep 60"), name=name, owner=OWNER)
    slow = backend.submit(shell("sleep 60", max_runtime=1.0), name=f"{name}-slow", owner=OWNER)
    state(backend, hungry, JobState.RUNNING)
    fake.out_of_memory(pods(api, name)[0]["metadata"]["name"])
    assert state(backend, hungry).reason is FailureReason.OUT_OF_MEMORY
    status = state(backend, slow)
    assert (status.state, status.reason) == (JobState.FAILED, FailureReason.TIMEOUT)
    until(lambda: not pods(api, f"{name}-slow"))


def test_cancelled_is_said_when_the_last_process_has_ended(
    backend: KubeflowBackend, fake: KubernetesFake, api: KubernetesApi, name: str, tmp_path: Path
) -> None:
    """While a node is still saving its state the job is not called stopped; then it stays for the record."""
    gate = tmp_path / "gate"
    handle = backend.submit(deaf(gate), name=name, owner=OWNER)
    state(backend, handle, JobState.RUNNING)
    process = fake.process_id(pods(api, name)[0]["metadata"]["name"])
    backend.cancel(handle)
    until(lambda: not api.get(JOBS, "default", f"{name}-node-0")["status"].get("active"))
    for _ in range(5):
        assert (backend.observe([handle])[handle].state, lives(process)) == (JobState.RUNNING, True)
    gate.touch()
    assert state(backend, handle).state is JobState.CANCELLED
    assert not lives(process)
    assert backend.submit(deaf(gate), name=name, owner=OWNER) == handle


def test_what_a_queue_would_resume_is_deleted(
    backend: KubeflowBackend, fake: KubernetesFake, api: KubernetesApi, name: str, tmp_path: Path
) -> None:
    """Kueue starts again what it finds suspended: its TrainJobs are deleted, and run on until their pods are gone."""
    gate = tmp_path / "gate"
    handle = backend.submit(deaf(gate, labels=QUEUE), name=name, owner=OWNER)
    state(backend, handle, JobState.RUNNING)
    process = fake.process_id(pods(api, name)[0]["metadata"]["name"])
    backend.cancel(handle)
    assert backend.locate(name) is None
    for _ in range(5):
        status = backend.observe([handle])[handle]
        assert (status.state, status.native, lives(process)) == (JobState.RUNNING, "Deleting", True)
    gate.touch()
    until(lambda: handle not in backend.observe([handle]))
    assert not lives(process)


def test_pods_that_outlive_their_deadline_are_ended(
    backend: KubeflowBackend, fake: KubernetesFake, api: KubernetesApi, name: str
) -> None:
    """Trainer may fail to delete them: the job counts as running, and cancelling it ends them."""
    handle = backend.submit(shell("sleep 60", max_runtime=600.0), name=name, owner=OWNER)
    state(backend, handle, JobState.RUNNING)
    process = fake.process_id(pods(api, name)[0]["metadata"]["name"])
    failed = {"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": "too long"}
    fake.set_status(KIND, name, {"conditions": [failed | {"lastTransitionTime": "2026-01-01T00:00:00Z"}]})
    status = backend.observe([handle])[handle]
    assert (status.state, status.native) == (JobState.RUNNING, "DeadlineExceeded")
    backend.cancel(handle)
    until(lambda: handle not in backend.observe([handle]))
    assert not lives(process)


def test_without_the_right_to_see_pods_a_job_is_still_seen(
    backend: KubeflowBackend, fake: KubernetesFake, name: str
) -> None:
    """What the TrainJob itself says is told, with what could not be read; a job that is gone is gone."""
    handle = backend.submit(shell("exit 3"), name=name, owner=OWNER)
    state(backend, handle)
    fake.faults.fail(1, code=403, verb="list", resource="pods")
    status = backend.observe([handle])[handle]
    assert (status.state, status.reason) == (JobState.FAILED, FailureReason.NONE)
    assert "cannot be read" in status.detail
    fake.faults.fail(1, code=403, verb="list", resource="pods")
    assert backend.observe([JobHandle("kubeflow", f"default/{name}-gone")]) == {}


def test_what_keeps_a_job_from_starting_is_told(
    backend: KubeflowBackend, fake: KubernetesFake, api: KubernetesApi, name: str
) -> None:
    """A TrainJob without a Job is pending, and the controller's warnings are its detail."""
    found = backend.submit(shell("true"), name=f"{name}-b", owner=OWNER)
    body = api.get(TRAIN_JOBS, "default", f"{name}-b")
    metadata = {"name": name, **{key: body["metadata"][key] for key in ("labels", "annotations")}}
    spec = {**body["spec"], "managedBy": "kueue.x-k8s.io/multikueue"}
    made = api.create(TRAIN_JOBS, "default", {**body, "metadata": metadata, "spec": spec, "status": {}})
    about = {"kind": "TrainJob", "name": name, "namespace": "default", "uid": made["metadata"]["uid"]}
    event = {"metadata": {"name": name}, "involvedObject": about, "type": "Warning", "message": "no such quota"}
    fake.create(EVENTS, {**event, "reason": "TrainJobResourcesCreationFailed"}, "default")
    status = backend.observe([replace(found, job_id=f"default/{name}")]).popitem()[1]
    assert (status.state, status.native) == (JobState.PENDING, "Created")
    assert "TrainJobResourcesCreationFailed: no such quota" in status.detail


def test_a_runtime_that_repeats_programs_is_warned_of(
    backend: KubeflowBackend, fake: KubernetesFake, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Who uses it reads in the task's log what will happen to a program that fails."""
    runtime = training_runtime("again")
    del runtime["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["backoffLimit"]
    fake.create(CLUSTER_RUNTIMES, runtime)
    backend.submit(shell("true"), name=f"{name}-b", owner=OWNER)
    assert caplog.text == ""
    backend.submit(shell("true", options={"runtime": "again"}), name=name, owner=OWNER)
    assert "'again' starts a program that failed again, up to 6 times" in caplog.text


def test_suspended_by_somebody_else_is_waiting(backend: KubeflowBackend, api: KubernetesApi, name: str) -> None:
    """It is pending, not cancelled, and goes on when it is resumed; cancelled while it waits, it is deleted."""
    handle = backend.submit(shell("sleep 60"), name=name, owner=OWNER)
    state(backend, handle, JobState.RUNNING)
    api.patch(TRAIN_JOBS, "default", name, {"spec": {"suspend": True}})
    assert "suspended" in state(backend, handle, JobState.PENDING).detail
    api.patch(TRAIN_JOBS, "default", name, {"spec": {"suspend": False}})
    state(backend, handle, JobState.RUNNING)
    api.patch(TRAIN_JOBS, "default", name, {"spec": {"suspend": True}})
    backend.cancel(handle)
    until(lambda: backend.locate(name) is None)


def test_a_node_taken_away_is_preempted(
    backend: KubeflowBackend, fake: KubernetesFake, api: KubernetesApi, name: str
) -> None:
    """With the rule of our runtime the Job below tells it, also when the pod is gone."""
    handle = backend.submit(shell("sleep 60", spot=True, nodes=2), name=name, owner=OWNER)
    state(backend, handle, JobState.RUNNING)
    fake.preempt(pods(api, name)[1]["metadata"]["name"])
    status = state(backend, handle)
    assert (status.state, status.native) == (JobState.PREEMPTED, "Preempted")
    assert "DisruptionTarget" in status.detail


def test_spot_needs_a_runtime_that_tells(backend: KubeflowBackend, name: str) -> None:
    """A runtime that would make a lost node look like a failed program is refused, before anything runs."""
    spec = shell("true", spot=True, options={"runtime": "careless"})
    with pytest.raises(UnsupportedFeatureError, match=r"'spot'.*'careless'.*DisruptionTarget"):
        backend.submit(spec, name=name, owner=OWNER)
    assert backend.locate(name) is None


def test_an_unknown_runtime_is_named(backend: KubeflowBackend, fake: KubernetesFake, name: str) -> None:
    """We say what to set; if we may not read runtimes, the webhook's words are not taken for a missing right."""
    spec = shell("true", options={"runtime": "torch-distrbuted"})
    with pytest.raises(NotFoundError, match=r"no ClusterTrainingRuntime 'torch-distrbuted'.*option 'runtime'"):
        backend.submit(spec, name=name, owner=OWNER)
    fake.faults.fail(1, code=403, verb="get", resource="clustertrainingruntimes")
    with pytest.raises(InvalidSpecError, match="must be created before the TrainJob") as caught:
        backend.submit(spec, name=name, owner=OWNER)
    assert "right" not in str(caught.value)


def test_the_runtime_of_our_guide_is_good(fake: KubernetesFake, backend: KubeflowBackend, name: str) -> None:
    """What the guide tells people to apply is accepted, tells a lost node, and runs a program once."""
    guide = Path(__file__).parents[2] / "docs" / "howto" / "kubeflow.md"
    text = guide.read_text().partition("```yaml\n")[2].partition("```")[0]
    fake.create(CLUSTER_RUNTIMES, yaml.safe_load(text))
    spec = shell("exit 3", spot=True, options={"runtime": "airflow-mlops"})
    handle = backend.submit(spec, name=name, owner=OWNER)
    assert "exit code 3" in state(backend, handle).detail


def test_a_runtime_of_the_namespace_from_the_connection(fake: KubernetesFake, api: KubernetesApi, name: str) -> None:
    """The connection's extras are defaults, and a subdomain of the runtime's own is in the master's name."""
    backend = connect(fake, runtime="plain", runtime_kind="TrainingRuntime")
    handle = backend.submit(shell("echo $MLOPS_MASTER_ADDR", nodes=2), name=name, owner=OWNER)
    assert state(backend, handle).state is JobState.SUCCEEDED
    assert backend.read_log(handle, 0)[0] == f"{name}-node-0-0.net\n"
    assert api.get(TRAIN_JOBS, "default", name)["spec"]["runtimeRef"]["kind"] == "TrainingRuntime"


def test_secrets_reach_the_program_and_nothing_else(
    backend: KubeflowBackend, fake: KubernetesFake, api: KubernetesApi, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Secret of the cluster is referred to; a variable of the worker is in a Secret that goes with the TrainJob."""
    fake.create(SECRETS, {"metadata": {"name": f"{name}-s3"}, "stringData": {"key": "in-the-cluster"}}, "default")
    monkeypatch.setenv("WORKER_TOKEN", "of-the-worker")
    spec = shell(
        'test "$A-$B" = "in-the-cluster-$(echo rekrow-eht-fo | rev)" && exec sleep 60',
        secret_env={"A": f"{name}-s3/key", "B": "WORKER_TOKEN"},
    )
    handle = backend.submit(spec, name=name, owner=OWNER)
    state(backend, handle, JobState.RUNNING)
    described = [*api.list(TRAIN_JOBS, "default")[0], *api.list(JOBS, "default")[0], *api.list(PODS, "default")[0]]
    assert "of-the-worker" not in str(described)
    api.delete(SECRETS_OF_API, "default", name)
    assert backend.submit(spec, name=name, owner=OWNER) == handle
    assert api.get(SECRETS_OF_API, "default", name)["metadata"]["ownerReferences"][0]["kind"] == "TrainJob"
    api.delete(TRAIN_JOBS, "default", name)
    until(lambda: not api.list(SECRETS_OF_API, "default", labels="app.kubernetes.io/managed-by=airflow-mlops")[0])


def test_a_checkpoint_claim_is_mounted(backend: KubeflowBackend, name: str) -> None:
    """Two attempts see the same folder of the claim."""
    written = shell('echo 7 > "$MLOPS_CHECKPOINT_DIR/epoch"', checkpoint="pvc://claim/churn")
    read = shell('cat "$MLOPS_CHECKPOINT_DIR/epoch"', checkpoint="pvc://claim/churn")
    first = backend.submit(written, name=name, owner=OWNER)
    assert state(backend, first).state is JobState.SUCCEEDED
    second = backend.submit(read, name=f"{name}-b", owner=OWNER)
    assert state(backend, second).state is JobState.SUCCEEDED
    assert backend.read_log(second, 0)[0] == "7\n"


@pytest.mark.parametrize("verb", ["create", "get"])
def test_a_busy_failing_or_silent_server_makes_one_job(
    backend: KubeflowBackend, fake: KubernetesFake, api: KubernetesApi, name: str, verb: str
) -> None:
    """Throttled, failed and lost requests are sent again, and however often: there is one TrainJob."""
    fake.faults.throttle(1, retry_after=0, verb=verb, resource="trainjobs")
    fake.faults.fail(1, code=503, verb=verb, resource="trainjobs")
    fake.faults.lose_answers(1, verb=verb, resource="trainjobs")
    handle = backend.submit(shell("true"), name=name, owner=OWNER)
    assert state(backend, handle).state is JobState.SUCCEEDED
    assert [job["metadata"]["name"] for job in api.list(TRAIN_JOBS, "default")[0]].count(name) == 1
    assert len(pods(api, name)) == 1


def test_a_server_that_stays_away_is_unavailable(fake: KubernetesFake, backend: KubeflowBackend, name: str) -> None:
    """No answer is no news of a job; after a restart it is found by another process."""
    handle = backend.submit(shell("sleep 60"), name=name, owner=OWNER)
    fake.crash()
    with pytest.raises(PlatformUnavailableError):
        backend.observe([handle])
    fake.restart()
    other = connect(fake)
    assert other.locate(name) == handle
    assert other.submit(shell("sleep 60"), name=name, owner=OWNER) == handle
    with pytest.raises(ConflictError, match=name):
        other.submit(shell("sleep 61"), name=name, owner=OWNER)
    other.cancel(handle)
    assert state(other, handle).state is JobState.CANCELLED


def test_a_job_whose_runtime_is_gone_is_found_and_stopped(
    fake: KubernetesFake, backend: KubeflowBackend, api: KubernetesApi, name: str
) -> None:
    """Adopting asks for no runtime; the webhook lets nobody change such a TrainJob, so that it is deleted."""
    fake.create(CLUSTER_RUNTIMES, training_runtime("gone"))
    spec = shell("sleep 60", options={"runtime": "gone"})
    handle = backend.submit(spec, name=name, owner=OWNER)
    plural = CLUSTER_RUNTIMES.plural
    api.delete(type(TRAIN_JOBS)(TRAIN_JOBS.group, TRAIN_JOBS.version, plural), "", "gone")
    assert connect(fake).submit(spec, name=name, owner=OWNER) == handle
    backend.cancel(handle)
    until(lambda: backend.locate(name) is None)


def test_the_stream_tells_without_a_request(fake: KubernetesFake, backend: KubeflowBackend, name: str) -> None:
    """Looks are answered from memory, across a cut connection and a forgotten history."""
    handle = backend.submit(shell("sleep 60"), name=name, owner=OWNER)
    with backend.stream() as stream:
        until(lambda: stream.observe([handle])[handle].state is JobState.RUNNING)
        fake.compact_history()
        before = len(fake.calls.seen())
        for _ in range(20):
            stream.observe([handle])
        assert len(fake.calls.seen()) - before <= 2  # the watch may have been opened anew
        backend.cancel(handle)
        until(lambda: stream.observe([handle])[handle].state is JobState.CANCELLED)


def test_the_stream_tells_an_end_as_a_look_does(
    fake: KubernetesFake, backend: KubeflowBackend, api: KubernetesApi, name: str
) -> None:
    """A lost node is preempted for the stream too, though the TrainJob only says that it failed."""
    handle = backend.submit(shell("sleep 60", nodes=2), name=name, owner=OWNER)
    with backend.stream() as stream:
        until(lambda: stream.observe([handle])[handle].state is JobState.RUNNING)
        fake.preempt(pods(api, name)[0]["metadata"]["name"])
        status = until(lambda: (found := stream.observe([handle])[handle]).state.terminal and found)
    assert (status.state, status.native) == (JobState.PREEMPTED, "Preempted")


def test_owners_are_found_and_strangers_left_alone(backend: KubeflowBackend, api: KubernetesApi, name: str) -> None:
    """The sweep yields our jobs with their owners, not TrainJobs that others made."""
    handle = backend.submit(shell("true"), name=name, owner=OWNER)
    body = {"apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob", "metadata": {"name": f"x{name}"}}
    api.create(TRAIN_JOBS, "default", {**body, "spec": {"runtimeRef": {"name": "torch-distributed"}}})
    found = dict(backend.managed())
    assert found[handle] == OWNER
    assert not [one for one in found if f"x{name}" in one.job_id]


@pytest.mark.parametrize("code", [0, 3])
def test_what_is_billed_is_told_by_the_job_below(backend: KubeflowBackend, name: str, code: int) -> None:
    """A TrainJob has no times of its own: its Job's count, for each of two nodes, in the result and in a failure."""
    handle = backend.submit(shell(f"sleep 2; exit {code}", nodes=2), name=name, owner=OWNER)
    status = state(backend, handle)
    billed = status.billed_seconds if code else backend.collect(handle).billed_seconds
    assert billed is not None
    assert 2 * 1 <= billed <= 2 * 15
