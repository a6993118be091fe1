"""The server for tests keeps what it was given, says why it cannot start, and leaves no process behind."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import PlatformUnavailableError
from airflow_mlops.platforms.mlflow import MLflowClient
from airflow_mlops.testing.mlflow_server import mlflow_server


def test_what_a_server_kept_is_there_for_the_next_one(tmp_path: Path) -> None:
    """Models survive a restart on the same folder, artifacts are below it, and nothing answers in between."""
    with mlflow_server(tmp_path) as first, MLflowClient(ConnectionInfo(host=first)) as client:
        client.create_model("kept")
        client.artifacts.write("mlflow-artifacts:/0/note.txt", b"hello")
    with MLflowClient(ConnectionInfo(host=first)) as client, pytest.raises(PlatformUnavailableError):
        client.model("kept")
    assert (tmp_path / "artifacts" / "0" / "note.txt").read_bytes() == b"hello"
    with mlflow_server(tmp_path) as second:
        found = httpx.get(f"{second}/api/2.0/mlflow/registered-models/get?name=kept").json()
    assert found["registered_model"]["name"] == "kept"


def test_a_server_that_cannot_start_shows_its_log(tmp_path: Path) -> None:
    """With a database that is none, the error ends with what the server wrote."""
    (tmp_path / "mlflow.db").write_text("this is not a database, and longer than a header of one hundred bytes" * 9)
    with pytest.raises(RuntimeError, match="not a database"), mlflow_server(tmp_path):
        pytest.fail("it started")
