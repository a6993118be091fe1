"""The how-tos about cost and about data that has to stay, run as they stand in the documents."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.schema import COMPILED_SINGLE_STAGE_SCHEMA

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import BudgetExceededError, ResidencyError
from airflow_mlops.core.residency import split_places
from airflow_mlops.data.pointer import read_pointer
from airflow_mlops.testing.git_dvc import GitDvcRepository
from airflow_mlops.testing.kubernetes import kubernetes_fake
from airflow_mlops.testing.task_runner import DagRunMemory, run_task
from airflow_mlops.training.contract import Resources, TrainingSpec
from airflow_mlops.training.cost import Cost
from airflow_mlops.training.prices import PriceTable

HOWTO = Path(__file__).resolve().parents[2] / "docs" / "howto"


def blocks(document: str, language: str) -> list[str]:
    """Return the blocks of a document in one language."""
    return re.findall(rf"```{language}\n(.*?)```", (HOWTO / document).read_text(), re.DOTALL)


def names_of(document: str) -> dict[str, Any]:
    """Return the names that a document's Python block defines."""
    (code,) = blocks(document, "python")
    names: dict[str, Any] = {"__name__": "howto"}
    exec(code, names)
    return names


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep jobs and files in the test's own folder."""
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def test_the_price_table_of_the_how_to_prices_a_job(tmp_path: Path) -> None:
    """The how-to's task runs with the how-to's table beside it, within its budget; a smaller budget refuses it."""
    (table,) = blocks("cost.md", "json")
    (tmp_path / "prices.json").write_text(table)
    train = names_of("cost.md")["train"]
    run = run_task(train)
    assert run.state == "success", run.error
    assert run.result["cost"]["amount"] == pytest.approx(run.result["billed_seconds"] / 3600 * 0.1)
    train.budget = 0.01
    assert isinstance(run_task(train, memory=DagRunMemory(run_id="poor")).error, BudgetExceededError)


def test_every_entry_of_the_table_is_a_price() -> None:
    """Each backend of the how-to's table prices what the how-to says it does."""
    table = PriceTable.read(json.loads(blocks("cost.md", "json")[0]))
    asked = {
        "sagemaker": (Resources(instance_type="ml.m5.xlarge"), 0.25),
        "vertex": (Resources(instance_type="n1-standard-4", gpus=2), 0.2 + 2 * 0.4),
        "kubernetes": (Resources(cpus=2, memory_mib=8192, gpus=1), 2 * 0.04 + 8 * 0.005 + 1.2),
        "local": (Resources(cpus=64), 0.1),
    }
    assert set(table.backends) == set(asked)
    for backend, (resources, price) in asked.items():
        found = table.hourly(TrainingSpec(("true",), resources=resources), backend)
        assert found.on_demand == pytest.approx(price)


def test_the_how_to_names_every_field_of_a_cost() -> None:
    """The table of the result's ``cost`` is complete and says nothing else."""
    section = (HOWTO / "cost.md").read_text().partition("The result of the task has `cost`:")[2]
    section = section.partition("With `experiment`")[0]
    named = set(re.findall(r"^\| (.*?) \|", section, re.MULTILINE)) - {"field", "---"}
    assert {word.strip("`") for cell in named for word in cell.split(", ")} == set(Cost.__dataclass_fields__)


def test_the_pointer_of_the_how_to_is_one() -> None:
    """DVC's own schema takes it, and the residency is read from it."""
    (text,) = blocks("hybrid.md", "yaml")
    COMPILED_SINGLE_STAGE_SCHEMA(yaml.safe_load(text))
    assert read_pointer(text, "data/patients").residency == "on-prem"


def test_the_connections_of_the_how_to_say_where_they_are() -> None:
    """One name or a list of names; the rest of the extra is what the backend gets."""
    found = [json.loads(text) for text in blocks("hybrid.md", "json")]
    split = [split_places(ConnectionInfo("c", extra=one["extra"]), one["conn_type"]) for one in found]
    assert [places for _, places in split] == [("eu",), ("eu", "on-prem")]
    assert [dict(rest.extra) for rest, _ in split] == [{"region_name": "eu-central-1"}, {"in_cluster": True}]


def test_the_error_is_told_as_it_is() -> None:
    """The how-to shows the message that people see."""
    (text,) = blocks("hybrid.md", "text")
    assert text.strip() == str(ResidencyError("input 'train'", "on-prem", "sagemaker", "aws_eu", ["eu"]))


@pytest.mark.parametrize(("residency", "state"), [("", "success"), ("on-prem", "failed")])
def test_the_dag_of_the_how_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, residency: str, state: str) -> None:
    """It prepares here, keeps a version, and a cluster trains on it, unless the version's pointer forbids that."""
    repository = GitDvcRepository(tmp_path / "server")
    connection = {"conn_type": "dvc", "host": repository.address, "extra": {"workdir": str(tmp_path / "work")}}
    monkeypatch.setenv("AIRFLOW_CONN_DVC_DEFAULT", json.dumps(connection))
    if residency:
        text = blocks("hybrid.md", "yaml")[0].replace("on-prem", residency)
        repository.commit({"data/patients.dvc": text}, "It stays here")
    (tmp_path / "patients.csv").write_text("name,x\nAnn,1\nBob,2\n")
    dag = names_of("hybrid.md")["dag"]
    conf = {"raw": str(tmp_path / "patients.csv"), "prepared": str(tmp_path / "prepared")}
    tools = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "DVC_NO_ANALYTICS": "true"}
    memory = DagRunMemory(dag_id="hybrid", conf=conf)
    with kubernetes_fake(image_env=tools) as fake:
        extra = {"kube_config_path": str(fake.kubeconfig), "fetch_image": "dvc:3"}
        where = {"conn_type": "kubernetes", "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_CLUSTER_IN_A_CLOUD", json.dumps(where))
        for name in ("prepare", "publish"):
            run = run_task(dag.get_task(name), memory=memory)
            assert run.state == "success", run.log
        run = run_task(dag.get_task("train"), memory=memory)
    assert run.state == state, run.log
    assert isinstance(run.error, ResidencyError) == (state == "failed")
    if state == "success":
        assert "3" in run.log.splitlines()
        assert run.result["data"]["train"]["path"] == "data/patients"
