"""Fixtures every room shares. Airflow gets a home of its own before anything imports it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")

_HOME = tempfile.mkdtemp(prefix="airflow-mlops-tests-")
os.environ["AIRFLOW_HOME"] = _HOME
os.environ["AIRFLOW__CORE__UNIT_TEST_MODE"] = "True"
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
for _name in ("DO_NOT_TRACK", "DVC_NO_ANALYTICS", "MLFLOW_DISABLE_TELEMETRY"):
    os.environ[_name] = "true"
os.environ["GX_ANALYTICS_ENABLED"] = "false"
for _name in [name for name in os.environ if name.lower().endswith("_proxy")]:
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the address of a real MLflow server that all tests of the session share."""
    from airflow_mlops.testing.mlflow_server import mlflow_server as serve

    with serve(tmp_path_factory.mktemp("mlflow")) as url:
        yield url
