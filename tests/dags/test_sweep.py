"""Sweeps in DAGs that run to their end: real jobs, a real MLflow server, Airflow's own database."""

from __future__ import annotations

import json
import os
import runpy
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.platforms.mlflow import MLflowClient
from airflow_mlops.training.backends.local import LocalBackend
from airflow_mlops.training.contract import JobState

TRAINING = """
import argparse, json, os
from pathlib import Path
import numpy as np

parser = argparse.ArgumentParser()
parser.add_argument("--ledger")
parser.add_argument("--degree", type=int)
parser.add_argument("--penalty", type=float)
args = parser.parse_args()
with open(args.ledger, "a") as ledger:
    print(args.degree, args.penalty, file=ledger)
if args.degree > 8:
    raise SystemExit("a degree above 8 is too much")
chance = np.random.default_rng(0)
x = chance.uniform(-1, 1, 80)
y = np.sin(4 * x) + chance.normal(0, 0.1, 80)
powers = x[:, None] ** np.arange(args.degree + 1)
known, rest = powers[:50], powers[50:]
weights = np.linalg.solve(known.T @ known + args.penalty * np.eye(args.degree + 1), known.T @ y[:50])
loss = float(np.mean((rest @ weights - y[50:]) ** 2))
Path(os.environ["MLOPS_OUTPUT"]).write_text(json.dumps({"metrics": {"loss": loss}}))
"""
DAG_FILE = """
from airflow.sdk import DAG, task
from airflow_mlops.groups import sweep

with DAG({dag_id!r}, schedule=None) as dag:

    @task
    def before():
        {before}

    found = sweep(
        command=[{python!r}, {script!r}],
        conn_id="sweep_jobs",
        experiment={dag_id!r},
        poll_interval=0.2,
        space={{
            "degree": {{"low": 1, "high": {high}, "type": "int"}},
            "penalty": {{"low": 1e-6, "high": 10, "log": True}},
        }},
        parameters={{"ledger": {ledger!r}}},
        metric="loss",
        direction="minimize",
        initial={initial!r},
        n_trials=3,
        rounds=2,
        retries=2,
    )

    @task
    def after(result: dict):
        return result["metrics"]["loss"]

    before() >> found
    after(found.output)
"""
IN_USE = {"degree": 1, "penalty": 1.0}


@pytest.fixture
def backend(tmp_path: Path, mlflow_server: str, monkeypatch: pytest.MonkeyPatch) -> LocalBackend:
    """Give the place of the jobs, and let Airflow know it and the MLflow server."""
    jobs = {"conn_type": "mlops_local", "extra": {"workdir": str(tmp_path / "jobs")}}
    monkeypatch.setenv("AIRFLOW_CONN_SWEEP_JOBS", json.dumps(jobs))
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps({"conn_type": "mlflow", "host": mlflow_server}))
    return LocalBackend(tmp_path / "jobs")


def run(tmp_path: Path, dag_id: str, **other: Any) -> tuple[Any, dict[str, list[str]]]:
    """Run a DAG with a sweep, and return the run and the states of the instances of each task."""
    (tmp_path / "train.py").write_text(TRAINING)
    dags = Path(os.environ["AIRFLOW_HOME"]) / "dags"  # where dag.test() looks for what it runs
    dags.mkdir(exist_ok=True)
    values = {"before": "pass", "high": 9, "initial": [IN_USE, {"degree": 9}], **other}
    values |= {"python": sys.executable, "script": str(tmp_path / "train.py"), "ledger": str(tmp_path / "ledger")}
    (dags / f"{dag_id}.py").write_text(DAG_FILE.format(dag_id=dag_id, **values))
    found = runpy.run_path(str(dags / f"{dag_id}.py"))["dag"].test()
    states: dict[str, list[str]] = {}
    for ti in sorted(found.get_task_instances(), key=lambda ti: (ti.task_id, ti.map_index)):
        states.setdefault(ti.task_id, []).append(str(ti.state))
    return found, states


def xcom(found: Any, task_id: str, key: str = "return_value") -> Any:
    """Return what a task returned."""
    (ti,) = [ti for ti in found.get_task_instances() if ti.task_id == task_id]
    return ti.xcom_pull(task_ids=task_id, key=key)


def runs(address: str, experiment: str) -> tuple[list[Any], list[Any]]:
    """Return the parent runs and the child runs of an experiment."""
    with MLflowClient(ConnectionInfo(host=address)) as client:
        found = client.search_runs([client.experiment_id(experiment)])
    parents = [run for run in found if "mlflow.parentRunId" not in pairs(run, "tags")]
    return parents, [run for run in found if run not in parents]


def pairs(run: Any, what: str) -> dict[str, Any]:
    """Return the tags, parameters or metrics of a run."""
    return {pair["key"]: pair["value"] for pair in run["data"].get(what, ())}


@pytest.mark.slow
def test_a_sweep_finds_better_parameters_than_those_in_use(
    backend: LocalBackend, airflow_database: None, mlflow_server: str, tmp_path: Path
) -> None:
    """Six jobs run once each; one that fails is survived; the best is better than what was in use, and goes on."""
    found, states = run(tmp_path, "sweep_polynomials")
    assert str(found.state) == "success", states
    assert states["sweep.train_1"] == ["success", "failed", "success"]
    assert (len(states["sweep.train_2"]), states["sweep.conclude"], states["after"]) == (3, ["success"], ["success"])

    lines = (tmp_path / "ledger").read_text().splitlines()
    jobs = list(backend.managed())
    assert (len(lines), len(set(lines)), len(jobs)) == (6, 6, 6)
    assert {owner.map_index for _, owner in jobs} == {0, 1, 2}

    summary = xcom(found, "sweep.conclude", "sweep")
    best, (in_use, failed, *_) = summary["best"], summary["trials"]
    assert in_use["parameters"] == {**IN_USE, "ledger": str(tmp_path / "ledger")}
    assert best["value"] < in_use["value"]
    assert best["value"] == min(trial["value"] for trial in summary["trials"] if trial["value"] is not None)
    assert xcom(found, "after") == best["value"]
    assert (failed["parameters"]["degree"], failed["value"]) == (9, None)
    assert summary["finished"] + summary["failed"] == 6

    (parent,), children = runs(mlflow_server, "sweep_polynomials")
    assert {pairs(child, "tags")["mlflow.parentRunId"] for child in children} == {parent["info"]["run_id"]}
    failures = summary["failed"]
    assert Counter(child["info"]["status"] for child in children) == {"FINISHED": 6 - failures, "FAILED": failures}
    losses = {pairs(child, "params")["penalty"]: pairs(child, "metrics").get("loss") for child in children}
    assert losses == {json.dumps(trial["parameters"]["penalty"]): trial["value"] for trial in summary["trials"]}
    assert (parent["info"]["status"], pairs(parent, "metrics")["loss"]) == ("FINISHED", best["value"])
    assert pairs(parent, "tags")["mlops.sweep.best_run_id"] == best["run_id"] == xcom(found, "sweep.conclude")["run_id"]
    assert json.loads(pairs(parent, "params")["space.degree"]) == {"low": 1, "high": 9, "type": "int"}


@pytest.mark.slow
def test_a_sweep_of_which_nothing_finishes_stops_early_and_says_so(
    backend: LocalBackend, airflow_database: None, mlflow_server: str, tmp_path: Path
) -> None:
    """After a round without any result no second one is tried; the run is red, and so is the sweep's tracking run."""
    found, states = run(tmp_path, "sweep_broken", high=99, initial=[{"degree": 9}, {"degree": 10}, {"degree": 11}])
    assert str(found.state) == "failed"
    assert states["sweep.train_1"] == ["failed"] * 3
    assert (states["sweep.propose_2"], states["sweep.conclude"], states["sweep.close"]) == (
        ["failed"],
        ["failed"],
        ["success"],
    )
    assert len((tmp_path / "ledger").read_text().splitlines()) == 3
    (parent,), children = runs(mlflow_server, "sweep_broken")
    assert [run["info"]["status"] for run in (parent, *children)] == ["FAILED"] * 4


@pytest.mark.slow
def test_a_sweep_is_skipped_with_what_is_before_it(
    backend: LocalBackend, airflow_database: None, mlflow_server: str, tmp_path: Path
) -> None:
    """A skipped task before it skips the whole sweep and what follows: nothing is tried, nothing fails."""
    skip = "from airflow.sdk.exceptions import AirflowSkipException; raise AirflowSkipException"
    _, states = run(tmp_path, "sweep_skipped", before=skip)
    assert {state for some in states.values() for state in some} == {"skipped"}, states
    assert not (tmp_path / "ledger").exists()
    assert runs(mlflow_server, "sweep_skipped") == ([], [])
    assert [
        handle for handle, _ in backend.managed() if backend.observe([handle])[handle].state is JobState.RUNNING
    ] == []


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_the_template_finds_promotes_and_rolls_out_a_better_model(platform: Any) -> None:
    """On a real table the template's best training is registered with its parameters, judged, promoted and served."""
    import census

    from airflow_mlops.hooks.mlflow import MLflowHook

    census.write_year(2015, platform.root / "landing", rows=2000)
    assert str(platform.dag("publish_data").test(run_conf={"tag": "2015"}).state) == "success"
    found = platform.dag("sweep").test(run_conf={"data_revision": "2015"})
    states = {ti.task_id: str(ti.state) for ti in found.get_task_instances()}
    assert str(found.state) == "success", states
    summary = xcom(found, "train.conclude", "sweep")
    in_use, *others = summary["trials"]
    assert (in_use["parameters"], len(others)) == ({"regularisation": 1e-4, "validation": 0.3}, 3)
    assert summary["best"]["value"] > in_use["value"]
    champion = MLflowHook().get_registry().resolve("employment", "champion")
    assert (champion.run_id, states["canary"]) == (summary["best"]["run_id"], "success")


def test_the_how_to_can_be_used_as_it_stands() -> None:
    """The how-to's DAG is valid and has its rounds; its project section is the one of the template's project."""
    import re

    text = (Path(__file__).resolve().parents[2] / "docs" / "howto" / "sweep.md").read_text()
    names: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0], names)
    found = names["found"]
    found.dag.validate()
    assert len(found.ids()) == 3
    assert found.dag.get_task("register").upstream_task_ids == {"sweep.conclude"}
    section = json.loads(re.findall(r"```json\n(.*?)```", text, re.DOTALL)[0])
    flights = json.loads((Path(__file__).resolve().parents[2] / "dags" / "projects" / "flights.json").read_text())
    assert flights["sweep"] == section["sweep"]
