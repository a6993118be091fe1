"""The Kubernetes backend's own promises, beyond those that all backends make, over TLS with the official client."""

from __future__ import annotations

import hashlib
import json
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import (
    ConflictError,
    InvalidSpecError,
    JobFailedError,
    NotFoundError,
    PlatformUnavailableError,
)
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.core.refs import DataVersion
from airflow_mlops.platforms.kubernetes import EVENTS, SECRETS, SERVICES, KubernetesApi
from airflow_mlops.platforms.kubernetes import JOBS as JOB_KIND
from airflow_mlops.platforms.kubernetes import PODS as POD_KIND
from airflow_mlops.testing.git_dvc import GitDvcRepository
from airflow_mlops.testing.kubernetes import JOBS, PODS, KubernetesFake, kubernetes_fake
from airflow_mlops.testing.kubernetes.kinds import NAMESPACES
from airflow_mlops.training.backends.kubernetes import KubernetesBackend
from airflow_mlops.training.contract import FailureReason, JobHandle, JobState, JobStatus, TrainingSpec

OWNER = TaskIdentity("dag", "run", "train")
VERSION = DataVersion("data/train", "v1", "c" * 40, "md5:0123", 3, repo="https://example.com/data.git")


class Cluster:
    """A fake with a backend, and what every test does with them."""

    def __init__(self, fake: KubernetesFake, **extra: str) -> None:
        self.fake = fake
        self.info = ConnectionInfo("cluster", extra={"kube_config_path": str(fake.kubeconfig), **extra})
        self.api = KubernetesApi(ConnectionInfo("cluster", extra={"kube_config_path": str(fake.kubeconfig)}))
        self.backend = KubernetesBackend.from_connection(self.info)

    def submit(self, script: str, name: str = "", **fields: Any) -> JobHandle:
        """Submit a shell script."""
        name = name or f"aml-{uuid.uuid4().hex[:12]}"
        return self.backend.submit(spec(script, **fields), name=name, owner=OWNER)

    def wait(self, job: JobHandle, *states: JobState) -> JobStatus:
        """Look until the job is in one of these states, or over."""
        wanted = states or tuple(state for state in JobState if state.terminal)
        return until(lambda: (found := self.look(job)).state in wanted and found)

    def look(self, job: JobHandle) -> JobStatus:
        """Look once."""
        return self.backend.observe([job])[job]

    def ended(self, script: str, **fields: Any) -> tuple[JobHandle, JobStatus]:
        """Run a shell script to its end."""
        job = self.submit(script, **fields)
        return job, self.wait(job)

    def pods(self, job: JobHandle) -> list[dict[str, Any]]:
        """Return the pods of a job."""
        namespace, _, name = job.job_id.partition("/")
        return self.api.list(POD_KIND, namespace, labels=f"job-name={name}")[0]

    def detail(self, job: JobHandle, part: str) -> JobStatus:
        """Look until the detail says something."""
        return until(lambda: part in (found := self.look(job)).detail and found)


def spec(script: str, **fields: Any) -> TrainingSpec:
    """Return a spec that runs a shell script."""
    return TrainingSpec(("sh", "-c", script, "job"), **{"image": "train:1", **fields})


def until(look: Callable[[], Any], seconds: float = 15) -> Any:
    """Look until there is something."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.03)
    return found


@pytest.fixture(scope="module")
def shared() -> Iterator[Cluster]:
    """Run one cluster for the module."""
    with kubernetes_fake() as fake:
        yield Cluster(fake)


@pytest.fixture
def cluster(shared: Cluster) -> Iterator[Cluster]:
    """Give the cluster; what a test planted is taken away after it."""
    shared.fake.calls.reset()
    yield shared
    shared.fake.fill_node(False)
    shared.fake.limit(PODS, None)
    shared.fake.limit(JOBS, None)


def test_the_report_is_the_result(cluster: Cluster) -> None:
    """What node 0 writes to MLOPS_OUTPUT comes back with the run and the data of the spec."""
    script = 'echo "{\\"metrics\\": {\\"auc\\": 0.9}, \\"model_uri\\": \\"models:/m-1\\"}" > $MLOPS_OUTPUT'
    job, _ = cluster.ended(script, env={"MLFLOW_RUN_ID": "r-1"}, inputs={"train": VERSION})
    result = cluster.backend.collect(job)
    assert (result.metrics, result.model_uri, result.run_id) == ({"auc": 0.9}, "models:/m-1", "r-1")
    assert (result.job, result.data) == (job, {"train": VERSION})


def test_a_report_that_cannot_be_used_fails_the_job(cluster: Cluster) -> None:
    """A report that is no JSON, or longer than Kubernetes keeps, is an error that says so; it is never ignored."""
    job, _ = cluster.ended("echo oops > $MLOPS_OUTPUT")
    with pytest.raises(JobFailedError, match="not JSON"):
        cluster.backend.collect(job)
    long, _ = cluster.ended('printf "{\\"model_uri\\": \\"%05000d\\"}" 0 > $MLOPS_OUTPUT')
    with pytest.raises(JobFailedError, match="4096"):
        cluster.backend.collect(long)


def test_a_report_that_is_gone_is_not_an_empty_one(cluster: Cluster) -> None:
    """If the finished pod was deleted, the result is an error, or what the job logged to its run; never nothing."""
    untracked, _ = cluster.ended("true")
    tracked, _ = cluster.ended("true", env={"MLFLOW_RUN_ID": "r-1"})
    for job in (untracked, tracked):
        for pod in cluster.pods(job):
            cluster.api.delete(POD_KIND, "default", pod["metadata"]["name"])
        until(lambda job=job: not cluster.pods(job))
    with pytest.raises(NotFoundError, match="pod with index 0 is gone"):
        cluster.backend.collect(untracked)
    assert cluster.backend.collect(tracked).run_id == "r-1"


def test_a_failure_tells_its_code_its_pod_and_its_last_lines(cluster: Cluster) -> None:
    """The error of a task needs no second tool: code, pod and the end of the log are in it."""
    job, status = cluster.ended("echo Traceback; echo ValueError: no rows >&2; exit 41")
    assert (status.state, status.reason) == (JobState.FAILED, FailureReason.USER_CODE)
    assert "exit code 41" in status.detail
    assert job.job_id in status.detail
    assert status.detail.endswith("Traceback\nValueError: no rows")


def test_a_program_that_is_not_in_the_image_is_the_users_fault(cluster: Cluster) -> None:
    """A command that cannot be started fails with the kubelet's message."""
    job = cluster.backend.submit(
        TrainingSpec(("no-such-program",), image="train:1"), name=f"aml-{uuid.uuid4().hex[:12]}", owner=OWNER
    )
    status = cluster.wait(job)
    assert (status.state, status.reason) == (JobState.FAILED, FailureReason.USER_CODE)
    assert "no-such-program" in status.detail


def test_out_of_memory_is_told_apart(cluster: Cluster) -> None:
    """OOMKilled is OUT_OF_MEMORY, not the program's exit code 137."""
    job = cluster.submit("sleep 60")
    cluster.wait(job, JobState.RUNNING)
    cluster.fake.out_of_memory(cluster.pods(job)[0]["metadata"]["name"])
    status = cluster.wait(job)
    assert (status.state, status.reason) == (JobState.FAILED, FailureReason.OUT_OF_MEMORY)
    assert "OOMKilled" in status.detail


def test_the_platform_ends_a_job_that_runs_too_long(cluster: Cluster) -> None:
    """max_runtime is the cluster's own deadline: nobody here has to be awake."""
    _, status = cluster.ended("sleep 60", max_runtime=1.0)
    assert (status.state, status.reason, status.native) == (JobState.FAILED, FailureReason.TIMEOUT, "DeadlineExceeded")


@pytest.mark.parametrize("fields", [{"spot": True}, {"nodes": 2}])
def test_a_machine_that_is_taken_away_ends_the_attempt(cluster: Cluster, fields: dict[str, Any]) -> None:
    """Where the driver starts the next attempt, a disrupted pod is PREEMPTED and not FAILED."""
    job = cluster.submit("sleep 60", **fields)
    until(lambda: [pod for pod in cluster.pods(job) if pod["status"]["phase"] == "Running"])
    cluster.fake.preempt(cluster.pods(job)[0]["metadata"]["name"])
    status = cluster.wait(job)
    assert (status.state, status.native) == (JobState.PREEMPTED, "PodFailurePolicy")


def test_elsewhere_kubernetes_replaces_the_pod_and_the_log_goes_on() -> None:
    """A job that is not spot goes on in another pod; its log is read on from the beginning of the new one."""
    with kubernetes_fake() as fake:
        cluster = Cluster(fake)
        job = cluster.submit("echo began on $HOSTNAME; trap 'exit 1' TERM; sleep 60 & wait; sleep 60")
        cluster.wait(job, JobState.RUNNING)
        first = cluster.pods(job)[0]
        text, offset = until(lambda: (found := cluster.backend.read_log(job, 0))[0] and found)
        assert text.startswith("began on")
        fake.preempt(first["metadata"]["name"])
        again, further = until(lambda: (found := cluster.backend.read_log(job, offset))[0] and found)
        assert again.startswith("began on")
        assert cluster.backend.read_log(job, further) == ("", further)
        uids = [pod["metadata"]["uid"] for pod in cluster.pods(job) if pod["status"]["phase"] == "Running"]
        assert first["metadata"]["uid"] not in uids
        assert cluster.look(job).state is JobState.RUNNING
        cluster.backend.cancel(job)


def test_half_lines_wait_for_their_end(cluster: Cluster) -> None:
    """While a job is active only whole lines are read; nothing is read twice, and nothing is missed."""
    job = cluster.submit("echo ä1; printf half; sleep 1; echo ' line'; printf end")
    found, offset = "", 0
    while not cluster.look(job).state.terminal:
        text, offset = cluster.backend.read_log(job, offset)
        assert text == "" or text.endswith("\n")
        found += text
        time.sleep(0.05)
    found += cluster.backend.read_log(job, offset)[0]
    assert found == "ä1\nhalf line\nend"


def test_a_job_without_room_says_so_and_waits(cluster: Cluster) -> None:
    """A pod that cannot be placed leaves the job PENDING with the scheduler's words."""
    cluster.fake.fill_node()
    job = cluster.submit("true")
    status = cluster.detail(job, "Insufficient cpu")
    assert (status.state, status.detail.startswith("Unschedulable")) == (JobState.PENDING, True)
    cluster.fake.fill_node(False)
    assert cluster.wait(job).state is JobState.SUCCEEDED


def test_time_that_was_spent_waiting_for_room_is_told(cluster: Cluster) -> None:
    """A job that never got a node before its time was over does not look like a slow program."""
    cluster.fake.fill_node()
    job = cluster.submit("true", max_runtime=1.0)
    status = cluster.wait(job)
    assert (status.state, status.reason) == (JobState.FAILED, FailureReason.TIMEOUT)
    assert "FailedScheduling" in status.detail
    assert "Insufficient cpu" in status.detail


def test_an_image_that_cannot_be_pulled_is_named(cluster: Cluster) -> None:
    """The job cannot start by itself: it stays PENDING, and its detail says which image and why."""
    cluster.fake.hide_image("private:1")
    job = cluster.submit("true", image="private:1")
    status = cluster.detail(job, "cannot be pulled")
    assert status.state is JobState.PENDING
    assert "private:1" in status.detail
    assert "not found" in status.detail
    cluster.backend.cancel(job)
    assert cluster.wait(job).state is JobState.CANCELLED


def test_a_quota_on_pods_is_a_reason_of_its_own(cluster: Cluster) -> None:
    """A job whose pods the quota refuses waits and says so; if its time runs out, the reason is QUOTA."""
    cluster.fake.limit(PODS, 0)
    job = cluster.submit("true", max_runtime=1.0)
    assert cluster.detail(job, "exceeded quota").state is JobState.PENDING
    status = cluster.wait(job)
    assert (status.state, status.reason) == (JobState.FAILED, FailureReason.QUOTA)
    assert "exceeded quota" in status.detail


def test_a_quota_on_jobs_may_be_tried_again(cluster: Cluster) -> None:
    """A Job that the quota refuses is an error that another try may cure, and it is not asked for again at once."""
    cluster.fake.limit(JOBS, 0)
    with pytest.raises(PlatformUnavailableError, match="exceeded quota"):
        cluster.submit("true")
    assert cluster.fake.calls.count("create", "jobs") == 1


def test_a_missing_secret_is_told(cluster: Cluster) -> None:
    """A job that refers to a Secret that nobody made waits, and its detail names the Secret."""
    job = cluster.submit("true", secret_env={"KEY": "nobody/key"})
    assert cluster.detail(job, '"nobody" not found').state is JobState.PENDING
    cluster.backend.cancel(job)


def test_secrets_reach_the_program_and_nothing_else(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker's variable goes into a Secret that the job owns: Job, pods, events and errors never show its value."""
    monkeypatch.setenv("MY_TOKEN", "s3cr3t-value")
    job = cluster.submit('test "$TOKEN" = s3cr3t-value && exit 9', secret_env={"TOKEN": "MY_TOKEN"})
    status = cluster.wait(job)
    assert "exit code 9" in status.detail
    everything = [cluster.api.list(kind, "default")[0] for kind in (JOB_KIND, POD_KIND, EVENTS)]
    shown = json.dumps(everything).replace('test \\"$TOKEN\\" = s3cr3t-value', "")
    assert "s3cr3t-value" not in shown
    assert "s3cr3t-value" not in status.detail
    monkeypatch.delenv("MY_TOKEN")
    with pytest.raises(InvalidSpecError, match="MY_TOKEN"):
        cluster.submit("true", secret_env={"TOKEN": "MY_TOKEN"})


def test_what_belongs_to_a_job_comes_with_every_submission_and_goes_with_it(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker killed after it made the Job leaves no half job: the next submission makes Secret and Service."""
    monkeypatch.setenv("MY_TOKEN", "old")
    fields: dict[str, Any] = {"secret_env": {"TOKEN": "MY_TOKEN"}, "nodes": 2}
    job = cluster.submit("sleep 60", "aml-owned", **fields)
    for kind in (SECRETS, SERVICES):
        cluster.api.delete(kind, "default", "aml-owned")
    cluster.submit("sleep 60", "aml-owned", **fields)
    monkeypatch.setenv("MY_TOKEN", "new")
    cluster.submit("sleep 60", "aml-owned", **fields)
    assert cluster.api.get(SECRETS, "default", "aml-owned")["data"] == {"TOKEN": "bmV3"}
    assert cluster.api.get(SERVICES, "default", "aml-owned")["spec"]["clusterIP"] == "None"
    cluster.backend.cancel(job)
    cluster.wait(job)
    cluster.api.delete(JOB_KIND, "default", "aml-owned")
    left = (SECRETS, SERVICES)
    until(
        lambda: (
            not [one for kind in left for one in cluster.api.list(kind, "default", fields="metadata.name=aml-owned")[0]]
        )
    )


def test_a_strangers_secret_is_not_overwritten(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Secret of the job's name that is not ours stays as it is, and the error says so."""
    monkeypatch.setenv("MY_TOKEN", "mine")
    body = {"metadata": {"name": "aml-taken"}, "data": {"TOKEN": "eA=="}}
    cluster.api.create(SECRETS, "default", body)
    with pytest.raises(ConflictError, match="not ours"):
        cluster.submit("sleep 60", "aml-taken", secret_env={"TOKEN": "MY_TOKEN"})
    assert cluster.api.get(SECRETS, "default", "aml-taken")["data"] == {"TOKEN": "eA=="}
    cluster.backend.cancel(JobHandle("kubernetes", "default/aml-taken"))


def test_many_nodes_know_the_world(cluster: Cluster) -> None:
    """Each node has its own rank; only the report of node 0 counts, and its log is the one that is shown."""
    script = (
        'echo "$MLOPS_NODE_RANK of $MLOPS_NODES at $MLOPS_MASTER_ADDR:$MLOPS_MASTER_PORT"; '
        'echo "{\\"metrics\\": {\\"rank\\": $MLOPS_NODE_RANK}}" > $MLOPS_OUTPUT'
    )
    job, status = cluster.ended(script, nodes=3)
    name = job.job_id.partition("/")[2]
    assert status.state is JobState.SUCCEEDED
    assert cluster.backend.collect(job).metrics == {"rank": 0.0}
    assert cluster.backend.read_log(job, 0)[0] == f"0 of 3 at {name}-0.{name}:29500\n"
    hosts = sorted(pod["spec"]["hostname"] for pod in cluster.pods(job))
    assert hosts == [f"{name}-{rank}" for rank in range(3)]


def test_checkpoints_outlive_the_job(cluster: Cluster) -> None:
    """What one job leaves in a claim is there for the next."""
    claim = f"pvc://models/{uuid.uuid4().hex}"
    cluster.ended("echo 7 > $MLOPS_CHECKPOINT_DIR/epoch", checkpoint=claim)
    job, _ = cluster.ended("cat $MLOPS_CHECKPOINT_DIR/epoch", checkpoint=claim)
    assert cluster.backend.read_log(job, 0)[0] == "7\n"


def test_inputs_are_fetched_by_dvc_before_the_program_starts(tmp_path: Path) -> None:
    """With ``fetch_image`` the real ``dvc get`` puts the bytes of the data version at ``MLOPS_INPUT_<NAME>``."""
    version = _data_version(GitDvcRepository(tmp_path / "data"), b"a,b\n1,2\n")
    tools = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "DVC_NO_ANALYTICS": "true"}
    with kubernetes_fake(image_env=tools) as fake:
        own = Cluster(fake, fetch_image="dvc:3")
        job = own.submit("cat $MLOPS_INPUT_TRAIN", inputs={"train": version}, env={"MLOPS_INPUT_TRAIN": version.uri})
        status = until(lambda: (found := own.look(job)).state.terminal and found, 60)
        assert status.state is JobState.SUCCEEDED, status
        assert own.backend.read_log(job, 0)[0] == "a,b\n1,2\n"


def _data_version(repository: GitDvcRepository, content: bytes) -> DataVersion:
    """Publish one file under DVC."""
    digest = hashlib.md5(content).hexdigest()
    place = repository.object_path(f"md5:{digest}")
    place.parent.mkdir(parents=True)
    place.write_bytes(content)
    pointer = f"outs:\n- md5: {digest}\n  size: {len(content)}\n  hash: md5\n  path: train.csv\n"
    commit = repository.commit({"data/train.csv.dvc": pointer}, "Publish")
    return DataVersion("data/train.csv", "main", commit, f"md5:{digest}", len(content), repo=repository.address)


def test_inputs_that_cannot_be_fetched_fail_the_job_with_the_reason(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The log of the container that fetched is in the error, and it is not called the program's fault."""
    tools = tmp_path_factory.mktemp("tools")
    (tools / "dvc").write_text("#!/bin/sh\necho ERROR: failed to connect; exit 255\n")
    (tools / "dvc").chmod(0o755)
    with kubernetes_fake(image_env={"PATH": f"{tools}:/usr/bin:/bin"}) as fake:
        own = Cluster(fake)
        where = {"MLOPS_INPUT_TRAIN": VERSION.uri}
        _, status = own.ended("true", inputs={"train": VERSION}, env=where, options={"fetch_image": "dvc:3"})
    assert (status.state, status.reason) == (JobState.FAILED, FailureReason.PLATFORM)
    assert "container 'fetch-0'" in status.detail
    assert status.detail.endswith("ERROR: failed to connect")


def test_a_lost_answer_leaves_one_job(cluster: Cluster) -> None:
    """The answer to the creation is lost: the job is found under its name, and there is exactly one, with one pod."""
    cluster.fake.faults.lose_answers(2, verb="create", resource="jobs")
    job = cluster.submit("sleep 60", "aml-lost")
    assert cluster.fake.calls.count("create", "jobs") == 3
    cluster.wait(job, JobState.RUNNING)
    assert len(cluster.pods(job)) == 1
    cluster.backend.cancel(job)


def test_throttling_is_obeyed_and_failures_of_the_server_are_borne(cluster: Cluster) -> None:
    """429 is asked again after Retry-After, 5xx at once; neither makes a second job."""
    cluster.fake.faults.throttle(1, retry_after=1, verb="create", resource="jobs")
    cluster.fake.faults.fail(2, code=503, verb="create", resource="jobs")
    began = time.monotonic()
    job = cluster.submit("true", "aml-throttled")
    assert time.monotonic() - began >= 1
    assert cluster.wait(job).state is JobState.SUCCEEDED
    assert len(cluster.pods(job)) == 1


def test_a_server_that_fails_for_long_is_unavailable(cluster: Cluster) -> None:
    """After four tries the error is one that Airflow retries, and it names the server."""
    cluster.fake.faults.fail(4, code=500, verb="get", resource="jobs")
    with pytest.raises(PlatformUnavailableError, match=r"127\.0\.0\.1"):
        cluster.backend.locate("aml-any")
    assert cluster.fake.calls.count("get", "jobs") == 4


def test_a_missing_right_is_named_and_not_tried_again(cluster: Cluster) -> None:
    """403 is an error of the set-up: it says so at once."""
    cluster.fake.faults.fail(1, code=403, verb="create", resource="jobs")
    with pytest.raises(InvalidSpecError, match="right"):
        cluster.submit("true")


def test_a_job_is_observed_even_if_its_events_may_not_be_read(cluster: Cluster) -> None:
    """An account without rights on events still learns how the job ended."""
    job, _ = cluster.ended("exit 3")
    cluster.fake.faults.fail(1, code=403, verb="list", resource="events")
    status = cluster.look(job)
    assert status.state is JobState.FAILED
    assert "cannot be read" in status.detail


def test_a_restart_of_the_server_loses_nothing() -> None:
    """While the server is away the error is one to retry; afterwards the same job is there and can be stopped."""
    with kubernetes_fake() as fake:
        cluster = Cluster(fake)
        job = cluster.submit("sleep 60")
        cluster.wait(job, JobState.RUNNING)
        fake.crash()
        with pytest.raises(PlatformUnavailableError):
            cluster.look(job)
        fake.restart()
        assert cluster.look(job).state is JobState.RUNNING
        cluster.backend.cancel(job)
        assert cluster.wait(job).state is JobState.CANCELLED


def test_a_suspended_job_is_deleted_when_it_is_cancelled(cluster: Cluster) -> None:
    """Nothing would ever end a Job that a queue holds back: cancelling takes it away, with its reason told before."""
    job = cluster.submit("sleep 60")
    name = job.job_id.partition("/")[2]
    cluster.api.patch(JOB_KIND, "default", name, {"spec": {"suspend": True}})
    status = cluster.wait(job, JobState.PENDING)
    assert "suspended" in status.detail
    cluster.backend.cancel(job)
    assert cluster.backend.observe([job]) == {}
    cluster.backend.cancel(job)


def test_a_cancelled_job_stays_for_the_record(cluster: Cluster) -> None:
    """Cancelling ends the processes and keeps the Job, its owner and its log."""
    job = cluster.submit("echo hello; sleep 60")
    until(lambda: cluster.backend.read_log(job, 0)[0])
    cluster.backend.cancel(job)
    assert cluster.wait(job).state is JobState.CANCELLED
    assert dict(cluster.backend.managed())[job] == OWNER


def test_jobs_of_other_namespaces_are_seen_by_their_handles(cluster: Cluster) -> None:
    """A handle holds its namespace: another connection to the cluster observes, reads and cancels it."""
    cluster.fake.create(NAMESPACES, {"metadata": {"name": "team-b"}})
    extra = {**cluster.info.extra, "namespace": "team-b", "console_url": "https://c.example/{namespace}/{name}"}
    there = KubernetesBackend.from_connection(ConnectionInfo("b", extra=extra))
    job = there.submit(spec("echo hi; sleep 60"), name="aml-b", owner=OWNER)
    assert (job.job_id, job.console_url) == ("team-b/aml-b", "https://c.example/team-b/aml-b")
    here = cluster.submit("sleep 60")
    until(lambda: {status.state for status in cluster.backend.observe([job, here]).values()} == {JobState.RUNNING})
    assert until(lambda: cluster.backend.read_log(job, 0)[0]) == "hi\n"
    assert (cluster.backend.locate("aml-b"), there.locate("aml-b")) == (None, job)
    for one in (job, here):
        cluster.backend.cancel(one)
        assert cluster.wait(one).state is JobState.CANCELLED


def test_a_strangers_job_of_that_name_is_a_conflict(cluster: Cluster) -> None:
    """A Job that somebody else made under the name is not adopted."""
    container = {"name": "main", "image": "x:1", "command": ["true"]}
    body = {
        "metadata": {"name": "aml-stranger"},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
    }
    cluster.api.create(JOB_KIND, "default", body)
    with pytest.raises(ConflictError, match="aml-stranger"):
        cluster.submit("true", "aml-stranger")


def test_looking_at_many_costs_one_list(cluster: Cluster) -> None:
    """Fifty jobs are one request, and at most twenty of them are asked why."""
    jobs = [cluster.submit("exit 1") for _ in range(25)]
    for job in jobs:
        cluster.wait(job)
    cluster.fake.calls.reset()
    found = cluster.backend.observe(jobs)
    assert {status.state for status in found.values()} == {JobState.FAILED}
    assert cluster.fake.calls.count("list", "jobs") == 1
    assert cluster.fake.calls.count("list", "pods") == 20


def test_the_documented_rights_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything the backend asks of a cluster is in the Role of the how-to."""
    page = (Path(__file__).parents[2] / "docs" / "howto" / "kubernetes.md").read_text()
    role = yaml.safe_load(page.partition("```yaml")[2].partition("```")[0])
    granted = {(verb, what) for rule in role["rules"] for what in rule["resources"] for verb in rule["verbs"]}
    monkeypatch.setenv("MY_TOKEN", "x")
    with kubernetes_fake() as fake:
        cluster = Cluster(fake)
        for _ in range(2):
            job = cluster.submit("sleep 60", "aml-rights", nodes=2, secret_env={"TOKEN": "MY_TOKEN"})
        held = cluster.submit("sleep 60")
        cluster.api.patch(JOB_KIND, "default", held.job_id.partition("/")[2], {"spec": {"suspend": True}})
        with cluster.backend.stream() as stream:
            until(lambda: stream.observe([job])[job].state is JobState.RUNNING)
        for one in (job, held):
            cluster.backend.cancel(one)
        cluster.wait(job)
        cluster.ended("exit 1")
        cluster.backend.read_log(job, 0)
        cluster.backend.collect(cluster.ended("true")[0])
        list(cluster.backend.managed())
        assert {(call.verb, call.resource) for call in fake.calls.seen()} <= granted
