"""A job's tracking run, on a real MLflow server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.platforms.mlflow import MLflowClient
from airflow_mlops.training.contract import JobHandle, JobState, TrainingResult, TrainingSpec
from airflow_mlops.training.launch import RUN_ID
from airflow_mlops.training.tracking import MLflowTracking, credentials, exported, trust


@pytest.fixture
def tracking(mlflow_server: str) -> Iterator[MLflowTracking]:
    """Track in an experiment of this module."""
    with MLflowClient(ConnectionInfo(host=mlflow_server)) as client:
        yield MLflowTracking(client, "training-tracking", {"team": "blue"})


def test_same_name_same_run(tracking: MLflowTracking) -> None:
    """A worker that died after it made the run is followed by one that finds it, so that the spec stays the same."""
    spec = TrainingSpec(("true",), parameters={f"p{i}": i for i in range(130)})
    first, second = (tracking.open("aml-same", spec) for _ in range(2))
    assert first == second
    found, run_id = first
    assert found.env[RUN_ID] == run_id
    data = tracking.client.run(run_id)["data"]
    assert len(data["params"]) == 130
    assert {"key": "team", "value": "blue"} in data["tags"]
    assert tracking.open("aml-other", spec)[1] != run_id


@pytest.mark.parametrize(
    ("state", "status"),
    [(JobState.SUCCEEDED, "FINISHED"), (JobState.FAILED, "FAILED"), (JobState.PREEMPTED, "KILLED")],
)
def test_a_run_is_closed_once(state: JobState, status: str, tracking: MLflowTracking) -> None:
    """Closing twice keeps the time of the first end."""
    run_id = tracking.open(f"aml-{state}", TrainingSpec(("true",)))[1]
    tracking.close(run_id, state)
    first = tracking.client.run(run_id)["info"]
    tracking.close(run_id, state)
    assert (first["status"], tracking.client.run(run_id)["info"]) == (status, first)


@pytest.mark.parametrize(
    ("info", "variables"),
    [
        (ConnectionInfo(host="h"), {}),
        (ConnectionInfo(password="t"), {"MLFLOW_TRACKING_TOKEN": "t"}),
        (ConnectionInfo(login="u", password="p"), {"MLFLOW_TRACKING_USERNAME": "u", "MLFLOW_TRACKING_PASSWORD": "p"}),
        (ConnectionInfo(extra={"verify": False}), {"MLFLOW_TRACKING_INSECURE_TLS": "true"}),
        (ConnectionInfo(extra={"verify": "/ca.pem"}), {"MLFLOW_TRACKING_SERVER_CERT_PATH": "/ca.pem"}),
    ],
)
def test_a_connection_becomes_the_variables_mlflow_reads(info: ConnectionInfo, variables: dict[str, str]) -> None:
    """The job's own MLflow client gets in as our client does."""
    assert {**credentials(info), **trust(info)} == variables


def test_trust_is_no_secret(tracking: MLflowTracking) -> None:
    """Whose certificate is accepted travels as a plain variable, which every platform takes."""
    found = replace(tracking, env=trust(ConnectionInfo(extra={"verify": "/ca.pem"})))
    spec, _ = found.open("aml-trust", TrainingSpec(("true",)))
    assert (spec.env["MLFLOW_TRACKING_SERVER_CERT_PATH"], spec.secret_env) == ("/ca.pem", {})


def test_a_program_need_not_report_what_it_logged(tracking: MLflowTracking) -> None:
    """What the run knows completes a result: the last metrics. What the program itself reported counts more."""
    _, run_id = tracking.open("aml-complete", TrainingSpec(("true",)))
    tracking.client.log(run_id, metrics={"auc": 0.5, "loss": 1.0})
    tracking.client.log(run_id, metrics={"auc": 0.75})
    bare = TrainingResult(JobHandle("local", "x"), run_id=run_id)
    assert tracking.complete(run_id, bare).metrics == {"auc": 0.75, "loss": 1.0}
    told = replace(bare, metrics={"f1": 1.0}, model_uri="models:/m-1")
    assert tracking.complete(run_id, told) == told


def test_the_run_gets_what_a_program_only_reported(tracking: MLflowTracking) -> None:
    """A metric that was reported and not logged is in the run, too, once; one that was logged stays as it was."""
    _, run_id = tracking.open("aml-reported", TrainingSpec(("true",)))
    tracking.client.log(run_id, metrics={"auc": 0.5})
    told = TrainingResult(JobHandle("local", "x"), metrics={"auc": 0.75, "loss": 1.0})
    for _ in range(2):
        tracking.complete(run_id, told)
    points = tracking.client.run(run_id)["data"]["metrics"]
    assert {point["key"]: point["value"] for point in points} == {"auc": 0.5, "loss": 1.0}


def test_the_model_a_program_logged_is_the_result(tracking: MLflowTracking, tmp_path: Path) -> None:
    """The job's model is the one that its program logged to the run, with MLflow's own client; NaN is no metric."""
    _, run_id = tracking.open("aml-model", TrainingSpec(("true",)))
    code = (
        "import mlflow\n"
        "class Model(mlflow.pyfunc.PythonModel):\n"
        "    def predict(self, context, model_input: list[str]) -> list[str]: return model_input\n"
        "with mlflow.start_run():\n"
        "    mlflow.log_metrics({'auc': 0.5, 'loss': float('nan')})\n"
        "    print(mlflow.pyfunc.log_model(name='model', python_model=Model()).model_id)\n"
    )
    env = {**os.environ, "MLFLOW_TRACKING_URI": tracking.client.address, "MLFLOW_RUN_ID": run_id}
    said = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=tmp_path, check=True, capture_output=True, text=True
    )
    found = tracking.complete(run_id, TrainingResult(JobHandle("local", "x"), run_id=run_id))
    assert found.metrics == {"auc": 0.5}
    assert found.model_uri == f"models:/{said.stdout.split()[0]}"


def test_exported_variables_do_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the block the process is as it was, also when the block failed."""
    monkeypatch.setenv("OLD", "1")
    seen = {}

    def fail() -> None:
        with exported({"OLD": "2", "NEW": "3"}):
            seen.update(os.environ)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (seen["OLD"], seen["NEW"]) == ("2", "3")
    assert (os.environ["OLD"], os.environ.get("NEW")) == ("1", None)


def test_a_job_elsewhere_may_have_another_way_to_the_server(tracking: MLflowTracking) -> None:
    """The address and the secrets that the spec itself names are kept; the run is still the job's own."""
    spec = TrainingSpec(
        ("true",),
        env={"MLFLOW_TRACKING_URI": "https://mlflow.example.com", RUN_ID: "mine"},
        secret_env={"MLFLOW_TRACKING_TOKEN": "cloud/secret"},
    )
    found, run_id = replace(tracking, secret_env={"MLFLOW_TRACKING_TOKEN": "own"}).open("aml-elsewhere", spec)
    assert found.env["MLFLOW_TRACKING_URI"] == "https://mlflow.example.com"
    assert (found.env[RUN_ID], found.secret_env) == (run_id, {"MLFLOW_TRACKING_TOKEN": "cloud/secret"})
