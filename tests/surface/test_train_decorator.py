"""``@task.train`` with Airflow's real task runner and real local jobs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from airflow.sdk import DAG, task

from airflow_mlops.core.errors import InvalidSpecError, JobFailedError
from airflow_mlops.decorators.train import TrainDecoratedOperator, train_task
from airflow_mlops.testing.task_runner import DagRunMemory, run_task

HERE = {"conn_id": "local_jobs", "python": sys.executable, "poll_interval": 0.1}


@pytest.fixture(autouse=True)
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a folder of jobs of its own."""
    connection = {"conn_type": "mlops_local", "extra": {"workdir": str(tmp_path / "jobs"), "grace": 0.5}}
    monkeypatch.setenv("AIRFLOW_CONN_LOCAL_JOBS", json.dumps(connection))
    return tmp_path / "jobs"


@task.train(**HERE)
def fit(rate: float, data: dict[str, Any], label: str = "{{ run_id }}") -> dict[str, float]:
    """Learn from rows."""
    import sys

    sys.stdout.write(f"learning at {rate!r} from {data!r} for {label!r}, {{{{ run_id }}}}\n")
    return {"auc": rate * len(data["rows"])}


@task.train(**HERE)
def breaks(rate: float) -> None:
    """Fail in the job."""
    raise RuntimeError(f"the rate {rate} is wrong")


@task
def rows() -> dict[str, Any]:
    """Stand for an upstream task."""
    return {"rows": [1, 2]}


def one(dag: DAG, task_id: str) -> Any:
    """Return a task of a DAG."""
    return dag.get_task(task_id)


def test_the_function_runs_as_a_job_with_the_results_of_other_tasks(jobs: Path) -> None:
    """XComs and templates in arguments are resolved, the job prints into the task's log, and metrics are the result."""
    with DAG("test_dag", schedule=None) as dag:
        fit(0.25, rows(), label="{{ run_id }}")
    memory = DagRunMemory(xcoms={("rows", "return_value"): {"rows": [1, 2]}})
    assert dag.get_task("fit").upstream_task_ids == {"rows"}
    run = run_task(one(dag, "fit"), memory=memory)
    assert run.state == "success", run.error
    assert "learning at 0.25 from {'rows': [1, 2]} for 'manual__1', {{ run_id }}" in run.log
    assert run.result["metrics"] == {"auc": 0.5}
    assert run.result["job"]["backend"] == "local"
    assert "metrics" not in run.xcoms  # the type that the function returns does not split the result
    assert len(list(jobs.iterdir())) == 1


def test_what_ran_can_be_read_in_the_jobs_own_description(jobs: Path) -> None:
    """The job's spec holds the function's source as text: braces in it are not taken for templates."""
    with DAG("test_dag", schedule=None) as dag:
        fit(1, {"rows": []})
    assert run_task(one(dag, "fit")).state == "success"
    (file,) = jobs.glob("*/job.json")
    spec = json.loads(file.read_text())["spec"]
    assert spec["args"][0].startswith("def fit(rate: float")
    assert "@task" not in spec["args"][0]
    assert "{{{{ run_id }}}}" in spec["args"][0]
    assert spec["parameters"] == {"rate": 1, "label": "{{ run_id }}"}  # a default is the function's own, no template


def test_a_failing_function_fails_the_task_with_its_own_lines() -> None:
    """The traceback in the task's log and error has the line of the user's file, and user code is not tried again."""
    with DAG("test_dag", schedule=None, default_args={"retries": 2}) as dag:
        breaks(2)
    run = run_task(one(dag, "breaks"))
    line = Path(__file__).read_text().splitlines().index('    raise RuntimeError(f"the rate {rate} is wrong")') + 1
    assert (run.state, type(run.error)) == ("failed", JobFailedError)
    for text in (run.log, str(run.error)):
        assert f'File "test_train_decorator.py", line {line}, in breaks' in text
        assert "RuntimeError: the rate 2 is wrong" in text


def test_a_long_function_is_waited_for_in_the_triggerer() -> None:
    """The task defers, and another try with the same arguments finds the same job."""

    @task.train(**HERE)
    def slow(seconds: float) -> None:
        import time

        time.sleep(seconds)

    with DAG("test_dag", schedule=None, default_args={"retries": 1}) as dag:
        slow(1.5)
    memory = DagRunMemory()
    first = run_task(one(dag, "slow"), memory=memory, follow=False)
    assert first.state == "deferred"
    again = run_task(one(dag, "slow"), memory=memory, try_number=2)
    assert (again.state, again.result["job"]) == ("success", first.trigger.job)


def test_it_can_be_used_many_times_and_overridden() -> None:
    """One function makes many tasks, each with its own id and settings, as with Airflow's own decorators."""
    with DAG("test_dag", schedule=None) as dag:
        fit(1, {})
        fit(2, {})
        fit.override(task_id="big", image="trainer:1", backend="kubernetes", node_resources={"gpus": 1})(3, {})
    assert sorted(dag.task_ids) == ["big", "fit", "fit__1"]
    big = one(dag, "big")
    assert isinstance(big, TrainDecoratedOperator)
    assert (big.image, big.backend, big.node_resources) == ("trainer:1", "kubernetes", {"gpus": 1})
    assert one(dag, "fit").image == ""


def test_it_can_be_mapped() -> None:
    """Each map index is a job of its own with its own arguments."""
    with DAG("test_dag", schedule=None) as dag:
        fit.partial(data={"rows": [1]}).expand(rate=[0.1, 0.2])
    runs = [run_task(one(dag, "fit"), memory=DagRunMemory(), map_index=index) for index in (0, 1)]
    assert [run.state for run in runs] == ["success", "success"], [run.error for run in runs]
    assert [run.result["metrics"]["auc"] for run in runs] == [0.1, 0.2]
    assert runs[0].result["job"] != runs[1].result["job"]


def test_arguments_are_parameters_of_the_tracking_run(mlflow_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scalar arguments, defaults included, are logged to the run; what is no scalar is not."""
    monkeypatch.setenv("AIRFLOW_CONN_TRACKING", json.dumps({"conn_type": "mlflow", "host": mlflow_server}))
    with DAG("test_dag", schedule=None) as dag:
        fit.override(experiment="decorated", mlflow_conn_id="tracking")(0.5, {"rows": [1]})
    run = run_task(one(dag, "fit"))
    assert run.state == "success", run.error
    answer = httpx.get(f"{mlflow_server}/api/2.0/mlflow/runs/get", params={"run_id": run.result["run_id"]}).json()
    logged = {param["key"]: param["value"] for param in answer["run"]["data"]["params"]}
    assert logged == {"rate": "0.5", "label": "{{ run_id }}"}


def test_a_wrong_function_is_refused_when_the_dag_is_read() -> None:
    """What cannot be sent is an error of the DAG file, not of a run; so is a command beside the function."""
    with DAG("test_dag", schedule=None):
        with pytest.raises(InvalidSpecError, match="cannot be sent"):
            train_task(lambda: None, task_id="bad")()
        with pytest.raises(InvalidSpecError, match="'command'"):
            fit.override(command="sh")(1, {})
        rate = 0.1

        @task.train(**HERE)
        def closure() -> dict[str, float]:
            return {"rate": rate}

        with pytest.raises(InvalidSpecError, match="'rate' of the function around it"):
            closure()


def test_wrong_arguments_fail_before_a_job_starts(jobs: Path) -> None:
    """An argument that JSON does not have fails the task for good, and nothing runs."""
    with DAG("test_dag", schedule=None, default_args={"retries": 2}) as dag:
        fit(1, {"rows": {1, 2}})
    run = run_task(one(dag, "fit"))
    assert (run.state, type(run.error)) == ("failed", InvalidSpecError)
    assert "data['rows'] holds a set" in str(run.error)
    assert not jobs.exists()


def test_the_dag_survives_serialisation() -> None:
    """A DAG with the decorator goes through Airflow's serialisation, with the links of training tasks."""
    from airflow.serialization.serialized_objects import DagSerialization

    with DAG("serial", schedule=None) as dag:
        fit(1, rows())
        fit.override(task_id="mapped").partial(data={}).expand(rate=[1, 2])
    again = DagSerialization.deserialize_dag(json.loads(json.dumps(DagSerialization.serialize_dag(dag))))
    assert set(again.get_task("fit").operator_extra_link_dict) == {"Training job", "Tracking run"}
    assert again.get_task("fit").operator_name == "@task.train"
