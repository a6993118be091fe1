"""``@task.train`` and the janitor on Kubernetes and Kubeflow: the same function, the same promises."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, task

from airflow_mlops.core.errors import JobFailedError
from airflow_mlops.hooks.training import TrainingHook
from airflow_mlops.operators.janitor import CancelOrphanedJobsOperator
from airflow_mlops.testing.kubernetes import KubernetesFake, kubernetes_fake
from airflow_mlops.testing.kubernetes.trainer import CLUSTER_RUNTIMES, TRAINER_KINDS, training_runtime
from airflow_mlops.testing.task_runner import DagRunMemory, run_task
from airflow_mlops.training.contract import JobState

BACKENDS = ["kubernetes", "kubeflow"]
WHERE = {"conn_id": "cluster", "image": "python:3.12-slim", "python": sys.executable, "poll_interval": 0.2}


@pytest.fixture(scope="module")
def fake() -> Iterator[KubernetesFake]:
    """Run one cluster with Kubeflow Trainer."""
    with kubernetes_fake(*TRAINER_KINDS) as found:
        found.create(CLUSTER_RUNTIMES, training_runtime("airflow-mlops"))
        yield found


@pytest.fixture(autouse=True)
def connection(fake: KubernetesFake, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lead there by Airflow's own Kubernetes connection."""
    backend = request.node.callspec.params["backend"]
    extra = {
        "kube_config_path": str(fake.kubeconfig),
        **({"runtime": "airflow-mlops"} if backend == "kubeflow" else {}),
    }
    monkeypatch.setenv("AIRFLOW_CONN_CLUSTER", json.dumps({"conn_type": "kubernetes", "extra": extra}))


@task.train(**WHERE)
def fit(name: str, table: dict[str, Any]) -> dict[str, Any]:
    """Report what came through, dollars and braces too."""
    import os

    price = "$(MLOPS_JOB_NAME) $$(HOME) $$ {{ x }} $(none)"
    said = [name, table["text"], price, os.environ.get("MLOPS_NODES", "1")]
    return {"metrics": {"nodes": int(said[3])}, "model_uri": "|".join(said[:3])}


@task.train(**WHERE)
def breaks() -> None:
    """Fail in the pod."""
    raise RuntimeError("no rows")


@task.train(**WHERE)
def waits() -> None:
    """Be there for long."""
    import time

    time.sleep(60)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("nodes", [1, 2])
def test_source_and_arguments_arrive_as_they_are(backend: str, nodes: int) -> None:
    """What a platform would expand in a command stays as it was written, and of two nodes node 0 reports."""
    with DAG(f"{backend}_{nodes}", schedule=None) as dag:
        fit.override(backend=backend, nodes=nodes)("$(MLOPS_JOB_NAME) $$", {"text": "$(MLOPS_OUTPUT) $$(x)"})
    run = run_task(dag.get_task("fit"))
    assert run.state == "success", run.error
    assert run.result["model_uri"].split("|") == [
        "$(MLOPS_JOB_NAME) $$",
        "$(MLOPS_OUTPUT) $$(x)",
        "$(MLOPS_JOB_NAME) $$(HOME) $$ {{ x }} $(none)",
    ]
    assert run.result["metrics"] == {"nodes": nodes}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_traceback_from_the_pod_has_the_users_lines(backend: str) -> None:
    """The task's error shows the line of the user's own file."""
    with DAG(f"{backend}_breaks", schedule=None) as dag:
        breaks.override(backend=backend)()
    run = run_task(dag.get_task("breaks"))
    line = Path(__file__).read_text().splitlines().index('    raise RuntimeError("no rows")') + 1
    assert (run.state, type(run.error)) == ("failed", JobFailedError)
    assert f'File "test_functions_on_clusters.py", line {line}, in breaks' in str(run.error)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_janitor_stops_what_a_deleted_run_left(
    backend: str, fake: KubernetesFake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job whose run Airflow no longer has is stopped for certain; one whose task waits goes on."""
    monkeypatch.setenv("AIRFLOW__MLOPS__DEPLOYMENT_ID", "prod")
    handles = {}
    for run_id in ("deleted", "waits"):
        with DAG(f"{backend}_orphans", schedule=None) as dag:
            waits.override(backend=backend)()
        held = run_task(dag.get_task("waits"), memory=DagRunMemory(run_id=run_id), follow=False)
        assert held.state == "deferred", held.error
        handles[run_id] = held.trigger.job["job_id"]
    memory = DagRunMemory(task_states={(f"{backend}_orphans", "waits", "waits", -1): "deferred"})
    place = {"backend": backend, "conn_id": "cluster"}
    sweep = CancelOrphanedJobsOperator(task_id="sweep", backends=[place], patience=1, poll_interval=0.2)
    run = run_task(sweep, memory=memory)
    assert run.state == "success", run.error
    assert [found["job"]["job_id"] for found in run.result["cancelled"]] == [handles["deleted"]]
    platform = TrainingHook(backend, "cluster").get_backend()
    states = {
        handle.job_id: status.state for handle, status in platform.observe(h for h, _ in platform.managed()).items()
    }
    assert states[handles["deleted"]] is JobState.CANCELLED
    assert states[handles["waits"]] is JobState.RUNNING
    for handle, _ in platform.managed():
        platform.cancel(handle)
