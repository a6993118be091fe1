"""TuneModelOperator on SageMaker, with Airflow's real task runner and a connection of the type ``aws``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_mlops.core.errors import JobFailedError, PlatformUnavailableError, UnsupportedFeatureError
from airflow_mlops.hooks.tuning import TuningHook
from airflow_mlops.operators.tuning import TuneModelOperator
from airflow_mlops.testing.sagemaker import SageMakerFake, sagemaker_fake
from airflow_mlops.testing.task_runner import DagRunMemory, run_task, run_trigger
from airflow_mlops.training.contract import JobHandle

CREATE = "CreateHyperParameterTuningJob"
REPORT = 'echo "{\\"metrics\\": {\\"auc\\": $4}, \\"model_uri\\": \\"models:/m-$4\\"}" > $MLOPS_OUTPUT'


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[SageMakerFake]:
    """Run an account whose images have the program ``train``."""
    with sagemaker_fake() as found:
        found.add_program("train", '#!/bin/sh\neval "$MLOPS_START"\n')
        monkeypatch.setenv("AIRFLOW_CONN_AWS", json.dumps(found.airflow_connection()))
        yield found


def tune(script: str, **kwargs: Any) -> TuneModelOperator:
    """Return an operator that searches with a shell script in an image; its fourth argument is what is searched."""
    where = {"backend": "sagemaker", "conn_id": "aws", "image": "train:1", "poll_interval": 0.2}
    what = {"space": {"x": {"low": 1, "high": 90, "type": "int"}}, "metric": "auc", "max_trials": 3}
    command = ["sh", "-c", script, "train"]
    return TuneModelOperator(task_id="tune", command=command, parameters={"epochs": 3}, **{**where, **what, **kwargs})


def words(fake: SageMakerFake) -> list[str]:
    """Return the status of every search, oldest first."""
    return [search["HyperParameterTuningJobStatus"] for search in fake.searches().values()]


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_search_returns_its_best_trial(fake: SageMakerFake, deferrable: bool) -> None:
    """The task returns what the best trial reported, as training would; the XCom ``tuning`` has all trials."""
    run = run_task(tune(f"sleep 2; {REPORT}", deferrable=deferrable))
    assert run.state == "success", run.log
    tuning = run.xcoms["tuning"]
    best = max(trial["value"] for trial in tuning["trials"])
    assert len(tuning["trials"]) == 3
    assert tuning["parameters"] == {"epochs": 3, "x": best}
    assert tuning["billed_seconds"] >= 6
    assert (run.result["metrics"], run.result["model_uri"]) == ({"auc": best}, f"models:/m-{best:.0f}")
    job = JobHandle.from_dict(tuning["job"])
    assert job.console_url.endswith(f"#/hyper-tuning-jobs/{job.job_id.partition('/')[2]}")
    assert run.deferrals == (1 if deferrable else 0)
    assert words(fake) == ["Completed"]


def test_waiting_in_the_triggerer_costs_one_request_a_look(fake: SageMakerFake) -> None:
    """A search that waits alone is described; no list, trial or log is read for it."""
    run = run_task(tune(f"sleep 3; {REPORT}", parallel_trials=3), follow=False)
    assert run.state == "deferred"
    fake.calls.reset()
    assert run_trigger(run.trigger)["payload"] == {"why": "succeeded"}
    assert {call.verb for call in fake.calls.seen()} == {"DescribeHyperParameterTuningJob"}


def test_a_failing_program_fails_the_task(fake: SageMakerFake) -> None:
    """When every trial failed the task does, with the exit code and the last lines of one, and is not tried again."""
    run = run_task(tune("echo ValueError: no rows; exit 41", retries=2))
    assert (run.state, type(run.error)) == ("failed", JobFailedError)
    assert "exit code: 41" in str(run.error)
    assert "ValueError: no rows" in str(run.error)


def test_a_space_that_it_cannot_search_fails_the_task_before_anything_is_made(fake: SageMakerFake) -> None:
    """The error names the parameter."""
    run = run_task(tune(REPORT, space={"bias": {"choices": [True, False]}}, retries=2))
    assert (run.state, type(run.error)) == ("failed", UnsupportedFeatureError)
    assert "'bias'" in str(run.error)
    assert fake.calls.count(CREATE) == 0


def test_a_retry_adopts_the_search_that_the_lost_worker_started(fake: SageMakerFake) -> None:
    """A try whose submission got no answer leaves a search that the next try finds: one in all."""
    fake.faults.lose_answers(4, operation=CREATE)
    memory = DagRunMemory()
    first = run_task(tune(REPORT, retries=1), memory=memory)
    assert (first.state, type(first.error)) == ("up_for_retry", PlatformUnavailableError)
    assert run_task(tune(REPORT, retries=1), memory=memory, try_number=2, max_tries=1).state == "success"
    assert words(fake) == ["Completed"]


def test_a_clear_stops_the_search_and_starts_a_new_one(fake: SageMakerFake) -> None:
    """The search of the cleared run and its trials are ordered to end before the new one runs."""
    memory = DagRunMemory()
    assert run_task(tune("sleep 60"), memory=memory, follow=False).state == "deferred"
    again = run_task(tune("sleep 60"), memory=memory, max_tries=1, follow=False)
    assert again.state == "deferred", again.log
    old, new = words(fake)
    assert old in ("Stopping", "Stopped")
    assert new == "InProgress"


def test_the_connection_answers(fake: SageMakerFake) -> None:
    """The hook's test asks the platform for our searches."""
    assert TuningHook("sagemaker", "aws").test_connection() == (True, "The backend 'sagemaker' answers.")
