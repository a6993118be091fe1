"""The template DAGs on a real second table: nothing in them knows flights."""

from __future__ import annotations

import runpy
import time
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
        assert dag.dag_id in (f"flights_{path.stem}", path.stem)  # one a project, or one for all
        assert dag.doc_md
        assert "mlops" in dag.tags
        assert [name for name in dag.params if not dag.params.get_param(name).schema.get("title")] == []
    assert dags


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_every_form_can_be_sent_as_it_is_opened(path: Path) -> None:
    """No default is an empty text: Airflow's form would ask for a value before it lets anyone trigger the run."""
    dag = runpy.run_path(str(path))["dag"]
    assert [name for name, value in dag.params.dump().items() if value == ""] == []


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
    """Published data trains a champion that serves; its own population does not drift, an older one does."""
    landing = platform.root / "landing"
    census.write_year(2015, landing)
    assert run(platform.dag("publish_data"), tag="2015")[0] == "success"

    state, tasks = run(platform.dag("train_and_deploy"), data_revision="2015")
    assert state == "success"
    assert [tasks[name] for name in ("promote", "canary", "rollback_model")] == ["success", "success", "skipped"]
    champion = MLflowHook().get_registry().resolve("employment", "champion")
    assert champion.version == "1"

    send(platform, census.requests_of(landing, 1000))
    state, tasks = run(platform.dag("monitor_and_retrain"), tag="2015")
    assert (state, tasks) == ("success", {"detect_drift": "success", "publish_labelled_data": "skipped"})
    assert events("mlops://data/census/drift") == []

    census.write_year(2016, landing)
    since = str(time.time())
    send(platform, [{**row, "AGEP": row["AGEP"] + 25} for row in census.requests_of(landing, 1000)])
    state, tasks = run(platform.dag("monitor_and_retrain"), tag="2016", since=since)
    assert (state, tasks) == ("success", {"detect_drift": "success", "publish_labelled_data": "success"})
    (asked,) = events("mlops://data/census/drift")
    assert (asked["reason"], asked["columns"]) == ("drift", ["AGEP"])
    assert [version["rev"] for version in events("mlops://data/census")] == ["2015", "2016"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_broken_data_ends_the_run_red(platform: Any) -> None:
    """Data that breaks a rule fails the run at the gate; nothing behind it runs, and no champion is taken back."""
    import duckdb

    landing = census.write_year(2017, platform.root / "landing")
    duckdb.sql(
        f"COPY (SELECT * REPLACE (-AGEP AS AGEP) FROM '{landing}/train.parquet') TO '{landing}/train.broken' "
        "(FORMAT parquet)"
    )
    (landing / "train.broken").replace(landing / "train.parquet")
    assert run(platform.dag("publish_data"), tag="broken")[0] == "success"
    state, tasks = run(platform.dag("train_and_deploy"), data_revision="broken")
    assert (state, tasks["validate"], tasks["train"]) == ("failed", "failed", "upstream_failed")
    assert (tasks["rollback_model"], tasks["rolled_out"]) == ("skipped", "upstream_failed")


def send(platform: Any, rows: list[dict[str, Any]]) -> None:
    """Send *rows* as live requests and have the gateway write what it captured."""
    client = platform.gateway.client()
    for start in range(0, len(rows), 100):
        body = {"dataframe_records": rows[start : start + 100]}
        answer = client.post("/endpoints/employment/invocations", json=body)
        assert answer.status_code == 200, answer.text
    client.post("/v1/endpoints/employment/flush").raise_for_status()


def events(uri: str) -> list[dict[str, Any]]:
    """Return the extras of the asset's events in Airflow's database, oldest first."""
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        found = select(AssetEvent).join(AssetModel, AssetModel.id == AssetEvent.asset_id).where(AssetModel.uri == uri)
        return [event.extra for event in session.scalars(found.order_by(AssetEvent.id))]
