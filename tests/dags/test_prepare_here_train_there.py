"""The hybrid template: data is prepared and checked on this machine, and a cluster elsewhere trains on the version."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import census
import pytest

from airflow_mlops.hooks.dvc import DvcHook
from airflow_mlops.hooks.mlflow import MLflowHook
from airflow_mlops.platforms.git import GitRepository
from airflow_mlops.testing.kubernetes import KubernetesFake, kubernetes_fake

PRICES = {"currency": "EUR", "backends": {"kubernetes": {"resources": {"node_hour": 3600}}}}


@pytest.fixture(scope="module")
def cluster() -> Iterator[KubernetesFake]:
    """Run a cluster whose images have Python and DVC."""
    tools = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "DVC_NO_ANALYTICS": "true"}
    with kubernetes_fake(image_env=tools) as fake:
        yield fake


def run(platform: Any, cluster: KubernetesFake, patch: pytest.MonkeyPatch, at: str, **conf: Any) -> Any:
    """Run the template with a cluster that is *at* some place; return the run."""
    extra = {"kube_config_path": str(cluster.kubeconfig), "residency": at, "fetch_image": "dvc:3"}
    patch.setenv("AIRFLOW_CONN_THERE", json.dumps({"conn_type": "kubernetes", "extra": extra}))
    table = platform.root / "prices.json"
    table.write_text(json.dumps(PRICES))
    where = {
        "backend": "kubernetes",
        "training_conn_id": "there",
        "image": "train:1",
        "code": str(platform.root / "seed"),
    }
    asked = {**where, "price_table": str(table), "max_runtime": 600, "budget": 1000, **conf}
    return platform.dag("prepare_here_train_there").test(run_conf=asked)


def states(found: Any) -> dict[str, str]:
    """Return the states of the tasks."""
    return {ti.task_id: str(ti.state) for ti in found.get_task_instances()}


def stays_here(path: str) -> None:
    """Write into the pointer of the data, as a person would, that it stays on premises."""
    git: GitRepository = DvcHook().get_store().git
    tip = git.commit_of("HEAD")
    pointer = (git.read(tip, f"{path}.dvc") or b"").decode()
    commit = git.commit(tip, {f"{path}.dvc": f"{pointer}  meta:\n    residency: on-prem\n".encode()}, "It stays here")
    git.push(commit, [f"refs/heads/{git.default_branch()}"])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_prepared_here_and_trained_there(
    platform: Any, cluster: KubernetesFake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What may leave trains on the cluster, with its cost on the model; once its pointer forbids it, it is refused."""
    census.write_year(2015, platform.root / "landing", rows=2000)
    found = run(platform, cluster, monkeypatch, at="eu")
    assert (str(found.state), set(states(found).values())) == ("success", {"success"}), states(found)
    trained = found.get_task_instance("train").xcom_pull("train", key="return_value")
    assert trained["job"]["backend"] == "kubernetes"
    assert trained["data"]["train"]["residency"] == ""
    model = MLflowHook().get_registry().resolve("employment", "challenger")
    assert float(model.tags["mlops.cost.amount"]) == pytest.approx(trained["cost"]["amount"])
    assert model.tags["mlops.cost.currency"] == "EUR"

    stays_here("data/census")
    jobs = cluster.calls.count("create", "jobs")
    refused = run(platform, cluster, monkeypatch, at="eu")
    assert (str(refused.state), states(refused)["publish"], states(refused)["train"]) == ("failed", "success", "failed")
    assert cluster.calls.count("create", "jobs") == jobs
    allowed = run(platform, cluster, monkeypatch, at="on-prem")
    assert states(allowed)["train"] == "success"
    kept = allowed.get_task_instance("train").xcom_pull("train", key="return_value")["data"]["train"]
    assert kept["residency"] == "on-prem"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_training_that_costs_too_much_is_not_started(
    platform: Any, cluster: KubernetesFake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The budget of the form is a gate: the data is published, and no job reaches the cluster."""
    census.write_year(2015, platform.root / "landing", rows=2000)
    jobs = cluster.calls.count("create", "jobs")
    found = run(platform, cluster, monkeypatch, at="on-prem", budget=599)
    assert (states(found)["publish"], states(found)["train"]) == ("success", "failed")
    assert cluster.calls.count("create", "jobs") == jobs
