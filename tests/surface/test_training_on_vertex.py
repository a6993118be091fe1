"""TrainModelOperator and RunPipelineOperator on Vertex AI, with Airflow's real task runner and Google's connection."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_mlops.core.errors import JobFailedError, PlatformUnavailableError
from airflow_mlops.hooks.training import TrainingHook
from airflow_mlops.operators.pipelines import RunPipelineOperator
from airflow_mlops.operators.training import TrainModelOperator
from airflow_mlops.testing.kfp.pipelines import shell_pipeline
from airflow_mlops.testing.task_runner import DagRunMemory, run_task, run_trigger
from airflow_mlops.testing.vertex import BUCKET, PROJECT, VertexFake, vertex_fake
from airflow_mlops.training.contract import JobHandle, JobState

REPORT = 'echo "{\\"metrics\\": {\\"auc\\": 0.9}, \\"model_uri\\": \\"models:/m-1\\"}" > $MLOPS_OUTPUT'


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[VertexFake]:
    """Run Vertex AI, with a connection of the type that Airflow's Google provider has."""
    with vertex_fake() as found:
        connection = {"conn_type": "google_cloud_platform", "extra": found.extras()}
        monkeypatch.setenv("AIRFLOW_CONN_GOOGLE", json.dumps(connection))
        yield found


def train(script: str, **kwargs: Any) -> TrainModelOperator:
    """Return an operator that runs a shell script in an image."""
    where = {"backend": "vertex", "conn_id": "google", "image": "train:1", "poll_interval": 0.2}
    return TrainModelOperator(task_id="train", command=["sh", "-c", script, "train"], **{**where, **kwargs})


@pytest.mark.parametrize("deferrable", [True, False])
@pytest.mark.parametrize("mode", ["job", "pipeline"])
def test_a_job_is_run_and_its_result_returned(fake: VertexFake, deferrable: bool, mode: str) -> None:
    """Deferred and blocking, in both modes, the task returns what the program reported and shows its log."""
    run = run_task(train(f"echo hello; sleep 4; {REPORT}", deferrable=deferrable, options={"mode": mode}))
    assert run.state == "success", run.log
    assert (run.result["metrics"], run.result["model_uri"]) == ({"auc": 0.9}, "models:/m-1")
    job = JobHandle.from_dict(run.result["job"])
    assert job.console_url.startswith("https://console.cloud.google.com/")
    assert "hello" in run.log
    assert run.deferrals == (1 if deferrable else 0)
    assert fake.calls.count("create") == 1


def test_waiting_in_the_triggerer(fake: VertexFake) -> None:
    """The trigger tells of the end of the job that the worker started."""
    run = run_task(train("sleep 8"), follow=False)
    assert run.state == "deferred"
    assert run_trigger(run.trigger)["payload"] == {"why": "succeeded"}


def test_a_failing_program_fails_the_task_with_its_last_lines(fake: VertexFake) -> None:
    """The task's error has the exit code and the end of the log, and is not tried again."""
    run = run_task(train("echo ValueError: no rows; exit 41", retries=2))
    assert run.state == "failed"
    assert isinstance(run.error, JobFailedError)
    assert "status of 41" in str(run.error)
    assert "ValueError: no rows" in str(run.error)


def test_a_retry_adopts_the_job_that_the_lost_worker_started(fake: VertexFake) -> None:
    """A try whose submission got no answer leaves a job that the next try finds: one in all."""
    fake.faults.lose_answers(1, resource="customJobs", late=4.5)
    memory = DagRunMemory()
    first = run_task(train("sleep 1", retries=1), memory=memory)
    assert (first.state, type(first.error)) == ("up_for_retry", PlatformUnavailableError)
    fake.faults.settle()
    assert run_task(train("sleep 1", retries=1), memory=memory, try_number=2, max_tries=1).state == "success"
    assert len(fake.jobs()) == 1


def test_a_preempted_job_goes_on_from_its_checkpoint(fake: VertexFake) -> None:
    """Without a retry of Airflow's: the next attempt finds what the first one kept."""
    memory = DagRunMemory()
    script = (
        f'[ -e "$MLOPS_CHECKPOINT_DIR/half" ] && {{ {REPORT}; exit; }}; touch "$MLOPS_CHECKPOINT_DIR/half"; sleep 60'
    )
    where = {"spot": True, "checkpoint": f"gs://{BUCKET}/checkpoints"}
    assert run_task(train(script, **where), memory=memory, follow=False).state == "deferred"
    [job] = fake.jobs()
    end = time.monotonic() + 10
    while not list((fake.buckets / BUCKET / "checkpoints").glob("*/half")):
        assert time.monotonic() < end
        time.sleep(0.05)
    fake.preempt(job["name"])
    run = run_task(train(script, deferrable=False, **where), memory=memory)
    assert run.state == "success", run.log
    assert [job["jobSpec"]["scheduling"]["strategy"] for job in fake.jobs()] == [4, 4]


def test_a_clear_stops_the_job_and_starts_a_new_one(fake: VertexFake) -> None:
    """The job of the cleared run is CANCELLED before the new one runs."""
    memory = DagRunMemory()
    assert run_task(train("sleep 60"), memory=memory, follow=False).state == "deferred"
    again = run_task(train("sleep 60"), memory=memory, max_tries=1, follow=False)
    assert again.state == "deferred", again.log
    backend = TrainingHook("vertex", "google").get_backend()
    handles = [handle for handle, _ in backend.managed()]
    end = time.monotonic() + 10
    while True:
        states = sorted(status.state for status in backend.observe(handles).values())
        if states == [JobState.CANCELLED, JobState.RUNNING]:
            break
        assert time.monotonic() < end, states
        time.sleep(0.1)


def test_a_secret_is_seen_by_the_program_only(fake: VertexFake) -> None:
    """Neither the job, the log, the result nor the task's memory has the value."""
    fake.services.keep_secret(PROJECT, "token", "s3cr3t")
    memory = DagRunMemory()
    run = run_task(train(f'[ "$TOKEN" = s3cr3t ] && {REPORT}', secret_env={"TOKEN": "token/latest"}), memory=memory)
    assert run.state == "success", run.log
    job = TrainingHook("vertex", "google").get_backend()
    told = json.dumps([fake.jobs(), run.result, run.log, run.state_store, [h.to_dict() for h, _ in job.managed()]])
    assert "s3cr3t" not in told.replace("= s3cr3t ]", "")


def test_the_connection_answers(fake: VertexFake) -> None:
    """The hook's test asks the platform for our jobs."""
    assert TrainingHook("vertex", "google").test_connection() == (True, "The backend 'vertex' answers.")


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_pipeline_is_run_and_its_tasks_returned(fake: VertexFake, deferrable: bool) -> None:
    """From an object in Cloud Storage, with its parameters, to the states of its tasks."""
    pipeline = shell_pipeline({"only": 'test "$1" = hello'}, inputs={"word": {"parameterType": "STRING"}})
    (fake.buckets / BUCKET / "pipeline.json").write_text(json.dumps(pipeline))
    operator = RunPipelineOperator(
        task_id="run",
        backend="vertex",
        conn_id="google",
        pipeline=f"gs://{BUCKET}/pipeline.json",
        parameters={"word": "hello"},
        pipeline_root=f"gs://{BUCKET}/root",
        deferrable=deferrable,
        poll_interval=0.2,
    )
    run = run_task(operator)
    assert run.state == "success", run.log
    assert run.result["tasks"] == {"only": "SUCCEEDED"}
