"""What TrainModelOperator says about cost before and after a job, with Airflow's real task runner and real jobs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.decisions import Verdict
from airflow_mlops.core.errors import BudgetExceededError, InvalidSpecError
from airflow_mlops.hooks.mlflow import MLflowHook
from airflow_mlops.hooks.training import TrainingHook
from airflow_mlops.operators.training import TrainModelOperator
from airflow_mlops.platforms.kubernetes import PODS, KubernetesApi
from airflow_mlops.testing.kubernetes import KubernetesFake, kubernetes_fake
from airflow_mlops.testing.task_runner import DagRunMemory, TaskRun, run_task

PRICES = {
    "currency": "EUR",
    "backends": {
        "local": {"resources": {"node_hour": 3600}},
        "kubernetes": {"resources": {"node_hour": {"on_demand": 3600, "spot": 900}}},
    },
}
"""A node costs one euro a second, a spot node a quarter of that."""


@pytest.fixture(autouse=True)
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test a folder of jobs."""
    connection = {"conn_type": "mlops_local", "extra": {"workdir": str(tmp_path / "jobs"), "grace": 0.5}}
    monkeypatch.setenv("AIRFLOW_CONN_LOCAL_JOBS", json.dumps(connection))


def train(script: str = "true", **kwargs: Any) -> TrainModelOperator:
    """Return an operator that runs a shell script."""
    kwargs = {"task_id": "train", "conn_id": "local_jobs", "poll_interval": 0.1, "price_table": PRICES, **kwargs}
    return TrainModelOperator(command=["sh", "-c", script, "train"], **kwargs)


def submitted() -> int:
    """Return how many jobs there are."""
    return len(list(TrainingHook("local", "local_jobs").get_backend().managed()))


@pytest.mark.parametrize("deferrable", [True, False])
def test_the_result_says_what_it_cost(tmp_path: Path, deferrable: bool) -> None:
    """With a price table in a file the result has amount, currency, savings, failed work and what they rest on."""
    table = tmp_path / "prices.json"
    table.write_text(json.dumps(PRICES))
    run = run_task(train("sleep 1.5", price_table=str(table), deferrable=deferrable, max_runtime=60))
    assert run.state == "success", run.error
    cost = run.result["cost"]
    assert 1.5 <= cost["amount"] < 60
    assert cost["amount"] == pytest.approx(cost["billed_seconds"]) == pytest.approx(run.result["billed_seconds"])
    assert (cost["currency"], cost["basis"]) == ("EUR", "billed_seconds")
    assert (cost["spot_savings"], cost["failed_work"]) == (0.0, 0.0)
    assert "Estimated cost: 60 EUR by its max_runtime" in run.log


def test_without_a_price_table_nothing_is_said() -> None:
    """The result has no cost, and no price is made up."""
    run = run_task(train(price_table=None))
    assert (run.state, run.result["cost"]) == ("success", {})
    assert "cost" not in run.log.lower()


def test_a_hard_budget_refuses_before_anything_is_submitted() -> None:
    """The gate's decision travels with the error, no job is left behind, and the task is not tried again."""
    run = run_task(train(budget=10, expected_runtime=11, max_runtime=5, retries=2))
    assert (run.state, submitted()) == ("failed", 0)
    assert isinstance(run.error, BudgetExceededError)
    (reason,) = run.error.decision.reasons
    assert (reason.rule, reason.verdict, reason.observed, reason.required) == ("budget", Verdict.FAIL, 11.0, 10.0)


def test_within_a_hard_budget_the_job_runs() -> None:
    """Templates give numbers as text; the budget counts what is expected, not the limit."""
    run = run_task(train(budget="{{ 10 }}", expected_runtime="{{ 9 }}", max_runtime=60))
    assert run.state == "success", run.error
    assert "PASS: By its expected_runtime it costs 9.00 EUR: within the budget of 10.00." in run.log


def test_a_soft_budget_warns_and_goes_on() -> None:
    """The warning has the decision; the job runs."""
    run = run_task(train(budget=10, budget_mode="soft", max_runtime=11))
    assert run.state == "success", run.error
    assert "FAIL: By its max_runtime it costs 11.00 EUR: over the budget of 10.00." in run.log


UNKNOWN: list[tuple[dict[str, Any], str]] = [
    ({}, "expected_runtime"),
    ({"max_runtime": 5, "price_table": {"currency": "EUR", "backends": {}}}, "no backend 'local'"),
]


@pytest.mark.parametrize(("arguments", "why"), UNKNOWN)
def test_what_is_unknown_is_not_within_a_hard_budget(arguments: dict[str, Any], why: str) -> None:
    """A hard budget refuses a job that cannot be priced and says what is missing; a soft one goes on with a warning."""
    hard = run_task(train(budget=10, **arguments))
    assert (hard.state, submitted()) == ("failed", 0)
    assert isinstance(hard.error, InvalidSpecError)
    assert why in str(hard.error)
    soft = run_task(train(budget=10, budget_mode="soft", **arguments), memory=DagRunMemory(run_id="soft"))
    assert soft.state == "success", soft.error
    assert why in soft.log


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"budget": -1}, "budget is -1"),
    ({"budget": "much"}, "budget is 'much'"),
    ({"budget_mode": "hrad"}, "did you mean 'hard'"),
    ({"expected_runtime": "nan"}, "expected_runtime is 'nan'"),
    ({"price_table": None, "budget": 3}, "no price_table"),
    ({"price_table": "/no/such/file.json"}, "No such file"),
    ({"price_table": {"curency": "EUR"}}, "did you mean 'currency'"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_wrong_arguments_are_refused_by_name(arguments: dict[str, Any], message: str) -> None:
    """Nothing is submitted, and the message has name and value."""
    run = run_task(train(**arguments))
    assert (run.state, submitted()) == ("failed", 0)
    assert isinstance(run.error, InvalidSpecError)
    assert message in str(run.error)


def test_a_table_that_is_gone_after_the_training_loses_no_model(tmp_path: Path) -> None:
    """The model is there, the cost is unknown, and the result says why."""
    table = tmp_path / "prices.json"
    table.write_text(json.dumps(PRICES))
    report = 'echo "{\\"model_uri\\": \\"models:/m-1\\"}" > $MLOPS_OUTPUT'
    run = run_task(train(f"rm {table}; {report}", price_table=str(table)))
    assert (run.state, run.result["model_uri"]) == ("success", "models:/m-1")
    assert (run.result["cost"]["amount"], run.result["cost"]["basis"]) == (None, "unknown")
    assert "prices.json" in run.result["cost"]["why"]


def test_failed_work_is_part_of_the_cost() -> None:
    """A failed try and the one that brought the result are both paid for, and a hard budget counts what was spent."""
    memory = DagRunMemory()
    script = 'if [ "$MLOPS_ATTEMPT" = 0 ]; then sleep 1; exit 1; fi; sleep 0.5'
    first = run_task(train(script, retries=2), memory=memory)
    assert first.state == "failed"
    refused = run_task(train(script, budget=1.2, expected_runtime=0.5, retries=2), memory=memory, try_number=2)
    assert isinstance(refused.error, BudgetExceededError)
    assert "already spent" in str(refused.error)
    run = run_task(train(script, budget=50, expected_runtime=0.5, retries=2), memory=memory, try_number=3)
    cost = priced(run)
    assert 1.0 <= cost["failed_work"] < 20
    assert cost["amount"] == pytest.approx(cost["failed_work"] + cost["billed_seconds"])


def test_spot_is_cheaper_and_preempted_work_is_paid_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a cluster a preempted spot attempt is failed work at the spot price; savings are those of the result's."""
    with kubernetes_fake() as fake:
        extra = {"kube_config_path": str(fake.kubeconfig)}
        monkeypatch.setenv("AIRFLOW_CONN_CLUSTER", json.dumps({"conn_type": "kubernetes", "extra": extra}))
        memory = DagRunMemory()
        task = train(
            'if [ "$MLOPS_ATTEMPT" = 0 ]; then sleep 60; fi; sleep 2.5',
            backend="kubernetes",
            conn_id="cluster",
            image="train:1",
            spot=True,
        )
        waiting = run_task(task, memory=memory, follow=False)
        assert waiting.state == "deferred", waiting.error
        preempt(KubernetesApi(ConnectionInfo("cluster", extra=extra)), fake)
        run = run_task(task, memory=memory)
    cost = priced(run)
    assert cost["billed_seconds"] >= 2
    assert cost["spot_savings"] == pytest.approx(cost["billed_seconds"] * 0.75)
    assert cost["failed_work"] > 0
    assert cost["amount"] == pytest.approx(cost["billed_seconds"] * 0.25 + cost["failed_work"])


def test_the_tracking_run_has_the_cost(mlflow_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Amounts are metrics of the run, currency and basis are tags, and a job's own metrics stay apart from them."""
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps({"conn_type": "mlflow", "host": mlflow_server}))
    memory = DagRunMemory()
    run = run_task(train("sleep 0.2", experiment="costs"), memory=memory)
    cost = priced(run)
    again = run_task(train("sleep 0.2", experiment="costs"), memory=memory)
    assert (priced(again), again.result["metrics"]) == (cost, {})
    with MLflowHook().get_client() as client:
        data = client.run(run.result["run_id"])["data"]
    metrics = {point["key"]: point["value"] for point in data["metrics"]}
    assert metrics["mlops.cost.amount"] == pytest.approx(cost["amount"])
    assert {"mlops.cost.spot_savings", "mlops.cost.failed_work", "mlops.cost.billed_seconds"} <= set(metrics)
    tags = {tag["key"]: tag["value"] for tag in data["tags"]}
    assert (tags["mlops.cost.currency"], tags["mlops.cost.basis"]) == ("EUR", "billed_seconds")


def preempt(api: KubernetesApi, fake: KubernetesFake) -> None:
    """Take the node away under the one pod, two seconds after it ran: the cluster's clock has whole seconds."""
    end = time.monotonic() + 20
    while not (pods := [pod for pod in api.list(PODS, "default")[0] if pod["status"].get("phase") == "Running"]):
        assert time.monotonic() < end
        time.sleep(0.1)
    time.sleep(2)
    fake.preempt(pods[0]["metadata"]["name"])


def priced(run: TaskRun) -> dict[str, Any]:
    """Return the cost of a run that succeeded."""
    assert run.state == "success", run.error
    found: dict[str, Any] = run.result["cost"]
    assert found["basis"] == "billed_seconds", found
    return found
