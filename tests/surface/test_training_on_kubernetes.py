"""TrainModelOperator on Kubernetes, with Airflow's real task runner and a connection of Airflow's own provider."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_mlops.core.errors import JobFailedError, PlatformUnavailableError
from airflow_mlops.hooks.training import TrainingHook
from airflow_mlops.operators.training import TrainModelOperator
from airflow_mlops.testing.kubernetes import KubernetesFake, kubernetes_fake
from airflow_mlops.testing.task_runner import DagRunMemory, run_task, run_trigger
from airflow_mlops.training.contract import JobHandle, JobState

REPORT = 'echo "{\\"metrics\\": {\\"auc\\": 0.9}, \\"model_uri\\": \\"models:/m-1\\"}" > $MLOPS_OUTPUT'


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[KubernetesFake]:
    """Run a cluster, with the connection that the official provider's form would write."""
    with kubernetes_fake() as found:
        extra = {"kube_config_path": str(found.kubeconfig), "in_cluster": False, "xcom_sidecar_container_image": ""}
        extra["console_url"] = "https://console.example/{namespace}/jobs/{name}"
        monkeypatch.setenv("AIRFLOW_CONN_CLUSTER", json.dumps({"conn_type": "kubernetes", "extra": extra}))
        yield found


def train(script: str, **kwargs: Any) -> TrainModelOperator:
    """Return an operator that runs a shell script in an image."""
    where = {"backend": "kubernetes", "conn_id": "cluster", "image": "train:1", "poll_interval": 0.2}
    return TrainModelOperator(task_id="train", command=["sh", "-c", script, "train"], **{**where, **kwargs})


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_job_is_run_and_its_result_returned(fake: KubernetesFake, deferrable: bool) -> None:
    """Deferred and blocking, the task returns what the program reported, shows its log and the page of the job."""
    run = run_task(train(f"echo hello; sleep 2; {REPORT}", deferrable=deferrable))
    assert run.state == "success", run.log
    assert (run.result["metrics"], run.result["model_uri"]) == ({"auc": 0.9}, "models:/m-1")
    job = JobHandle.from_dict(run.result["job"])
    assert job.console_url == f"https://console.example/{job.job_id.replace('/', '/jobs/')}"
    assert "hello" in run.log
    assert run.deferrals == (1 if deferrable else 0)
    assert fake.calls.count("create", "jobs") == 1


def test_waiting_in_the_triggerer_costs_one_list_and_one_watch(fake: KubernetesFake) -> None:
    """While the task is deferred, the job is not asked for: its end is told by the watch."""
    run = run_task(train("sleep 8"), follow=False)
    assert run.state == "deferred"
    fake.calls.reset()
    assert run_trigger(run.trigger)["payload"] == {"why": "succeeded"}
    calls = fake.calls
    assert (calls.count("list", "jobs"), calls.count("watch", "jobs"), calls.count("get", "jobs")) == (1, 1, 0)


def test_a_failing_program_fails_the_task_with_its_last_lines(fake: KubernetesFake) -> None:
    """The task's error has the exit code and the end of the pod's log, and is not tried again."""
    run = run_task(train("echo ValueError: no rows; exit 41", retries=2))
    assert run.state == "failed"
    assert isinstance(run.error, JobFailedError)
    assert "exit code 41" in str(run.error)
    assert "ValueError: no rows" in str(run.error)


def test_a_retry_adopts_the_job_that_the_lost_worker_started(fake: KubernetesFake) -> None:
    """A try whose submission got no answer leaves a job that the next try finds: one Job in all."""
    fake.faults.lose_answers(4, verb="create", resource="jobs")
    memory = DagRunMemory()
    first = run_task(train("sleep 1", retries=1), memory=memory)
    assert (first.state, type(first.error)) == ("up_for_retry", PlatformUnavailableError)
    assert run_task(train("sleep 1", retries=1), memory=memory, try_number=2, max_tries=1).state == "success"
    backend = TrainingHook("kubernetes", "cluster").get_backend()
    assert len(list(backend.managed())) == 1


def test_a_clear_stops_the_pods_and_starts_a_new_job(fake: KubernetesFake) -> None:
    """The job of the cleared run is CANCELLED before the new one runs."""
    memory = DagRunMemory()
    assert run_task(train("sleep 60"), memory=memory, follow=False).state == "deferred"
    again = run_task(train("sleep 60"), memory=memory, max_tries=1, follow=False)
    assert again.state == "deferred", again.log
    backend = TrainingHook("kubernetes", "cluster").get_backend()
    handles = [handle for handle, _ in backend.managed()]
    end = time.monotonic() + 10
    while True:
        states = sorted(status.state for status in backend.observe(handles).values())
        if states == [JobState.CANCELLED, JobState.RUNNING]:
            break
        assert time.monotonic() < end, states
        time.sleep(0.1)
