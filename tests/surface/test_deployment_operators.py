"""The deployment operators in Airflow's task runner, on a real gateway with live requests."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import InvalidSpecError, JobFailedError
from airflow_mlops.core.refs import ModelVersion
from airflow_mlops.deployment.targets.local import LocalTarget
from airflow_mlops.hooks.deployment import DeploymentHook
from airflow_mlops.operators.deployment import (
    DeployModelOperator,
    RollbackDeploymentOperator,
    ShiftTrafficOperator,
)
from airflow_mlops.platforms.mlflow import MLflowClient
from airflow_mlops.registry.registries.mlflow import MLflowRegistry
from airflow_mlops.testing.deployment_target import write_model
from airflow_mlops.testing.gateway import running_gateway
from airflow_mlops.testing.task_runner import run_task

GOOD = "return list(table['a'])"


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalTarget]:
    """Give the target of a real gateway."""
    with running_gateway(tmp_path_factory.mktemp("gateway")) as gateway:
        yield LocalTarget(gateway.url)


@pytest.fixture(autouse=True)
def _connection(target: LocalTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let gateway_default lead to the gateway."""
    host, _, port = target.url.removeprefix("http://").partition(":")
    value = json.dumps({"conn_type": "mlops_gateway", "host": host, "port": int(port)})
    monkeypatch.setenv("AIRFLOW_CONN_GATEWAY_DEFAULT", value)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelVersion]:
    """Give models by what they do."""
    root = tmp_path_factory.mktemp("models")
    return {
        "good": write_model(root / "m1", GOOD),
        "same": write_model(root / "m2", GOOD + "  # trained again"),
        "unloadable": write_model(root / "m3", "return None", load="raise OSError('weights.bin is missing')"),
    }


@pytest.fixture(scope="module")
def pair(target: LocalTarget, models: dict[str, ModelVersion]) -> str:
    """Give one endpoint with two equal revisions for the tests that need no more."""
    for number, name in enumerate(("good", "same"), 1):
        target.deploy(models[name], "pair", revision=f"v{number}")
    return "pair"


@pytest.fixture
def endpoint(target: LocalTarget, pair: str) -> str:
    """Give that endpoint with all traffic on v1."""
    target.shift(pair, {"v1": 100})
    return pair


def test_deploying_returns_what_serves_and_keeps_the_link(target: LocalTarget, models: dict[str, ModelVersion]) -> None:
    """The XCom is the endpoint's status with the name that was deployed; the button has the endpoint's address."""
    run = run_task(DeployModelOperator(task_id="deploy", endpoint="first", model=models["good"].to_dict()))
    assert run.state == "success", run.log
    assert run.result == {**target.status("first").to_dict(), "revision": "v1"}
    assert run.result["revisions"][0]["traffic"] == 100.0
    assert run.xcoms["endpoint_url"] == target.status("first").url


def test_an_endpoint_that_never_gets_ready_fails_for_good(
    target: LocalTarget, models: dict[str, ModelVersion], endpoint: str
) -> None:
    """The error has the model's own words, nothing else serves than before, and no retry is wasted on it."""
    task = DeployModelOperator(task_id="deploy", endpoint=endpoint, model=models["unloadable"].to_dict(), retries=2)
    run = run_task(task)
    assert run.state == "failed"
    assert isinstance(run.error, JobFailedError)
    assert "weights.bin is missing" in str(run.error)
    assert [r.revision for r in target.status(endpoint).revisions] == ["v1", "v2"]
    assert target.status(endpoint).traffic == {"v1": 100.0}


def test_idle_revisions_are_taken_away_when_asked(target: LocalTarget, models: dict[str, ModelVersion]) -> None:
    """What serves, what was just deployed and where a rollback goes stay; any other revision without traffic goes."""
    good = models["good"].to_dict()
    for number in range(1, 5):
        task = DeployModelOperator(
            task_id="deploy", endpoint="tidy", model=good, revision=f"r{number}", remove_idle=number == 4
        )
        assert run_task(task).state == "success"
        if number == 2:
            target.shift("tidy", {"r2": 100.0})
    status = target.status("tidy")
    assert (status.traffic, status.previous) == ({"r2": 100.0}, "r1")
    assert [r.revision for r in status.revisions] == ["r1", "r2", "r4"]


def test_a_registered_model_is_fetched_and_its_digest_serves(
    target: LocalTarget, models: dict[str, ModelVersion], mlflow_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name and an alias are enough: the registry's files, checked against their digest, are what serves."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    registered = register(mlflow_server, Path(models["good"].uri))
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps({"conn_type": "mlflow", "host": mlflow_server}))
    task = DeployModelOperator(task_id="d", endpoint="registered", model_name=registered.name, version="champion")
    run = run_task(task)
    assert run.state == "success", run.log
    assert run.result["revision"] == "v1"
    assert [r.digest for r in target.status("registered").revisions] == [registered.digest]


def register(server: str, folder: Path) -> ModelVersion:
    """Log a model with MLflow's own client, register it and make it champion."""
    import mlflow

    code, packages = [str(folder / "code" / "tiny_model.py")], ["mlflow"]
    with mlflow.start_run(experiment_id=mlflow.create_experiment(uuid.uuid4().hex)) as run:
        logged = mlflow.pyfunc.log_model(
            name="model", loader_module="tiny_model", code_paths=code, pip_requirements=packages
        )
    with MLflowClient(ConnectionInfo(host=server)) as client:
        registry = MLflowRegistry(client)
        name = f"tiny-{uuid.uuid4().hex[:8]}"
        registry.register(name, logged.model_uri, run_id=run.info.run_id, tags={})
        return registry.promote(name, expected=None, to="1")


def test_a_deployment_without_a_model_says_what_it_needs() -> None:
    """Neither a model nor a name with a version is refused before anything is asked."""
    run = run_task(DeployModelOperator(task_id="deploy", endpoint="e"))
    assert isinstance(run.error, InvalidSpecError)
    assert "model_name and version" in str(run.error)


def test_shifting_takes_templates_and_reads_back(target: LocalTarget, endpoint: str) -> None:
    """Percents may come from templates; the XCom is what serves."""
    traffic = {"v1": "{{ 100 - 25 }}", "v2": "{{ 25 }}"}
    run = run_task(ShiftTrafficOperator(task_id="shift", endpoint=endpoint, traffic=traffic))
    assert run.state == "success", run.log
    assert target.status(endpoint).traffic == {"v1": 75.0, "v2": 25.0}
    assert run.result == target.status(endpoint).to_dict()


def test_rolling_back_goes_to_the_revision_before(target: LocalTarget, endpoint: str) -> None:
    """After a full shift the one before serves again; a retry does not go on to yet another one."""
    target.shift(endpoint, {"v2": 100})
    for _ in range(2):
        run = run_task(RollbackDeploymentOperator(task_id="back", endpoint=endpoint))
        assert run.result["revisions"][0]["traffic"] == 100.0
    assert target.status(endpoint).traffic == {"v1": 100.0}


def test_the_connection_can_be_tested(target: LocalTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    """The button in the connection form says what it found, or what to do."""
    assert DeploymentHook().test_connection()[0] is True
    monkeypatch.setenv("AIRFLOW_CONN_GATEWAY_DEFAULT", "mlops-gateway://127.0.0.1:9")
    good, message = DeploymentHook().test_connection()
    assert good is False
    assert "airflow-mlops-gateway" in message


def test_importing_the_operators_loads_nothing_heavy(tmp_path: Path) -> None:
    """A DAG file is parsed in every task process: no array library, no MLflow."""
    import subprocess
    import sys

    code = (
        "import sys, airflow_mlops.operators.deployment, airflow_mlops.deployment.targets.local\n"
        "heavy = {'mlflow', 'numpy', 'pandas', 'pyarrow', 'sklearn', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
