"""Data goes only where its residency allows, with Airflow's real task runner, real local jobs and a strict cluster."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core.errors import InvalidSpecError, ResidencyError
from airflow_mlops.hooks.pipelines import PipelineHook
from airflow_mlops.hooks.training import TrainingHook
from airflow_mlops.operators.data import DvcMaterialiseOperator
from airflow_mlops.operators.pipelines import RunPipelineOperator
from airflow_mlops.operators.training import TrainModelOperator
from airflow_mlops.testing.git_dvc import GitDvcRepository
from airflow_mlops.testing.kfp import KfpFake, kfp_fake
from airflow_mlops.testing.kfp.pipelines import shell_pipeline
from airflow_mlops.testing.kubernetes import KubernetesFake, kubernetes_fake
from airflow_mlops.testing.task_runner import DagRunMemory, run_task

HERE = {
    "path": "data/patients",
    "rev": "v1",
    "commit": "c" * 40,
    "digest": "md5:0123",
    "size": 3,
    "repo": "https://example.com/data.git",
    "residency": "on-prem",
}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[KubernetesFake]:
    """Run a cluster that is in ``eu``, with three connections: one says so, one says more, one says nothing."""
    with kubernetes_fake() as fake:
        for name, residency in (("EU", "eu"), ("BOTH", ["EU", "On-Prem"]), ("SILENT", None)):
            extra = {"kube_config_path": str(fake.kubeconfig), **({"residency": residency} if residency else {})}
            monkeypatch.setenv(f"AIRFLOW_CONN_{name}", json.dumps({"conn_type": "kubernetes", "extra": extra}))
        yield fake


def train(conn_id: str, **kwargs: Any) -> TrainModelOperator:
    """Return an operator that runs next to nothing on the cluster."""
    where: dict[str, Any] = {
        "command": "true",
        "backend": "kubernetes",
        "conn_id": conn_id,
        "image": "train:1",
        "poll_interval": 0.2,
    }
    return TrainModelOperator(task_id="train", **{"command": "true", **where, **kwargs})


@pytest.mark.parametrize("conn_id", ["eu", "silent"])
@pytest.mark.parametrize("wrapped", [HERE, {"version": HERE, "path": "/data/patients"}])
def test_data_that_has_to_stay_is_refused_before_submission(
    cluster: KubernetesFake, conn_id: str, wrapped: dict[str, Any]
) -> None:
    """The error names rule, input, residency, backend and connection; nothing reached the cluster, none retries."""
    run = run_task(train(conn_id, inputs={"train": wrapped}, retries=2))
    assert run.state == "failed"
    assert isinstance(run.error, ResidencyError)
    words = ("'residency'", "input 'train'", "'on-prem'", "'kubernetes'", f"'{conn_id}'", "Choose a backend there")
    assert [word for word in words if word not in str(run.error)] == []
    assert cluster.calls.count("create", "jobs") == 0


def test_where_it_may_go_it_goes(cluster: KubernetesFake) -> None:
    """A connection that says on-prem takes it, the backend never sees the extra, and the result keeps the residency."""
    run = run_task(train("both", inputs={"train": HERE}))
    assert run.state == "success", run.error
    assert run.result["data"]["train"]["residency"] == "on-prem"
    assert cluster.calls.count("create", "jobs") == 1


def test_data_without_a_residency_goes_anywhere(cluster: KubernetesFake) -> None:
    """What an older run left in XCom, without the field, trains where nobody said where that is."""
    old = {key: value for key, value in HERE.items() if key != "residency"}
    assert run_task(train("silent", inputs={"train": old})).state == "success"


@pytest.mark.parametrize(("residency", "state"), [("{{ 'on-prem' }}", "failed"), ("{{ 'eu' }}", "success")])
def test_a_job_may_have_a_residency_of_its_own(cluster: KubernetesFake, residency: str, state: str) -> None:
    """Inputs that are mere paths are covered by the task's own argument, which may be a template."""
    run = run_task(train("eu", inputs={"train": "/data/patients"}, residency=residency))
    assert run.state == state
    assert isinstance(run.error, ResidencyError) == (state == "failed")


def test_a_retry_of_a_running_job_is_not_refused(cluster: KubernetesFake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that was allowed to start is followed to its end, also if its connection says something else by then."""
    memory = DagRunMemory()
    task = train("both", command=["sleep", "2"], inputs={"train": HERE}, retries=1)
    assert run_task(task, memory=memory, follow=False).state == "deferred"
    extra = {"kube_config_path": str(cluster.kubeconfig), "residency": "eu"}
    monkeypatch.setenv("AIRFLOW_CONN_BOTH", json.dumps({"conn_type": "kubernetes", "extra": extra}))
    assert run_task(task, memory=memory, try_number=2).state == "success"


def test_this_machine_is_on_premises_unless_its_connection_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The local backend takes data that has to stay on premises; on a worker in a cloud the connection says so."""
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    local = TrainModelOperator(task_id="train", command="true", inputs={"train": HERE})
    assert run_task(local).state == "success"
    extra = {"workdir": str(tmp_path / "jobs"), "residency": "eu"}
    monkeypatch.setenv("AIRFLOW_CONN_WORKER", json.dumps({"conn_type": "mlops_local", "extra": extra}))
    away = TrainModelOperator(task_id="train", command="true", inputs={"train": HERE}, conn_id="worker")
    run = run_task(away, memory=DagRunMemory(run_id="away"))
    assert isinstance(run.error, ResidencyError)
    assert list(TrainingHook("local", "worker").get_backend().managed()) == []


def test_an_extra_that_is_no_name_is_refused(cluster: KubernetesFake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slip in the connection is an error of its own, also for data that may go anywhere."""
    extra = {"kube_config_path": str(cluster.kubeconfig), "residency": {"at": "eu"}}
    monkeypatch.setenv("AIRFLOW_CONN_EU", json.dumps({"conn_type": "kubernetes", "extra": extra}))
    run = run_task(train("eu"))
    assert isinstance(run.error, InvalidSpecError)
    assert "residency of connection 'eu'" in str(run.error)


@pytest.fixture
def pipelines(monkeypatch: pytest.MonkeyPatch) -> Iterator[KfpFake]:
    """Run a pipeline server that is in ``eu``."""
    with kfp_fake() as fake:
        info = fake.connection(residency="eu")
        found = {"conn_type": "kubeflow_pipelines", "host": info.host, "password": info.password, "extra": info.extra}
        monkeypatch.setenv("AIRFLOW_CONN_KUBEFLOW_PIPELINES_DEFAULT", json.dumps(found))
        yield fake


def test_pipelines_keep_the_rule_as_well(pipelines: KfpFake) -> None:
    """A version among the parameters and the task's own residency are looked at; what may go there runs."""
    refused: list[dict[str, Any]] = [{"residency": "on-prem"}, {"parameters": {"data": {"version": HERE}}}]
    for arguments in refused:
        task = RunPipelineOperator(task_id="pipe", pipeline=shell_pipeline({"only": "true"}), **arguments)
        run = run_task(task, memory=DagRunMemory(run_id=str(arguments)))
        assert isinstance(run.error, ResidencyError), run.error
    assert "parameter 'data'.version" in str(run.error)
    assert pipelines.runs() == []
    allowed = RunPipelineOperator(
        task_id="pipe", pipeline=shell_pipeline({"only": "true"}), residency="EU", poll_interval=0.1
    )
    assert run_task(allowed).state == "success"
    assert PipelineHook().test_connection()[0]
    PipelineHook().get_conn()


def test_what_a_person_wrote_into_the_pointer_reaches_the_rule(
    cluster: KubernetesFake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From ``meta: residency`` in the .dvc file through materialise to the refusal: nothing has to be repeated."""
    repository = GitDvcRepository(tmp_path / "server")
    extra = {"workdir": str(tmp_path / "work")}
    found = {"conn_type": "dvc", "host": repository.address, "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_DVC_DEFAULT", json.dumps(found))
    from airflow_mlops.hooks.dvc import DvcHook

    (tmp_path / "rows.csv").write_text("x\n1\n")
    DvcHook().get_store().snapshot(tmp_path / "rows.csv", "data/rows.csv", message="First")
    pointer = repository.git("show", "main:data/rows.csv.dvc", cwd=repository.bare)
    repository.commit({"data/rows.csv.dvc": f"{pointer}\n  meta:\n    residency: on-prem\n"}, "It stays here")
    memory = DagRunMemory()
    fetched = run_task(DvcMaterialiseOperator(task_id="fetch", path="data/rows.csv"), memory=memory)
    assert fetched.result["version"]["residency"] == "on-prem"
    run = run_task(train("eu", inputs={"train": fetched.result}), memory=memory)
    assert isinstance(run.error, ResidencyError)
