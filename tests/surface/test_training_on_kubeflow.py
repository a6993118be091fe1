"""TrainModelOperator(backend="kubeflow") with Airflow's real task runner; the nodes really run, on a strict fake."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import InvalidSpecError, JobFailedError, JobTimeoutError
from airflow_mlops.hooks.training import TrainingHook
from airflow_mlops.operators.training import TrainModelOperator
from airflow_mlops.platforms.kubernetes import PODS, KubernetesApi
from airflow_mlops.testing.kubernetes import KubernetesFake, kubernetes_fake
from airflow_mlops.testing.kubernetes.trainer import CLUSTER_RUNTIMES, TRAINER_KINDS, training_runtime
from airflow_mlops.testing.task_runner import DagRunMemory, run_task
from airflow_mlops.training.contract import JobState

REPORT = 'echo "{\\"metrics\\": {\\"auc\\": 0.9}, \\"model_uri\\": \\"models:/m-1\\"}" > $MLOPS_OUTPUT'


@pytest.fixture(scope="module")
def fake() -> Iterator[KubernetesFake]:
    """Run one cluster with Kubeflow Trainer and the runtime of our guide."""
    with kubernetes_fake(*TRAINER_KINDS) as found:
        found.create(CLUSTER_RUNTIMES, training_runtime("airflow-mlops"))
        yield found


@pytest.fixture(autouse=True)
def connection(fake: KubernetesFake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lead there by Airflow's own Kubernetes connection, which names the runtime."""
    extra = {"kube_config_path": str(fake.kubeconfig), "runtime": "airflow-mlops"}
    monkeypatch.setenv("AIRFLOW_CONN_CLUSTER", json.dumps({"conn_type": "kubernetes", "extra": extra}))


def running_pod(fake: KubernetesFake) -> str:
    """Return the name of the one pod that runs."""
    api = KubernetesApi(ConnectionInfo("admin", extra={"kube_config_path": str(fake.kubeconfig)}))
    end = time.monotonic() + 10
    while len(found := [pod for pod in api.list(PODS, "default")[0] if pod["status"]["phase"] == "Running"]) != 1:
        assert time.monotonic() < end
        time.sleep(0.05)
    return str(found[0]["metadata"]["name"])


def train(script: str, **kwargs: Any) -> TrainModelOperator:
    """Return an operator that runs a shell script on each node."""
    kwargs = {"task_id": "train", "poll_interval": 0.1, "image": "busybox:1", **kwargs}
    return TrainModelOperator(command=["sh", "-c", script], backend="kubeflow", conn_id="cluster", **kwargs)


@pytest.mark.parametrize("deferrable", [True, False])
def test_two_nodes_train_and_the_result_comes_back(deferrable: bool) -> None:
    """Deferred or blocking: node 0's report is the XCom, and its lines are in the task's log."""
    script = f'echo "node $MLOPS_NODE_RANK of $MLOPS_NODES"; sleep 1.5; test $MLOPS_NODE_RANK = 1 || {REPORT}'
    run = run_task(train(script, nodes=2, deferrable=deferrable, task_id=f"train_{deferrable}"))
    assert (run.state, run.deferrals) == ("success", int(deferrable)), run.error
    assert (run.result["metrics"], run.result["model_uri"]) == ({"auc": 0.9}, "models:/m-1")
    assert run.result["job"]["backend"] == "kubeflow"
    assert run.log.count("node 0 of 2") == 1
    assert "node 1 of 2" not in run.log


def test_a_failing_program_fails_the_task_for_good() -> None:
    """The error has exit code, pod and last lines, and the task is not tried again."""
    run = run_task(train("echo 'no such column'; exit 7", task_id="bad", retries=3))
    assert run.state == "failed"
    assert isinstance(run.error, JobFailedError)
    assert all(part in str(run.error) for part in ("exit code 7", "no such column", "-node-0-0-"))


def test_out_of_time_is_said() -> None:
    """``max_runtime`` is kept by Kubeflow Trainer itself."""
    run = run_task(train("sleep 60", task_id="slow", max_runtime=1))
    assert isinstance(run.error, JobTimeoutError)


def test_a_preempted_node_starts_the_next_attempt(fake: KubernetesFake) -> None:
    """The first attempt loses a node; the second one ends well, and the result is its."""
    memory = DagRunMemory()
    task = train(f"test $MLOPS_ATTEMPT = 1 || exec sleep 60; {REPORT}", task_id="spot", spot=True)
    held = run_task(task, memory=memory, follow=False)
    fake.preempt(running_pod(fake))
    run = run_task(task, memory=memory, resume=held, event={"why": "preempted"})
    assert (run.state, run.result["metrics"]) == ("success", {"auc": 0.9}), run.error
    assert run.state_store["mlops_training_job"]["preemptions"] == 1


def test_a_cleared_task_stops_its_job_first(fake: KubernetesFake) -> None:
    """No node of the old job lives when the new one starts."""
    memory = DagRunMemory()
    assert run_task(train("sleep 60", task_id="cleared"), memory=memory, follow=False).state == "deferred"
    process = fake.process_id(running_pod(fake))
    run = run_task(train("true", task_id="cleared"), memory=memory, try_number=2, max_tries=1)
    assert run.state == "success"
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_an_unknown_runtime_fails_at_once() -> None:
    """The message says what to set; nothing is left on the cluster."""
    run = run_task(train("true", task_id="lost", options={"runtime": "nope"}, retries=3))
    assert run.state == "failed"
    assert isinstance(run.error, InvalidSpecError)
    assert "option 'runtime'" in str(run.error)


def test_the_hook_knows_what_runs() -> None:
    """The connection's test answers, and the sweep finds the jobs of the tasks above with their states."""
    hook = TrainingHook("kubeflow", "cluster")
    run_task(train("true", task_id="known"))
    assert hook.test_connection()[0]
    backend = hook.get_backend()
    found = {owner.task_id: handle for handle, owner in backend.managed()}
    assert backend.observe([found["known"]])[found["known"]].state is JobState.SUCCEEDED
