"""The same DAG on every training backend: nothing changes but its parameters, and nothing differs in what it yields."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import census
import pytest
from kill_platforms import PLATFORMS

from airflow_mlops.hooks.mlflow import MLflowHook
from airflow_mlops.operators.training import TrainModelOperator

Trained = tuple[dict[str, Any], dict[str, Any]]


def train(platform: Any, backend: str, folder: Path, patch: pytest.MonkeyPatch) -> Trained:
    """Run the template with this backend; return the result of its training task and the tags of its tracking run."""
    with PLATFORMS[backend](folder) as place:
        patch.setenv("AIRFLOW_CONN_PLACE", json.dumps(place.connection(f"everywhere-{backend}")))
        known = place.arguments()
        conf = {name: known[name] for name in ("image", "node_resources", "max_runtime") if name in known}
        conf["training_options"] = known.get("options", {})
        conf |= {"backend": backend, "training_conn_id": "place", "data_revision": "2015"}
        found = platform.dag("train_and_deploy").test(run_conf=conf)
        assert place.jobs(f"everywhere-{backend}") == 1
    states = {ti.task_id: str(ti.state) for ti in found.get_task_instances()}
    assert (str(found.state), states["train"], states["evaluate"]) == ("success", "success", "success"), states
    result = found.get_task_instance("train").xcom_pull("train", key="return_value")
    run = MLflowHook().get_client().run(result["run_id"])
    return result, {tag["key"]: tag["value"] for tag in run["data"]["tags"]}


@pytest.fixture(scope="module")
def published(platform: Any) -> Any:
    """Publish the data of one year."""
    census.write_year(2015, platform.root / "landing")
    assert str(platform.dag("publish_data").test(run_conf={"tag": "2015"}).state) == "success"
    return platform


@pytest.fixture(scope="module")
def at_home(published: Any, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Train on this machine, as what all others are compared with."""
    with pytest.MonkeyPatch.context() as patch:
        return train(published, "local", tmp_path_factory.mktemp("local"), patch)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("backend", [name for name in PLATFORMS if name != "local"])
def test_only_the_place_differs(
    backend: str,
    published: Any,
    at_home: Trained,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same keys, metrics and data versions in the result, and the same proof of data and code on the run."""
    (there, tags), (here, tags_here) = train(published, backend, tmp_path, monkeypatch), at_home
    assert there["job"]["backend"] == backend
    assert there.keys() == here.keys()
    assert there["metrics"] == here["metrics"] != {}
    assert there["data"] == here["data"] != {}
    assert there["model_uri"].startswith("models:/")
    proof = [name for name in tags_here if name.startswith(("mlops.data.", "mlflow.source.git"))]
    assert {name: tags[name] for name in proof} == {name: tags_here[name] for name in proof} != {}


def test_every_parameter_of_the_platform_reaches_the_operator() -> None:
    """What a platform may need can be set in the template's form: each such argument is a template field."""
    fields = {"backend", "conn_id", "image", "node_resources", "spot", "max_runtime", "checkpoint", "env", "options"}
    assert fields | {"secret_env"} <= set(TrainModelOperator.template_fields)
