"""The registry's operators on a real task runner, a real MLflow server and real scikit-learn models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from airflow.sdk import Asset

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.digests import file_digest
from airflow_mlops.core.errors import (
    ConflictError,
    GateFailedError,
    IntegrityError,
    InvalidSpecError,
    NotFoundError,
    PlatformUnavailableError,
)
from airflow_mlops.evaluation.scoring import TRUSTED_TYPES
from airflow_mlops.hooks.mlflow import MLflowHook
from airflow_mlops.operators.registry import (
    EvaluateModelOperator,
    PromoteModelOperator,
    RegisterModelOperator,
    RollbackModelOperator,
)
from airflow_mlops.platforms.mlflow import MLflowClient
from airflow_mlops.registry.registries.mlflow import MLflowRegistry
from airflow_mlops.testing.task_runner import TaskRun, run_task

DATA = {
    "path": "data/flights",
    "rev": "v1",
    "commit": "c" * 40,
    "digest": "md5:" + "a" * 32,
    "size": 1,
    "nfiles": 1,
    "repo": "https://example.org/flights.git",
}
GATE = {"target": "late", "floors": {"roc_auc": 0.6}, "min_rows": 200}


@pytest.fixture(autouse=True)
def connection(mlflow_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point ``mlflow_default`` to the shared server."""
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps({"conn_type": "mlflow", "host": mlflow_server}))


@pytest.fixture
def registry(mlflow_server: str) -> Iterator[MLflowRegistry]:
    """Look at the shared server from the side."""
    with MLflowClient(ConnectionInfo(host=mlflow_server)) as client:
        yield MLflowRegistry(client)


@pytest.fixture
def name() -> str:
    """Give a model name that no other test uses."""
    return f"late-{uuid.uuid4().hex[:8]}"


def rows(count: int, seed: int) -> pd.DataFrame:
    """Return flights whose delay depends on a number and a word, with noise."""
    rng = np.random.default_rng(seed)
    wind, airline = rng.normal(size=count), rng.choice(["AA", "BB", "CC"], count)
    late = (wind + 1.5 * (airline == "AA") + rng.normal(size=count) > 0.5).astype(int)
    return pd.DataFrame({"wind": wind, "airline": airline, "late": late})


@pytest.fixture(scope="module")
def holdout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write 1500 labelled rows."""
    path = tmp_path_factory.mktemp("holdout") / "holdout.parquet"
    rows(1500, seed=1).to_parquet(path)
    return path


TRAINING = """
import json, sys
import mlflow, pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OrdinalEncoder

data = pd.read_parquet(sys.argv[1])
trusted = json.loads(sys.argv[2])
for columns in json.loads(sys.argv[3]):
    words = [column for column in columns if column == "airline"]
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    numbers = ColumnTransformer([("words", encoder, words)], remainder="passthrough")
    model = Pipeline([("numbers", numbers), ("model", HistGradientBoostingClassifier(max_iter=20))])
    model.fit(data[columns], data["late"])
    with mlflow.start_run() as run:
        info = mlflow.sklearn.log_model(
            model, name="model", serialization_format="skops", skops_trusted_types=trusted,
            pip_requirements=["scikit-learn", "skops"], input_example=data[columns].head(3),
        )
    print(json.dumps({"model_uri": info.model_uri, "run_id": run.info.run_id}))
"""


@pytest.fixture(scope="module")
def trained(mlflow_server: str, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Run a training script three times: one column, two columns, one column. ``TrainingResult`` as dicts."""
    path = tmp_path_factory.mktemp("train") / "train.parquet"
    rows(1500, seed=2).to_parquet(path)
    columns = json.dumps([["wind"], ["wind", "airline"], ["wind"]])
    done = subprocess.run(
        [sys.executable, "-c", TRAINING, str(path), json.dumps(TRUSTED_TYPES), columns],
        env={**os.environ, "MLFLOW_TRACKING_URI": mlflow_server},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    job = {"backend": "local", "job_id": "aml-1"}
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return [{"job": job, "data": {"train": DATA}, **result} for result in found]


@pytest.fixture
def weak(trained: list[dict[str, Any]]) -> dict[str, Any]:
    """Give a model that sees one column."""
    return trained[0]


@pytest.fixture
def strong(trained: list[dict[str, Any]]) -> dict[str, Any]:
    """Give a model that sees both columns."""
    return trained[1]


def register(name: str, training: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    """Register and return the version."""
    run = run_task(RegisterModelOperator(task_id="register", model_name=name, training=training, **kwargs))
    assert run.state == "success", run.log
    return dict(run.result)


def evaluate(name: str, holdout: Path, **kwargs: Any) -> TaskRun:
    """Run the gate."""
    return run_task(
        EvaluateModelOperator(task_id="evaluate", model_name=name, holdout=str(holdout), **{**GATE, **kwargs})
    )


def promote(name: str, evaluation: dict[str, Any], **kwargs: Any) -> TaskRun:
    """Run the promotion."""
    return run_task(PromoteModelOperator(task_id="promote", model_name=name, evaluation=evaluation, **kwargs))


def champion(registry: MLflowRegistry, name: str) -> str:
    """Return the champion's version."""
    return registry.resolve(name, "champion").version


def test_the_whole_life_of_a_model(
    name: str, weak: dict[str, Any], strong: dict[str, Any], holdout: Path, registry: MLflowRegistry
) -> None:
    """The first model passes by floors, a better one replaces it, the old one loses, a rollback restores it."""
    register(name, weak)
    first = evaluate(name, holdout)
    assert "only the floors were checked" in first.log
    assert promote(name, first.result).result["previous"] is None

    register(name, strong)
    second = evaluate(name, holdout).result
    assert second["decision"]["verdict"] == "pass", second["decision"]
    assert second["gain_low"] > 0
    assert promote(name, second, outlets=[Asset("mlops://model")]).asset_events[0]["extra"]["version"] == "2"
    assert (champion(registry, name), registry.resolve(name, "previous").version) == ("2", "1")

    third = evaluate(name, holdout, challenger="1").result
    assert third["decision"]["verdict"] == "fail"
    assert promote(name, third).state == "skipped"

    taken = {"promoted": True, "model": registry.resolve(name, "2").to_dict(), "previous": "1"}
    for _ in range(2):  # a retry of a roll-back that went through ends as the first try would have
        back = run_task(RollbackModelOperator(task_id="rollback", model_name=name, promoted=taken))
        assert (back.state, back.result["version"], champion(registry, name)) == ("success", "1", "1")
    other = {"promoted": True, "model": {"version": "7"}, "previous": "6"}
    assert run_task(RollbackModelOperator(task_id="rollback", model_name=name, promoted=other)).state == "skipped"
    assert registry.resolve(name, "2").tags["mlops.rolled_back_to"] == "1"


def test_registration_tags_both_ways_and_is_repeatable(
    name: str, weak: dict[str, Any], registry: MLflowRegistry
) -> None:
    """Version and run name each other, the task, the data and its checks; a second try finds the version."""
    report = {"status": "warn", "suite": "flights", "suite_digest": "sha256:55", "rows": 9}
    fetched = {"version": DATA, "path": "/tmp/flights"}
    model = register(name, weak, validation=report, tags={"team": "ops"}, data=fetched)
    assert register(name, weak, validation=report, tags={"team": "ops"}, data={"train": DATA}) == model
    assert model["aliases"] == ["challenger"]
    tags = model["tags"]
    assert tags["airflow.task_id"] == "register"
    assert tags["mlops.data.train.digest"] == DATA["digest"]
    assert (tags["mlops.validation.suite_digest"], tags["team"]) == ("sha256:55", "ops")
    run = {tag["key"]: tag["value"] for tag in registry.client.run(weak["run_id"])["data"]["tags"]}
    assert run["mlops.model"] == name
    assert (run["mlops.model_version"], run["mlops.model_digest"]) == ("1", model["digest"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"training": {"model_uri": "", "run_id": ""}}, "no model_uri"),
        ({"training": {"model_uri": "s3://bucket/model"}}, "models:/m-"),
        ({"validation": {"status": "fail", "suite": "flights"}}, "did not pass 'flights'"),
        ({"alias": "champion"}, "promote and rollback alone"),
        ({"run_id": "0" * 32}, "belongs to run"),
    ],
)
def test_what_cannot_be_registered_is_refused(
    name: str, weak: dict[str, Any], change: dict[str, Any], said: str
) -> None:
    """No model, an address of another kind, bad data, a guarded alias and a foreign run are refused and not retried."""
    arguments = {"training": weak, **change}
    run = run_task(RegisterModelOperator(task_id="register", model_name=name, retries=3, **arguments))
    assert run.state == "failed"
    assert isinstance(run.error, InvalidSpecError)
    assert said in str(run.error)


def test_a_model_that_is_not_there_is_named_with_those_that_are(name: str, weak: dict[str, Any]) -> None:
    """A misspelt model name of a run is answered with the run's models."""
    uri = f"runs:/{weak['run_id']}/modle"
    run = run_task(RegisterModelOperator(task_id="register", model_name=name, model_uri=uri))
    assert isinstance(run.error, NotFoundError)
    assert "did you mean 'model'" in str(run.error)


def test_evidence_is_kept_with_the_run(
    name: str, weak: dict[str, Any], holdout: Path, registry: MLflowRegistry
) -> None:
    """The evidence names files, holdout and policy, is found by the version's tag, and a retry repeats it."""
    model = register(name, weak)
    found = evaluate(name, holdout).result
    document = json.loads(registry.read(found["evidence_uri"]))
    assert document["challenger_digest"] == model["digest"]
    assert document["evaluation"]["holdout_digest"] == file_digest(holdout, "md5")
    assert document["policy"]["min_rows"] == 200
    tags = registry.resolve(name, "1").tags
    assert (tags["mlops.gate.evidence"], tags["mlops.gate.verdict"]) == (found["evidence_digest"], "pass")
    assert evaluate(name, holdout).result == found


def test_too_few_rows_skip_the_promotion(name: str, weak: dict[str, Any], holdout: Path) -> None:
    """INCONCLUSIVE does not fail the evaluation, and the promotion is skipped, failed or continued as asked."""
    register(name, weak)
    run = evaluate(name, holdout, min_rows="{{ 100 * 100 }}")
    assert (run.state, run.result["decision"]["verdict"]) == ("success", "inconclusive")
    skipped = promote(name, run.result)
    assert skipped.state == "skipped"
    assert "1500 rows in the holdout, 10000 are needed" in skipped.log
    assert isinstance(promote(name, run.result, on_rejected="fail", retries=2).error, GateFailedError)
    assert promote(name, run.result, on_rejected="continue").result["promoted"] is False
    assert isinstance(promote(name, run.result, on_rejected="ignore").error, InvalidSpecError)


def test_attempts_on_one_champion_are_counted(
    name: str, weak: dict[str, Any], strong: dict[str, Any], holdout: Path
) -> None:
    """Every further decision about the same champion gets a smaller alpha; a repeated one keeps its own."""
    register(name, weak)
    promote(name, evaluate(name, holdout).result)
    register(name, strong)
    metrics = ["roc_auc", "accuracy", "roc_auc", "log_loss"]
    found = [evaluate(name, holdout, metric=metric).result for metric in metrics]
    assert [one["attempt"] for one in found] == [1, 2, 1, 3]
    assert found[0]["alpha"] > found[1]["alpha"] > found[3]["alpha"]


def test_a_holdout_that_was_trained_on_is_refused(name: str, weak: dict[str, Any], holdout: Path) -> None:
    """Rows that the model knows by heart prove nothing."""
    register(name, weak, data={**DATA, "digest": file_digest(holdout, "md5")})
    run = evaluate(name, holdout)
    assert isinstance(run.error, InvalidSpecError)
    assert "trained on" in str(run.error)


def test_a_changed_decision_promotes_nothing(
    name: str, weak: dict[str, Any], holdout: Path, registry: MLflowRegistry
) -> None:
    """A decision that was turned to PASS after the fact, or whose evidence was rewritten, is refused for good."""
    register(name, weak)
    failed = evaluate(name, holdout, floors={"roc_auc": 0.99}).result
    forged = {**failed, "decision": {"verdict": "pass", "reasons": []}}
    run = promote(name, forged, retries=3)
    assert (run.state, type(run.error)) == ("failed", IntegrityError)
    assert "decision" in str(run.error)

    passed = evaluate(name, holdout).result
    document = registry.read(passed["evidence_uri"])
    registry.client.artifacts.write(passed["evidence_uri"], document.replace(b'"rows": 1500', b'"rows": 9500'))
    assert isinstance(promote(name, passed).error, IntegrityError)
    registry.client.artifacts.write(passed["evidence_uri"], document)
    assert promote(name, passed).result["promoted"] is True
    assert promote(name, passed).result["promoted"] is True, "a retry of a promotion that went through"


def test_old_evidence_does_not_beat_a_new_champion(
    name: str, weak: dict[str, Any], strong: dict[str, Any], holdout: Path, registry: MLflowRegistry
) -> None:
    """Evidence from before another promotion is refused, even if it passed."""
    register(name, weak)
    early = evaluate(name, holdout).result
    register(name, strong)
    promote(name, evaluate(name, holdout).result)
    run = promote(name, early)
    assert isinstance(run.error, ConflictError)
    assert champion(registry, name) == "2"


def test_changed_model_files_are_not_scored(
    name: str, trained: list[dict[str, Any]], holdout: Path, registry: MLflowRegistry
) -> None:
    """Files that differ from what was registered are refused before anything loads them."""
    register(name, trained[2])
    where = registry.client.download_uri(name, "1")
    registry.client.artifacts.write(f"{where}/requirements.txt", b"evil\n")
    run = evaluate(name, holdout)
    assert isinstance(run.error, IntegrityError)
    assert "They are not used" in str(run.error)


def test_the_champion_itself_is_no_challenger(name: str, weak: dict[str, Any], holdout: Path) -> None:
    """A run that is repeated after its promotion decides nothing and promotes nothing."""
    register(name, weak)
    promote(name, evaluate(name, holdout).result)
    again = evaluate(name, holdout)
    assert again.result["decision"]["verdict"] == "inconclusive"
    assert "is the champion already" in again.log


def test_an_unknown_alias_is_answered_with_the_one_that_was_meant(
    name: str, weak: dict[str, Any], holdout: Path
) -> None:
    """A misspelt alias fails at once and says which one there is; a misspelt champion is no first model."""
    register(name, weak)
    for arguments in ({"challenger": "chalenger"}, {"champion": "chalenger"}):
        run = evaluate(name, holdout, **arguments)
        assert isinstance(run.error, NotFoundError)
        assert "did you mean 'challenger'" in run.log


def test_a_wrong_policy_fails_before_anything_is_read(name: str) -> None:
    """A misspelt metric or mode is refused with the right word, without a holdout or a server."""
    for arguments, said in (({"metric": "roc_acu"}, "roc_auc"), ({"mode": "superority"}, "superiority")):
        run = evaluate(name, Path("/nowhere"), **arguments)
        assert isinstance(run.error, InvalidSpecError)
        assert f"did you mean '{said}'" in str(run.error)


def test_an_absent_server_is_retried_and_explained(
    name: str, weak: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When MLflow is away, the log names its address and connection, never the password, and the task is retried."""
    away = {"conn_type": "mlflow", "host": "127.0.0.1", "port": 9, "login": "ann", "password": "s3cret-word"}
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps(away))
    run = run_task(RegisterModelOperator(task_id="register", model_name=name, training=weak, retries=1))
    assert (run.state, type(run.error)) == ("up_for_retry", PlatformUnavailableError)
    assert "http://127.0.0.1:9" in run.log
    assert "'mlflow_default'" in run.log
    assert "s3cret-word" not in run.log
    good, said = MLflowHook().test_connection()
    assert not good
    assert "did not answer" in said


def test_the_hook_tells_which_server_answers() -> None:
    """The connection test names the server's version."""
    assert MLflowHook().test_connection() == (True, "Connected to MLflow 3.17.2.")


def test_importing_the_operators_loads_nothing_heavy() -> None:
    """A DAG file that imports the operators does not pay for MLflow, pandas, numpy or scikit-learn."""
    code = (
        "import sys, airflow_mlops.operators.registry;"
        "print(sorted({'mlflow', 'pandas', 'numpy', 'sklearn', 'skops', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ), check=True
    )
    assert done.stdout.strip().splitlines()[-1] == "[]"
