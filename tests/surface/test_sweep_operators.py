"""The sweep's operators with Airflow's real task runner and a real MLflow server."""

from __future__ import annotations

import json
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import InvalidSpecError, JobFailedError
from airflow_mlops.groups import sweep, training_pipeline
from airflow_mlops.operators.sweep import (
    CloseSweepOperator,
    ConcludeSweepOperator,
    OpenSweepOperator,
    ProposeTrialsOperator,
)
from airflow_mlops.operators.training import TrainModelOperator
from airflow_mlops.platforms.mlflow import MLflowClient
from airflow_mlops.testing.task_runner import DagRunMemory, run_task

SPACE = {"rate": {"low": 0.1, "high": 0.9}, "depth": {"low": 1, "high": 4, "type": "int"}}
PROPOSED = [{"rate": 0.2, "depth": 1}, {"rate": 0.4, "depth": 2}, {"rate": 0.6, "depth": 3}]
ROUNDS = (("propose_1", "train_1"),)


@pytest.fixture
def client(mlflow_server: str, monkeypatch: pytest.MonkeyPatch) -> MLflowClient:
    """Give the MLflow server, which Airflow knows too."""
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps({"conn_type": "mlflow", "host": mlflow_server}))
    return MLflowClient(ConnectionInfo(host=mlflow_server))


def result(loss: float) -> dict[str, Any]:
    """Return what a training task returns."""
    return {"job": {"backend": "local", "job_id": f"j{loss}"}, "metrics": {"loss": loss}, "run_id": f"run{loss}"}


def round_over(*losses: float | None, **kwargs: Any) -> DagRunMemory:
    """Return the memory of a DAG run whose first round is over; ``None`` is a trial that failed."""
    memory = DagRunMemory(xcoms={("propose_1", "return_value"): PROPOSED}, **kwargs)
    for index, loss in enumerate(losses):
        if loss is not None:
            memory.mapped_xcoms["train_1", "return_value", index] = result(loss)
    return memory


def propose(**kwargs: Any) -> ProposeTrialsOperator:
    """Return an operator that minimises the loss."""
    kwargs = {"task_id": "propose_2", "space": SPACE, "metric": "loss", "direction": "minimize", **kwargs}
    return ProposeTrialsOperator(**kwargs)


def conclude(**kwargs: Any) -> ConcludeSweepOperator:
    """Return an operator that looks for the smallest loss."""
    kwargs = {"task_id": "conclude", "rounds": ROUNDS, "metric": "loss", "direction": "minimize", **kwargs}
    return ConcludeSweepOperator(**kwargs)


def test_a_retry_proposes_the_same_from_what_the_trials_returned() -> None:
    """The next round depends on the trials and on nothing else: same again for a retry, different after another end."""
    memory = round_over(0.5, None, 0.1)
    first = run_task(propose(previous=ROUNDS, fixed={"epochs": 3}), memory=memory)
    again = run_task(propose(previous=ROUNDS, fixed={"epochs": 3}), memory=memory, try_number=2)
    other = run_task(propose(previous=ROUNDS), memory=round_over(0.5, 0.3, None))
    assert first.state == "success", first.error
    assert first.result == again.result
    assert [set(found) for found in first.result] == [{"epochs", "rate", "depth"}] * 4
    assert first.result != other.result


def test_arguments_are_templated() -> None:
    """Counts and words of a trigger form reach the search."""
    task = propose(n_trials="{{ 1 + 1 }}", sampler="{{ 'grid' }}", space={"depth": SPACE["depth"]}, seed="{{ 3 }}")
    assert len(run_task(task).result) == 2


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"fixed": {"rate": 1}}, InvalidSpecError, "'rate'] is searched for and fixed"),
        ({"space": {"rate": {}}}, InvalidSpecError, "'rate' of the search space has no 'low'"),
        ({"previous": ROUNDS, "max_failed": 0.5}, JobFailedError, "Too many trials failed: 2 of 3"),
    ],
)
def test_what_would_fail_again_is_never_tried_again(kwargs: Any, error: type, message: str) -> None:
    """A wrong search and too many failures end the task for good, with the reason."""
    run = run_task(propose(retries=3, **kwargs), memory=round_over(0.5, None, None))
    assert run.state == "failed"
    assert isinstance(run.error, error)
    assert message in str(run.error)


def test_the_best_trial_is_the_result(client: MLflowClient) -> None:
    """What follows a training task can follow: the best trial's own result. The sweep's run is ended well with it."""
    opened = run_task(OpenSweepOperator(task_id="open", experiment="sweep-conclude", described_by={"space": SPACE}))
    run = run_task(conclude(run_id=opened.result), memory=round_over(0.5, None, 0.1))
    assert (run.state, run.result) == ("success", result(0.1))
    summary = run.xcoms["sweep"]
    assert (summary["best"]["number"], summary["best"]["parameters"]) == (2, PROPOSED[2])
    assert [trial["why"] for trial in summary["trials"]] == ["", "its task brought no result", ""]
    found = client.run(opened.result)
    tags = {tag["key"]: tag["value"] for tag in found["data"]["tags"]}
    assert found["info"]["status"] == "FINISHED"
    assert (tags["mlops.sweep.best.rate"], tags["mlops.sweep.best_run_id"]) == ("0.6", "run0.1")
    better = run_task(conclude(run_id=opened.result), memory=round_over(0.05, None, 0.1))
    assert (better.state, better.result) == ("success", result(0.05))  # cleared together with a trial


def test_a_dag_run_has_one_parent_run(client: MLflowClient) -> None:
    """A retry finds the run of the try before and a clear opens it again; another DAG run has another one."""

    def task() -> OpenSweepOperator:
        return OpenSweepOperator(task_id="open", experiment="sweep-parents", described_by={"seed": 1, "space": SPACE})

    memory = DagRunMemory()
    first = run_task(task(), memory=memory)
    assert first.result in first.xcoms["tracking_run_url"]
    run_task(conclude(run_id=first.result), memory=round_over(1.0, 1.0, 1.0))
    again = run_task(task(), memory=memory, try_number=2)
    other = run_task(task(), memory=DagRunMemory(run_id="manual__2"))
    assert first.result == again.result != other.result
    assert client.run(first.result)["info"]["status"] == "RUNNING"
    params = {param["key"]: param["value"] for param in client.run(first.result)["data"]["params"]}
    assert (params["seed"], json.loads(params["space.rate"])) == ("1", SPACE["rate"])
    assert len(client.search_runs([client.experiment_id("sweep-parents")])) == 2


@pytest.mark.parametrize(("concluded", "status"), [(False, "FAILED"), (True, "FINISHED")])
def test_a_sweep_that_was_stopped_leaves_no_open_run(concluded: bool, status: str, client: MLflowClient) -> None:
    """The teardown ends what nothing else has ended, and leaves alone what has an end."""
    memory = DagRunMemory(run_id=f"stopped_{concluded}")
    opened = run_task(OpenSweepOperator(task_id="open", experiment="sweep-close"), memory=memory)
    if concluded:
        run_task(conclude(run_id=opened.result), memory=round_over(1.0, 1.0, 1.0))
    for number in (1, 2):
        closed = run_task(CloseSweepOperator(task_id="close", run_id=opened.result), try_number=number)
        assert closed.state == "success", closed.error
    assert client.run(opened.result)["info"]["status"] == status


@pytest.mark.parametrize(("state", "ends"), [("skipped", "skipped"), ("upstream_failed", "failed")])
def test_a_round_that_was_not_proposed(state: str, ends: str) -> None:
    """If nothing was to be searched for, this is skipped, too; a proposal that failed is named."""
    states = {("test_dag", "manual__1", "propose_1", -1): state}
    run = run_task(conclude(retries=1), memory=DagRunMemory(task_states=states))
    assert run.state == ends
    assert ends == "skipped" or "'propose_1' is 'upstream_failed'" in str(run.error)


def test_a_sweep_stands_where_a_training_task_stands() -> None:
    """The pipeline's steps take it as their training: what was before is before it, what was behind gets the best."""
    with DAG("swept", schedule=None):
        trained = training_pipeline(
            model_name="m",
            data_path="d",
            suite="s",
            command=["python", "{code}/train.py"],
            target="t",
            training={"space": SPACE, "metric": "loss", "rounds": 2, "max_runtime": 60},
            operators={"train": sweep},
        )
    group = trained.train
    dag = trained.register.dag
    dag.validate()
    assert group.ids() == (("train.propose_1", "train.train_1"), ("train.propose_2", "train.train_2"))
    assert trained.register.upstream_task_ids >= {"train.conclude"}
    assert trained.validate.downstream_task_ids >= {"train.open", "train.propose_1"}
    assert group.proposals[1].upstream_task_ids == {"train.train_1"}
    assert group.trainings[1].partial_kwargs["max_runtime"] == 60
    assert isinstance(group.trainings[0].unmap({"parameters": {}}), TrainModelOperator)
    assert dag.get_task("train.close").is_teardown


def test_a_mapped_task_has_the_retry_policy_of_all_others() -> None:
    """A trial whose program failed is not run again, whatever its retries: mapping does not lose the policy."""
    with DAG("policy", schedule=None):
        mapped = TrainModelOperator.partial(task_id="train", command=["true"], retries=2).expand(parameters=[{"a": 1}])
        own = TrainModelOperator(task_id="plain", command=["true"])
    assert mapped.unmap({"parameters": {"a": 1}}).retry_policy is own.retry_policy is not None


def test_a_sweep_has_rounds() -> None:
    """No round is no sweep, and a step that it does not have cannot be swapped."""
    with DAG("none", schedule=None):
        with pytest.raises(InvalidSpecError, match="has 0 rounds"):
            sweep(space=SPACE, metric="loss", command=["true"], rounds=0)
        with pytest.raises(InvalidSpecError, match="did you mean 'train'"):
            sweep(space=SPACE, metric="loss", command=["true"], operators={"trian": TrainModelOperator})
