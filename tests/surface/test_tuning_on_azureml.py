"""TuneModelOperator on Azure Machine Learning, with Airflow's real task runner and its own kind of connection."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_mlops.core.errors import JobFailedError
from airflow_mlops.operators.tuning import TuneModelOperator
from airflow_mlops.testing.azureml import AzureMLFake, azureml_fake
from airflow_mlops.testing.task_runner import run_task

REPORT = 'printf \'{"metrics": {"auc": %s}, "model_uri": "models:/m-%s"}\' "$4" "$4" > "$MLOPS_OUTPUT"'


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[AzureMLFake]:
    """Run a workspace, with a connection of the type ``azure``."""
    with azureml_fake() as found:
        monkeypatch.setenv("AIRFLOW_CONN_AZURE", json.dumps(found.airflow_connection()))
        yield found


def tune(script: str, **kwargs: Any) -> TuneModelOperator:
    """Return an operator that searches with a shell script in an image."""
    where = {"backend": "azureml", "conn_id": "azure", "image": "train:1", "poll_interval": 0.2}
    space = {"rate": {"choices": [0.1, 0.2, 0.3]}}
    search = {"space": space, "metric": "auc", "max_trials": 3, "tuning_options": {"sampling": "grid"}}
    command = ["sh", "-c", script, "tune"]
    return TuneModelOperator(task_id="tune", command=command, parameters={"seed": 1}, **{**where, **search, **kwargs})


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_search_returns_the_best_trial_and_keeps_them_all(fake: AzureMLFake, deferrable: bool) -> None:
    """The result is the best trial's, as one training job would have it; the XCom ``tuning`` has all trials."""
    run = run_task(tune(f"sleep 1; {REPORT}", deferrable=deferrable))
    assert run.state == "success", (run.error, run.log)
    assert (run.result["metrics"], run.result["model_uri"]) == ({"auc": 0.3}, "models:/m-0.3")
    tuning = run.xcoms["tuning"]
    assert tuning["parameters"] == {"seed": 1, "rate": 0.3}
    assert [(trial["parameters"], trial["value"]) for trial in tuning["trials"]] == [
        ({"rate": rate}, rate) for rate in (0.1, 0.2, 0.3)
    ]
    assert run.deferrals == (1 if deferrable else 0)
    assert fake.started() == 1


def test_a_search_of_bugs_fails_the_task_with_what_trials_say(fake: AzureMLFake) -> None:
    """The error has the exit code and what a trial printed, and is not tried again."""
    run = run_task(tune("echo ValueError: no rows; exit 41", retries=2))
    assert (run.state, type(run.error)) == ("failed", JobFailedError)
    assert "status code 41" in str(run.error)
    assert "ValueError: no rows" in str(run.error)
