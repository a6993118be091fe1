"""A whole platform for the templates: a migrated database, MLflow, the gateway, git with DVC, the census project."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import census
import pytest

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.platforms.mlflow import MLflowClient
from airflow_mlops.testing.gateway import RunningGateway, running_gateway

ROOT = Path(__file__).resolve().parents[2]
NOBODY = {f"GIT_{role}_{what}": "test@localhost" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


@dataclass
class Platform:
    """What the DAGs of the census project run on."""

    root: Path
    gateway: RunningGateway
    mlflow_url: str

    def dag(self, name: str) -> Any:
        """Return one of the project's DAGs, parsed anew as a worker would."""
        import runpy

        dag = runpy.run_path(f"{os.environ['AIRFLOW_HOME']}/dags/{name}.py")["dag"]
        assert dag.dag_id == f"census_{name}"
        return dag


@pytest.fixture(scope="session")
def airflow_database() -> None:
    """Migrate Airflow's SQLite database once."""
    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, capture_output=True)


@pytest.fixture(scope="module")
def platform(
    tmp_path_factory: pytest.TempPathFactory, mlflow_server: str, airflow_database: None
) -> Iterator[Platform]:
    """Give the platform with the census data of 2015 landed and nothing published."""
    root = tmp_path_factory.mktemp("platform")
    make_repository(root)
    dags = Path(os.environ["AIRFLOW_HOME"]) / "dags"  # where dag.test() looks for what it runs
    shutil.copytree(ROOT / "dags", dags, ignore=shutil.ignore_patterns("projects"), dirs_exist_ok=True)
    (dags / "projects").mkdir(exist_ok=True)
    (dags / "projects" / "census.json").write_text(census.project(root))
    with MLflowClient(ConnectionInfo(host=mlflow_server)) as client:
        client.delete_model("employment")  # another module's champion
    with running_gateway(root / "gateway") as gateway, pytest.MonkeyPatch.context() as patch:
        connections = {
            "MLFLOW_DEFAULT": {"conn_type": "mlflow", "host": mlflow_server},
            "GATEWAY_DEFAULT": {"conn_type": "mlops_gateway", "host": gateway.url},
            "DVC_DEFAULT": {
                "conn_type": "dvc",
                "host": str(root / "data.git"),
                "extra": {"workdir": str(root / "work")},
            },
        }
        for conn_id, connection in connections.items():
            patch.setenv(f"AIRFLOW_CONN_{conn_id}", json.dumps(connection))
        patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        yield Platform(root, gateway, mlflow_server)


def make_repository(root: Path) -> None:
    """Make a bare git repository with a DVC remote, the training script of the demo and the census suite."""
    work = root / "seed"
    (work / "suites").mkdir(parents=True)
    (work / "suites" / "census.json").write_text(json.dumps(census.SUITE))
    shutil.copy(ROOT / "docs" / "demo" / "repository" / "train.py", work)
    for command in (
        ["git", "init", "-q", "-b", "main"],
        [sys.executable, "-m", "dvc", "init", "-q"],
        [sys.executable, "-m", "dvc", "remote", "add", "-q", "-d", "storage", str(root / "remote")],
        ["git", "add", "."],
        ["git", "commit", "-q", "-m", "Training script and suite"],
        ["git", "clone", "-q", "--bare", ".", str(root / "data.git")],
    ):
        subprocess.run(command, cwd=work, check=True, env=os.environ | NOBODY)
