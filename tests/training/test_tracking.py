"""A job's tracking run, on a real MLflow server."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.platforms.mlflow import MLflowClient
from airflow_mlops.training.contract import JobState, TrainingSpec
from airflow_mlops.training.launch import RUN_ID
from airflow_mlops.training.tracking import MLflowTracking, credentials, exported


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
    data = tracking.client.run(first.env[RUN_ID])["data"]
    assert len(data["params"]) == 130
    assert {"key": "team", "value": "blue"} in data["tags"]
    assert tracking.open("aml-other", spec).env[RUN_ID] != first.env[RUN_ID]


@pytest.mark.parametrize(
    ("state", "status"),
    [(JobState.SUCCEEDED, "FINISHED"), (JobState.FAILED, "FAILED"), (JobState.PREEMPTED, "KILLED")],
)
def test_a_run_is_closed_once(state: JobState, status: str, tracking: MLflowTracking) -> None:
    """Closing twice keeps the time of the first end."""
    run_id = tracking.open(f"aml-{state}", TrainingSpec(("true",))).env[RUN_ID]
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
    assert credentials(info) == variables


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
