"""The template DAGs on a real second table: nothing in them knows flights."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import census
import pytest
from airflow.sdk import DAG, Asset

from airflow_mlops.hooks.mlflow import MLflowHook

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = sorted((ROOT / "dags").glob("*.py"))


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_every_template_has_a_form_docs_and_tags(path: Path) -> None:
    """Each template can be parsed, explains itself, and every parameter of its trigger form has a title."""
    dags = [value for value in runpy.run_path(str(path)).values() if isinstance(value, DAG)]
    for dag in dags:
        assert dag.dag_id == f"flights_{path.stem}"
        assert dag.doc_md
        assert "mlops" in dag.tags
        assert [name for name in dag.params if not dag.params.get_param(name).schema.get("title")] == []
    assert dags


def test_a_new_data_version_starts_training() -> None:
    """What publishes data has the asset as outlet on which training is scheduled."""
    train = runpy.run_path(str(ROOT / "dags" / "train_and_deploy.py"))["dag"]
    publish = runpy.run_path(str(ROOT / "dags" / "publish_data.py"))["dag"]
    monitor = runpy.run_path(str(ROOT / "dags" / "monitor_and_retrain.py"))["dag"]
    asset = Asset("mlops://data/flights")
    assert train.timetable.asset_condition == asset
    assert publish.get_task("publish").outlets == [asset]
    assert monitor.get_task("publish_labelled_data").outlets == [asset]


def run(dag: Any, **conf: Any) -> Any:
    """Run a DAG to its end with the real task runner and return its state and the states of its tasks."""
    found = dag.test(run_conf=conf)
    return str(found.state), {ti.task_id: str(ti.state) for ti in found.get_task_instances()}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_whole_loop_on_census_data(platform: Any) -> None:
    """Published data trains a champion that serves, and the population it learned from does not drift."""
    landing = platform.root / "landing"
    census.write_year(2015, landing)
    assert run(platform.dag("publish_data"), tag="2015")[0] == "success"

    state, tasks = run(platform.dag("train_and_deploy"), data_revision="2015")
    assert state == "success"
    assert [tasks[name] for name in ("promote", "canary", "rollback_model")] == ["success", "success", "skipped"]
    champion = MLflowHook().get_registry().resolve("employment", "champion")
    assert champion.version == "1"

    client = platform.gateway.client()
    rows = census.requests_of(landing, 1000)
    for start in range(0, len(rows), 100):
        body = {"dataframe_records": rows[start : start + 100]}
        answer = client.post("/endpoints/employment/invocations", json=body)
        assert answer.status_code == 200, answer.text
    client.post("/v1/endpoints/employment/flush").raise_for_status()

    state, tasks = run(platform.dag("monitor_and_retrain"), tag="2015")
    assert (state, tasks) == ("success", {"detect_drift": "success", "publish_labelled_data": "skipped"})
