"""The deployment operators in Airflow's task runner, on a real gateway with live requests."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import GateFailedError, InvalidSpecError, JobFailedError, NotFoundError
from airflow_mlops.core.refs import ModelVersion
from airflow_mlops.deployment.targets.local import LocalTarget
from airflow_mlops.hooks.deployment import DeploymentHook
from airflow_mlops.operators.deployment import (
    CanaryRolloutOperator,
    DeployModelOperator,
    RollbackDeploymentOperator,
    ShiftTrafficOperator,
)
from airflow_mlops.platforms.mlflow import MLflowClient
from airflow_mlops.registry.registries.mlflow import MLflowRegistry
from airflow_mlops.testing.deployment_target import write_model
from airflow_mlops.testing.gateway import running_gateway
from airflow_mlops.testing.live_requests import live_requests
from airflow_mlops.testing.task_runner import DagRunMemory, run_task

GOOD = "return list(table['a'])"
INVERTED = "return [1 - x for x in table['a']]"
FAILING = "if random.random() < 0.5:\n    raise ValueError('no such airport')\nreturn list(table['a'])"
CANARY: dict[str, Any] = {
    "steps": [30, 60, 100], "bake": 4, "max_hold": 60, "min_requests": 20, "poll": 0.5, "max_latency_ratio": 10,
}  # fmt: skip


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
    monkeypatch.setattr("airflow_mlops.triggers.deployment.EARLIEST_EVENT", 0.0)  # there is no executor to race


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelVersion]:
    """Give models by what they do."""
    root = tmp_path_factory.mktemp("models")
    return {
        "good": write_model(root / "m1", GOOD),
        "same": write_model(root / "m2", GOOD + "  # trained again"),
        "inverted": write_model(root / "m3", INVERTED),
        "failing": write_model(root / "m4", FAILING),
        "unloadable": write_model(root / "m5", "return None", load="raise OSError('weights.bin is missing')"),
    }


@pytest.fixture
def serve(target: LocalTarget, models: dict[str, ModelVersion]) -> Callable[..., str]:
    """Give a function that deploys models as v1, v2 ... to a new endpoint."""

    def deploy(*names: str) -> str:
        endpoint = f"fares-{uuid.uuid4().hex[:8]}"
        for number, name in enumerate(names, 1):
            target.deploy(models[name], endpoint, revision=f"v{number}")
        return endpoint

    return deploy


@pytest.fixture(scope="module")
def pair(target: LocalTarget, models: dict[str, ModelVersion]) -> str:
    """Give one endpoint with two equal revisions for the tests that need no more."""
    for number, name in enumerate(("good", "same", "good"), 1):
        target.deploy(models[name], "pair", revision=f"v{number}")
    return "pair"


@pytest.fixture
def endpoint(target: LocalTarget, pair: str) -> str:
    """Give that endpoint with all traffic on v1."""
    target.shift(pair, {"v1": 100})
    return pair


def canary(endpoint: str, **changes: Any) -> CanaryRolloutOperator:
    """Give a roll-out that is over in seconds."""
    return CanaryRolloutOperator(task_id="canary", endpoint=endpoint, **{"revision": "v2", **CANARY, **changes})


def test_deploying_returns_what_serves_and_keeps_the_link(target: LocalTarget, models: dict[str, ModelVersion]) -> None:
    """The XCom is the endpoint's status with the name that was deployed; the button has the endpoint's address."""
    run = run_task(DeployModelOperator(task_id="deploy", endpoint="first", model=models["good"].to_dict()))
    assert run.state == "success", run.log
    assert run.result == {**target.status("first").to_dict(), "revision": "v1"}
    assert run.result["revisions"][0]["traffic"] == 100.0
    assert run.xcoms["endpoint_url"] == target.status("first").url


def test_an_endpoint_that_never_gets_ready_fails_for_good(
    target: LocalTarget, models: dict[str, ModelVersion], serve: Callable[..., str]
) -> None:
    """The error has the model's own words, nothing else serves than before, and no retry is wasted on it."""
    endpoint = serve("good")
    task = DeployModelOperator(task_id="deploy", endpoint=endpoint, model=models["unloadable"].to_dict(), retries=2)
    run = run_task(task)
    assert run.state == "failed"
    assert isinstance(run.error, JobFailedError)
    assert "weights.bin is missing" in str(run.error)
    assert [r.revision for r in target.status(endpoint).revisions] == ["v1"]
    assert target.status(endpoint).traffic == {"v1": 100.0}


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


def test_a_good_canary_is_promoted_under_live_requests(target: LocalTarget, endpoint: str) -> None:
    """Step by step it gets everything, the old one is kept as ``previous``, one deferral in all, no request is lost."""
    with live_requests(target.status(endpoint).url) as codes:
        run = run_task(canary(endpoint, revision={"revision": "v2", "endpoint": endpoint}))
    assert run.state == "success", run.log
    assert run.deferrals == 1
    assert run.result["decision"] == "promoted"
    assert run.result["traffic"] == {"v2": 100.0}
    assert [step["percent"] for step in run.result["steps"]] == [30.0, 60.0]
    status = target.status(endpoint)
    assert (status.traffic, status.previous) == ({"v2": 100.0}, "v1")
    assert set(codes) == {200}
    assert run.state_store == {}


@pytest.mark.parametrize(("model", "rule"), [("inverted", "prediction_shift"), ("failing", "error_rate")])
def test_a_bad_canary_rolls_itself_back(target: LocalTarget, serve: Callable[..., str], model: str, rule: str) -> None:
    """The old revision has everything back within the first bake time; the task fails for good and says why."""
    endpoint = serve("good", model)
    began = time.monotonic()
    with live_requests(target.status(endpoint).url):
        task = canary(endpoint)
        task.retries = 3
        run = run_task(task)
    assert run.state == "failed", run.log
    assert isinstance(run.error, GateFailedError)
    assert [r.rule for r in run.error.decision.reasons if r.verdict == "fail"] == [rule]
    assert target.status(endpoint).traffic == {"v1": 100.0}
    assert run.result["decision"] == "rolled_back"
    assert [step["percent"] for step in run.result["steps"]] == [30.0]
    assert time.monotonic() - began < 15


def test_a_revision_that_serves_already_succeeds_at_once(endpoint: str) -> None:
    """The first revision has nothing to be compared with: the task says so and does not wait."""
    run = run_task(canary(endpoint, revision="v1"))
    assert run.state == "success", run.log
    assert (run.result["decision"], run.deferrals) == ("already_serving", 0)


def test_a_revision_that_is_not_there_is_named(endpoint: str) -> None:
    """A typo fails before anything moves, with the close name."""
    run = run_task(canary(endpoint, revision="v11"))
    assert isinstance(run.error, NotFoundError)
    assert "did you mean 'v1'" in str(run.error)


@pytest.mark.parametrize(("choice", "state"), [("skip", "skipped"), ("rollback", "failed")])
def test_a_canary_without_requests_is_not_promoted(target: LocalTarget, endpoint: str, choice: str, state: str) -> None:
    """Without evidence the old revision serves on, and the task ends as was chosen."""
    run = run_task(canary(endpoint, bake=1, max_hold=1, on_inconclusive=choice))
    assert run.state == state, run.log
    assert run.result["decision"] == "inconclusive"
    assert target.status(endpoint).traffic == {"v1": 100.0}


def test_a_rollout_that_runs_out_of_time_is_taken_back(target: LocalTarget, endpoint: str) -> None:
    """The trigger keeps a deadline of its own, since Airflow applies none while a task is deferred."""
    run = run_task(canary(endpoint, timeout=3, bake=60))
    assert run.state == "failed"
    assert "time for the whole roll-out is over" in str(run.error)
    assert target.status(endpoint).traffic == {"v1": 100.0}


def test_a_trigger_that_fails_leaves_the_old_revision(target: LocalTarget, endpoint: str) -> None:
    """Airflow resumes such a task only to fail it; the traffic is put back first."""
    memory = DagRunMemory()
    run = run_task(canary(endpoint), memory=memory, follow=False)
    assert run.state == "deferred", run.log
    target.shift(endpoint, {"v1": 70, "v2": 30})
    assert run.api is not None
    run.api.final["next_method"] = "__fail__"
    ended = run_task(canary(endpoint), memory=memory, resume=run, event={})
    assert ended.state == "failed"
    assert target.status(endpoint).traffic == {"v1": 100.0}


def test_a_retry_goes_on_where_the_first_try_was(target: LocalTarget, endpoint: str) -> None:
    """A try that was killed at 60 percent is not started over: the next one bakes 60 percent and promotes."""
    memory = DagRunMemory()
    run_task(canary(endpoint), memory=memory, follow=False)
    target.shift(endpoint, {"v1": 40, "v2": 60})
    with live_requests(target.status(endpoint).url):
        run = run_task(canary(endpoint), memory=memory, try_number=2)
    assert run.state == "success", run.log
    assert [step["percent"] for step in run.result["steps"]] == [60.0]


def test_a_cleared_task_does_not_restore_an_old_world(target: LocalTarget, endpoint: str) -> None:
    """What an earlier try wrote down does not count once something else serves."""
    memory = DagRunMemory()
    run_task(canary(endpoint), memory=memory, follow=False)
    target.shift(endpoint, {"v3": 100})
    run = run_task(canary(endpoint), memory=memory, follow=False)
    assert run.state_store["rollout_plan"]["prior"] == {"v3": 100.0}


class SlowToDefer(CanaryRolloutOperator):
    """Is still in the worker when its time is over."""

    def _wait(self, plan: Any) -> Any:
        time.sleep(30)


def test_an_execution_timeout_leaves_the_old_revision(target: LocalTarget, endpoint: str) -> None:
    """A worker that is stopped in the middle of a roll-out puts the traffic back."""
    memory = DagRunMemory()
    run_task(canary(endpoint), memory=memory, follow=False)
    target.shift(endpoint, {"v1": 40, "v2": 60})
    fields = {"task_id": "canary", "endpoint": endpoint, "revision": "v2", **CANARY}
    run = run_task(SlowToDefer(**fields, execution_timeout=timedelta(seconds=1)), memory=memory, try_number=2)
    assert run.state == "failed"
    assert target.status(endpoint).traffic == {"v1": 100.0}


@pytest.mark.parametrize(("state", "traffic"), [("deferred", 30.0), ("failed", 0.0), (None, 0.0)])
def test_a_person_who_ends_the_task_gets_the_old_revision(
    target: LocalTarget, endpoint: str, monkeypatch: pytest.MonkeyPatch, state: str | None, traffic: float
) -> None:
    """Ended by hand the traffic is put back; moved to another triggerer, which looks the same, it is left alone."""
    from types import SimpleNamespace

    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    trigger = run_task(canary(endpoint), follow=False).trigger
    target.shift(endpoint, {"v1": 70, "v2": 30})
    trigger._task_instance = SimpleNamespace(dag_id="d", task_id="canary", run_id="r", map_index=-1)
    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", lambda **_: {"r": {"canary": state}})
    asyncio.run(trigger.on_kill())
    found = target.status(endpoint).find("v2")
    assert found is not None
    assert found.traffic == traffic


def test_a_kill_while_airflow_does_not_answer_is_taken_as_a_kill(
    target: LocalTarget, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When nobody can say whether the task is still deferred, the old revision is the safe side."""
    from types import SimpleNamespace

    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    def silence(**_: Any) -> Any:
        raise OSError("no answer")

    trigger = run_task(canary(endpoint), follow=False).trigger
    target.shift(endpoint, {"v1": 70, "v2": 30})
    trigger._task_instance = SimpleNamespace(dag_id="d", task_id="canary", run_id="r", map_index=-1)
    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", silence)
    asyncio.run(trigger.on_kill())
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
