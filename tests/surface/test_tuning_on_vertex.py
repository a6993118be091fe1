"""TuneModelOperator on Vertex AI, with Airflow's real task runner and Google's connection."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_mlops.core.errors import JobFailedError, PlatformUnavailableError
from airflow_mlops.hooks.tuning import TuningHook
from airflow_mlops.operators.tuning import TuneModelOperator
from airflow_mlops.testing.task_runner import DagRunMemory, run_task
from airflow_mlops.testing.vertex import VertexFake, vertex_fake
from airflow_mlops.training.contract import JobHandle, JobState

SEARCHES = "hyperparameterTuningJobs"
REPORT = 'echo "{\\"metrics\\": {\\"auc\\": $4}, \\"model_uri\\": \\"models:/m-$4\\"}" > $MLOPS_OUTPUT'


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[VertexFake]:
    """Run Vertex AI, with a connection of the type that Airflow's Google provider has."""
    with vertex_fake() as found:
        connection = {"conn_type": "google_cloud_platform", "extra": found.extras()}
        monkeypatch.setenv("AIRFLOW_CONN_GOOGLE", json.dumps(connection))
        yield found


def tune(script: str, **kwargs: Any) -> TuneModelOperator:
    """Return an operator that searches with a shell script in an image; its fourth argument is what is searched."""
    where = {"backend": "vertex", "conn_id": "google", "image": "train:1", "poll_interval": 0.2}
    what = {"space": {"x": {"low": 1, "high": 90, "type": "int"}}, "metric": "auc", "max_trials": 3}
    command = ["sh", "-c", script, "train"]
    return TuneModelOperator(task_id="tune", command=command, parameters={"epochs": 3}, **{**where, **what, **kwargs})


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_search_returns_its_best_trial(fake: VertexFake, deferrable: bool) -> None:
    """The task returns what the best trial reported, as training would; the XCom ``tuning`` has all trials."""
    run = run_task(tune(f"sleep 2; {REPORT}", deferrable=deferrable))
    assert run.state == "success", run.log
    tuning = run.xcoms["tuning"]
    best = max(trial["value"] for trial in tuning["trials"])
    assert len(tuning["trials"]) == 3
    assert tuning["parameters"] == {"epochs": 3, "x": best}
    assert (run.result["metrics"], run.result["model_uri"]) == ({"auc": best}, f"models:/m-{best:.0f}")
    assert JobHandle.from_dict(tuning["job"]).console_url.startswith("https://console.cloud.google.com/")
    assert run.deferrals == (1 if deferrable else 0)
    assert fake.calls.count("create", SEARCHES) == 1


def test_a_failing_program_fails_the_task(fake: VertexFake) -> None:
    """When every trial failed the task does, with the exit code and the last lines of one."""
    run = run_task(tune("echo ValueError: no rows; exit 41", retries=2))
    assert (run.state, type(run.error)) == ("failed", JobFailedError)
    assert "status of 41" in str(run.error)
    assert "ValueError: no rows" in str(run.error)


def test_a_retry_adopts_the_search_that_the_lost_worker_started(fake: VertexFake) -> None:
    """A try whose submission got no answer leaves a search that the next try finds: one in all."""
    fake.faults.lose_answers(1, resource=SEARCHES, late=4.5)
    memory = DagRunMemory()
    first = run_task(tune(REPORT, retries=1), memory=memory)
    assert (first.state, type(first.error)) == ("up_for_retry", PlatformUnavailableError)
    fake.faults.settle()
    assert run_task(tune(REPORT, retries=1), memory=memory, try_number=2, max_tries=1).state == "success"
    assert len(fake.jobs(SEARCHES)) == 1


def test_a_clear_stops_the_search_and_starts_a_new_one(fake: VertexFake) -> None:
    """The search of the cleared run is ordered to end before the new one runs."""
    memory = DagRunMemory()
    assert run_task(tune("sleep 60"), memory=memory, follow=False).state == "deferred"
    again = run_task(tune("sleep 60"), memory=memory, max_tries=1, follow=False)
    assert again.state == "deferred", again.log
    backend = TuningHook("vertex", "google").get_backend()
    old, new = sorted((handle for handle, _ in backend.managed()), key=lambda handle: handle.job_id)
    states = {handle: backend.observe([handle])[handle] for handle in (old, new)}
    assert states[new].state in (JobState.PENDING, JobState.RUNNING)
    assert states[old].state is JobState.CANCELLED or states[old].native == "JOB_STATE_CANCELLING"


def test_the_connection_answers(fake: VertexFake) -> None:
    """The hook's test asks the platform for our searches."""
    assert TuningHook("vertex", "google").test_connection() == (True, "The backend 'vertex' answers.")
