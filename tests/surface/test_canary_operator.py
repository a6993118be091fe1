"""The canary operator in Airflow's task runner, on a real gateway with live requests."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from airflow_mlops.core.errors import GateFailedError, NotFoundError
from airflow_mlops.core.refs import ModelVersion
from airflow_mlops.deployment.driver import Outcome, RolloutResult
from airflow_mlops.deployment.targets.local import LocalTarget
from airflow_mlops.operators.deployment import (
    CanaryRolloutOperator,
)
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
    """The old revision has everything back in the first step; the task fails for good and says why."""
    endpoint = serve("good", model)
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
    """A try that was killed at 60 percent is not started over: the next one bakes 60 percent and promotes.

    What it would restore is what served before the first try.
    """
    memory = DagRunMemory()
    run_task(canary(endpoint), memory=memory, follow=False)
    target.shift(endpoint, {"v1": 40, "v2": 60})
    waiting = run_task(canary(endpoint), memory=memory, try_number=2, follow=False)
    assert waiting.state_store["rollout_plan"]["prior"] == {"v1": 100.0}
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


@pytest.mark.parametrize("traffic", [{"v1": 100.0}, {"v1": 40.0, "v2": 60.0}])
def test_a_cleared_task_takes_its_new_arguments(target: LocalTarget, endpoint: str, traffic: dict[str, float]) -> None:
    """Who corrects an argument and clears the task gets the new one; what would be restored stays the same."""
    memory = DagRunMemory()
    run_task(canary(endpoint), memory=memory, follow=False)
    target.shift(endpoint, traffic)
    run = run_task(canary(endpoint, bake=9), memory=memory, follow=False)
    assert run.state_store["rollout_plan"]["bake"] == 9
    assert run.state_store["rollout_plan"]["prior"] == {"v1": 100.0}


@pytest.mark.parametrize("theirs", [{"v1": 100.0}, {"v1": 70.0, "v2": 30.0}])
def test_a_promotion_that_somebody_took_back_fails_once(
    target: LocalTarget, endpoint: str, theirs: dict[str, float]
) -> None:
    """Who rolls back before the task has ended wins: it fails for good and says so, and clearing it starts over."""
    memory = DagRunMemory()
    waiting = run_task(canary(endpoint), memory=memory, follow=False)
    target.shift(endpoint, theirs)
    promoted = RolloutResult(endpoint, "v2", Outcome.PROMOTED, {"v2": 100.0})
    run = run_task(canary(endpoint), memory=memory, resume=waiting, event=promoted.to_dict())
    assert isinstance(run.error, GateFailedError), run.error
    assert "Somebody else" in str(run.error)
    assert run.result["decision"] == "interrupted"
    assert target.status(endpoint).traffic == theirs
    assert run_task(canary(endpoint), memory=memory, follow=False).state == "deferred"


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
