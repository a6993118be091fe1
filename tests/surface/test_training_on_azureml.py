"""TrainModelOperator on Azure Machine Learning, with Airflow's real task runner and its own kind of connection."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_mlops.core.errors import InvalidSpecError, JobFailedError, JobTimeoutError, PlatformUnavailableError
from airflow_mlops.hooks.training import TrainingHook
from airflow_mlops.operators.pipelines import RunPipelineOperator
from airflow_mlops.operators.training import TrainModelOperator
from airflow_mlops.testing.azureml import AzureMLFake, azureml_fake
from airflow_mlops.testing.task_runner import DagRunMemory, run_task, run_trigger
from airflow_mlops.training.contract import JobHandle, JobState

REPORT = 'echo "{\\"metrics\\": {\\"auc\\": 0.9}, \\"model_uri\\": \\"models:/m-1\\"}" > $MLOPS_OUTPUT'


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[AzureMLFake]:
    """Run a workspace, with a connection of the type ``azure``."""
    with azureml_fake() as found:
        monkeypatch.setenv("AIRFLOW_CONN_AZURE", json.dumps(found.airflow_connection()))
        yield found


def train(script: str, **kwargs: Any) -> TrainModelOperator:
    """Return an operator that runs a shell script in an image."""
    where = {"backend": "azureml", "conn_id": "azure", "image": "train:1", "poll_interval": 0.2}
    return TrainModelOperator(task_id="train", command=["sh", "-c", script, "train"], **{**where, **kwargs})


def running(fake: AzureMLFake) -> str:
    """Return the name of the newest job as soon as it runs."""
    end = time.monotonic() + 20
    while not (found := fake.jobs()) or found[0]["properties"]["status"] != "Running":
        assert time.monotonic() < end
        time.sleep(0.05)
    return str(found[0]["name"])


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_job_is_run_and_its_result_returned(fake: AzureMLFake, deferrable: bool) -> None:
    """Deferred and blocking, the task returns what the program reported, shows its log and the page of the job."""
    run = run_task(train(f"echo hello; sleep 2; {REPORT}", deferrable=deferrable))
    assert run.state == "success", run.log
    assert (run.result["metrics"], run.result["model_uri"]) == ({"auc": 0.9}, "models:/m-1")
    job = JobHandle.from_dict(run.result["job"])
    assert job.console_url.startswith(f"https://ml.azure.com/runs/{job.job_id.rpartition('/')[2]}?wsid=/subscriptions/")
    assert "hello" in run.log
    assert run.deferrals == (1 if deferrable else 0)
    assert fake.started() == 1


def test_waiting_in_the_triggerer_costs_a_get_each_look(fake: AzureMLFake) -> None:
    """One job is asked for alone; no list is read for it."""
    run = run_task(train("sleep 8"), follow=False)
    assert run.state == "deferred"
    fake.calls.reset()
    assert run_trigger(run.trigger)["payload"] == {"why": "succeeded"}
    assert {call.verb for call in fake.calls.seen()} == {"GetJob"}


def test_two_nodes_train_together(fake: AzureMLFake) -> None:
    """The log is that of node 0."""
    run = run_task(train('echo "node $MLOPS_NODE_RANK of $MLOPS_NODES"', nodes=2))
    assert run.state == "success", run.log
    assert run.log.count("node 0 of 2") == 1
    assert "node 1 of 2" not in run.log


def test_a_failing_program_fails_the_task_with_its_last_lines(fake: AzureMLFake) -> None:
    """The task's error has the exit code and what was printed, and is not tried again."""
    run = run_task(train("echo ValueError: no rows; exit 41", retries=2))
    assert run.state == "failed"
    assert isinstance(run.error, JobFailedError)
    assert "status code 41" in str(run.error)
    assert "ValueError: no rows" in str(run.error)


def test_out_of_time_is_said(fake: AzureMLFake) -> None:
    """``max_runtime`` is kept by the platform itself."""
    run = run_task(train("sleep 60", max_runtime=1))
    assert isinstance(run.error, JobTimeoutError)


def test_a_retry_adopts_the_job_that_the_lost_worker_started(fake: AzureMLFake) -> None:
    """A try whose submission got no answer leaves a job that the next try finds: one job in all."""
    fake.faults.lose_answers(4)
    memory = DagRunMemory()
    first = run_task(train("sleep 1", retries=1), memory=memory)
    assert (first.state, type(first.error)) == ("up_for_retry", PlatformUnavailableError)
    assert run_task(train("sleep 1", retries=1), memory=memory, try_number=2, max_tries=1).state == "success"
    assert fake.started() == 1


def test_a_clear_stops_the_job_and_starts_a_new_one(fake: AzureMLFake) -> None:
    """Nothing of the old job runs when the new one does."""
    memory = DagRunMemory()
    assert run_task(train("sleep 60"), memory=memory, follow=False).state == "deferred"
    again = run_task(train("sleep 60"), memory=memory, max_tries=1, follow=False)
    assert again.state == "deferred", again.log
    assert fake.going() == [running(fake)]
    backend = TrainingHook("azureml", "azure").get_backend()
    handles = [handle for handle, _ in backend.managed()]
    assert sorted(status.state for status in backend.observe(handles).values()) == [
        JobState.CANCELLED,
        JobState.RUNNING,
    ]


def test_a_preempted_job_starts_the_next_attempt(fake: AzureMLFake) -> None:
    """The first attempt loses its nodes; the second one ends well, and the result is its."""
    memory = DagRunMemory()
    task = train(f"test $MLOPS_ATTEMPT = 1 || exec sleep 60; {REPORT}", spot=True)
    held = run_task(task, memory=memory, follow=False)
    name = running(fake)
    fake.preempt(name)
    while name in fake.going():
        time.sleep(0.05)
    run = run_task(task, memory=memory, resume=held, event={"why": "preempted"})
    assert (run.state, run.result["metrics"]) == ("success", {"auc": 0.9}), run.error
    assert run.state_store["mlops_training_job"]["preemptions"] == 1


def test_no_secret_is_in_what_the_platform_or_airflow_keeps(fake: AzureMLFake) -> None:
    """The value that the job read is in its own process alone: no description, no log, no XCom has it."""
    fake.vault["api-key"] = "planted-secret"
    secret = {"TOKEN": f"{fake.address}/secrets/api-key"}
    run = run_task(train('test "$(printf %s "$TOKEN" | wc -c)" = 14', secret_env=secret))
    assert run.state == "success", run.log
    kept = json.dumps([fake.jobs(), run.result, run.state_store], default=str) + run.log
    assert "planted-secret" not in kept
    assert "azure.identity" not in run.log
    assert json.loads(json.dumps(fake.airflow_connection()))["password"] not in kept


def test_a_variable_of_the_worker_is_refused_by_name(fake: AzureMLFake) -> None:
    """The message says what to write; nothing was started, and it is not tried again."""
    run = run_task(train("true", secret_env={"TOKEN": "WORKER_VARIABLE"}, retries=3))
    assert (run.state, type(run.error)) == ("failed", InvalidSpecError)
    assert "<vault>/<secret>" in str(run.error)
    assert fake.started() == 0


def test_the_connection_can_be_tested(fake: AzureMLFake) -> None:
    """The button asks the workspace; a refusal is told."""
    assert TrainingHook("azureml", "azure").test_connection()[0]
    fake.faults.fail(1, code=403, verb="ListJobs")
    found, message = TrainingHook("azureml", "azure").test_connection()
    assert (found, "roles" in message) == (False, True)


def test_a_pipeline_component_is_run_by_its_name(fake: AzureMLFake) -> None:
    """The operator for pipelines starts a version that the workspace has, once, and returns the states of its steps."""
    steps = fake.shell_pipeline({"only": "test ${{parent.inputs.rate}} = 0.5"})["jobs"]
    fake.add_component("churn", "3", {"type": "pipeline", "inputs": {"rate": {"type": "number"}}, "jobs": steps})
    where = {"backend": "azureml", "conn_id": "azure", "poll_interval": 0.2, "deferrable": False}
    run = run_task(RunPipelineOperator(task_id="pipe", pipeline="churn@3", parameters={"rate": 0.5}, **where))
    assert (run.state, fake.started()) == ("success", 1), run.log
    assert run.result["tasks"] == {"only": "Completed"}
