"""What the tests of the page share: a real registry, a real gateway, a real API server with users, a real browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.decisions import GateDecision, Reason, Verdict
from airflow_mlops.core.refs import ModelVersion
from airflow_mlops.deployment.targets.local import LocalTarget
from airflow_mlops.evaluation.evidence import evidence_of
from airflow_mlops.evaluation.policy import Evaluation, GatePolicy, Mode
from airflow_mlops.operators.evaluation import _keep  # the very tags the operator writes
from airflow_mlops.platforms.mlflow import MLflowClient
from airflow_mlops.registry.registries.mlflow import MLflowRegistry
from airflow_mlops.testing.airflow_server import AirflowServer, airflow_server
from airflow_mlops.testing.gateway import running_gateway
from airflow_mlops.testing.mlflow_server import mlflow_server

FLAGS = "--no-sandbox --headless --disable-gpu --disable-background-networking --disable-component-update"
MARKUP = "<img src=x onerror=alert(1)>"
"""A model name that is markup. It must be inert wherever it is shown."""

ONE = {
    "airflow.dag_id": "train_flights",
    "airflow.run_id": "run_1",
    "mlops.data.train.digest": "md5:0123456789abcdef.dir",
    "mlops.validation.status": "pass",
}
"""Tags that the operators write when they register."""


@dataclass
class Platforms:
    """The running registry and gateway."""

    mlflow_url: str
    registry: MLflowRegistry
    gateway_url: str
    token: str
    target: LocalTarget

    @property
    def client(self) -> MLflowClient:
        """The registry's own client."""
        return self.registry.client


@pytest.fixture(scope="package")
def platforms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platforms]:
    """Give a registry with two versions of ``flights``, and a gateway that serves both at 75 and 25 percent."""
    root = tmp_path_factory.mktemp("platforms")
    with ExitStack() as stack:
        gateway = stack.enter_context(running_gateway(root / "gateway", token="hunter2"))
        mlflow = stack.enter_context(mlflow_server(root / "mlflow"))
        client = stack.enter_context(MLflowClient(ConnectionInfo(host=mlflow)))
        target = LocalTarget(gateway.url, token=gateway.token)
        running = Platforms(mlflow, MLflowRegistry(client), gateway.url, gateway.token, target)
        fill(running, root / "model")
        yield running


def fill(platforms: Platforms, folder: Path) -> None:
    """Register and deploy as the operators would."""
    write_model(folder)
    registry, target = platforms.registry, platforms.target
    one = register(platforms, folder, "flights", ONE)
    two = register(platforms, folder, "flights", {})
    registry.promote("flights", expected=None, to=one.version)
    registry.set_alias("flights", "challenger", two.version)
    decided = evaluate(registry, two, one)
    forged = {"verdict": "pass", "evidence": f"sha256:{0:064}", "evidence_uri": decided.evidence_uri}
    register(platforms, folder, MARKUP, {f"mlops.gate.{key}": value for key, value in forged.items()})
    drift = {"verdict": "fail", "columns": "dep_delay,distance", "at": "2026-01-02T03:04:05+00:00", "rows": "12000"}
    registry.set_version_tags("flights", one.version, {f"airflow_mlops.drift.{k}": v for k, v in drift.items()})
    for model in (one, two):
        target.deploy(model, "flight-delay", revision=f"v{model.version}", options={"path": str(folder)})
    target.shift("flight-delay", {"v1": 75.0, "v2": 25.0})


def evaluate(registry: MLflowRegistry, challenger: ModelVersion, champion: ModelVersion) -> Evaluation:
    """Keep a gate decision with the challenger as the operator keeps it, and return it."""
    message = "The gain in roc_auc is too small."
    reasons = [
        Reason("rows", Verdict.PASS, 5000, 500, "5000 rows."),
        Reason("floor:roc_auc", Verdict.PASS, 0.8421, 0.7, "It is high enough."),
        Reason("superiority", Verdict.FAIL, -0.001, 0.0, message),
    ]
    found = Evaluation(
        GateDecision.of(reasons), "roc_auc", Mode.SUPERIORITY, 5000, gain=0.002, gain_low=-0.001,
        observed={"roc_auc": 0.8421}, champion_version=champion.version,
    )  # fmt: skip
    return _keep(registry, challenger, evidence_of(found, GatePolicy(floors={"roc_auc": 0.7}), challenger, champion))


def register(platforms: Platforms, folder: Path, name: str, tags: dict[str, str]) -> ModelVersion:
    """Log the model in a run of its own and register it."""
    client = platforms.client
    run = client.create_run(client.experiment_id("ui"), "run")["info"]
    for file in (path for path in folder.rglob("*") if path.is_file()):
        client.artifacts.write(f"{run['artifact_uri']}/model/{file.relative_to(folder)}", file.read_bytes())
    return platforms.registry.register(name, f"runs:/{run['run_id']}/model", run_id=run["run_id"], tags=tags)


def write_model(folder: Path) -> None:
    """Write the smallest model MLflow loads: it answers 0.5 to every row."""
    (folder / "code").mkdir(parents=True)
    (folder / "MLmodel").write_text(
        "flavors:\n  python_function:\n    loader_module: constant_model\n    code: code\n"
        'signature:\n  inputs: \'[{"name": "x", "type": "double", "required": true}]\'\n'
        '  outputs: \'[{"type": "double"}]\'\n'
    )
    (folder / "code" / "constant_model.py").write_text(
        "class Model:\n    def predict(self, data):\n        return [0.5] * len(data)\n\n\n"
        "def _load_pyfunc(path):\n    return Model()\n"
    )


@pytest.fixture(scope="package")
def server(platforms: Platforms, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowServer]:
    """Give an API server that knows both platforms, a gateway that is down, and one without a connection."""
    env = {
        "AIRFLOW_CONN_MLFLOW_DEFAULT": platforms.mlflow_url.replace("http://", "http://:@"),
        "AIRFLOW_CONN_GATEWAY_DEFAULT": platforms.gateway_url.replace("http://", f"http://:{platforms.token}@"),
        "AIRFLOW_CONN_GATEWAY_DOWN": "http://:hunter2@127.0.0.1:9",
        "AIRFLOW__MLOPS__DEPLOYMENT_TARGETS": "local:gateway_default, local:gateway_down, local:gateway_absent",
    }
    with airflow_server(tmp_path_factory.mktemp("airflow"), env=env) as running:
        yield running


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Give a headless Chromium. Where there is none the test is skipped, but never in continuous integration."""
    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if not program:
        reason = "No Chromium: install the package 'chromium' or set CHROMIUM to its path."
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=[*FLAGS.split(), "--no-first-run"])
        yield browser
        browser.close()
