"""The drift operators under Airflow's own task runner, with a real MLflow server where a model is watched."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from airflow.sdk import DAG, Asset
from airflow.sdk.bases.operator import BaseOperator

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import GateFailedError, InvalidSpecError, NotFoundError
from airflow_mlops.core.refs import ModelVersion
from airflow_mlops.operators.drift import DetectDriftOperator, ProfileDataOperator
from airflow_mlops.platforms.mlflow import MLflowClient
from airflow_mlops.testing.task_runner import TaskRun, run_task

RETRAIN = Asset("flights-retrain")
NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)


def write(path: Path, *, shift: float = 0.0, rows: int = 1000, seed: int = 0, drop: tuple[str, ...] = ()) -> Path:
    """Write flights: a delay that may be shifted, a carrier and the label."""
    rng = np.random.default_rng(seed)
    table = pa.table(
        {
            "delay": rng.normal(shift, 1, rows),
            "carrier": pa.array(rng.choice(["UA", "DL", "AA"], rows)),
            "late": pa.array(rng.random(rows) < 0.2),
        }
    )
    pq.write_table(table.drop_columns(list(drop)), path)
    return path


@pytest.fixture
def reference(tmp_path: Path) -> str:
    """Give the profile of last year's flights, made by the operator."""
    data = write(tmp_path / "reference.parquet")
    task = ProfileDataOperator(task_id="profile", data=str(data), target="late", output_path=str(tmp_path / "ref.json"))
    run = run_task(task)
    assert run.state == "success", run.log
    return str(run.result["path"])


def detect(**kwargs: Any) -> TaskRun:
    """Run the drift check."""
    return run_task(DetectDriftOperator(task_id="detect", **kwargs))


def test_a_profile_file_says_what_was_read(tmp_path: Path) -> None:
    """The task returns rows, columns and address of the profile; a data operator's dict is as good as a path."""
    write(tmp_path / "flights.parquet")
    version = {"path": "data/flights", "rev": "v1", "commit": "c", "digest": "md5:1", "size": 1}
    run = run_task(
        ProfileDataOperator(
            task_id="profile",
            data={"version": version, "path": str(tmp_path)},
            file="flights.parquet",
            exclude=["carrier"],
            output_path=str(tmp_path / "{{ task.task_id }}.json"),
        )
    )
    assert run.state == "success", run.log
    path = tmp_path / "profile.json"
    expected = {"rows": 1000, "columns": ["delay", "late"], "path": str(path), "profile_uri": path.as_uri()}
    assert run.result == expected
    assert json.loads(path.read_text())["data"] == [version]


def test_a_profile_that_nobody_keeps_is_refused(tmp_path: Path) -> None:
    """Without a file and a model the profile would be lost: the task fails before it reads and is not retried."""
    run = run_task(ProfileDataOperator(task_id="profile", data=str(tmp_path / "absent.parquet"), retries=3))
    assert run.state == "failed"
    assert isinstance(run.error, InvalidSpecError)
    assert "output_path" in str(run.error)


def test_predictions_become_a_column_of_the_profile(tmp_path: Path) -> None:
    """The model's own answers in another file are profiled as the column ``prediction``."""
    write(tmp_path / "a.parquet")
    pq.write_table(pa.table({"score": [0.1, 0.9] * 500}), tmp_path / "scores.parquet")
    task = ProfileDataOperator(
        task_id="profile",
        data=str(tmp_path / "a.parquet"),
        predictions=str(tmp_path / "scores.parquet"),
        prediction_column="score",
        output_path=str(tmp_path / "p.json"),
    )
    run = run_task(task)
    assert run.state == "success", run.log
    assert run.result["columns"] == ["delay", "carrier", "late", "prediction"]


def test_no_drift_passes_and_emits_nothing(reference: str, tmp_path: Path) -> None:
    """The task succeeds, its outlet is the alias alone, and the asset a retraining waits for gets no event."""
    run = detect(current=str(write(tmp_path / "c.parquet", seed=1)), reference=reference, retrain_asset=RETRAIN)
    assert (run.state, run.result["verdict"], run.result["drifted"]) == ("success", "pass", [])
    assert [event for event in run.asset_events if _asset(event) == RETRAIN.name] == []


def test_drift_emits_the_event_that_starts_a_retraining(reference: str, tmp_path: Path) -> None:
    """On drift, and only then, the asset gets one event that says why, by which columns and with which verdict."""
    current = write(tmp_path / "c.parquet", shift=0.8, seed=1)
    run = detect(current=str(current), reference=reference, retrain_asset=RETRAIN)
    assert (run.state, run.result["verdict"], run.result["drifted"]) == ("success", "fail", ["delay"])
    events = [event for event in run.asset_events if _asset(event) == RETRAIN.name]
    assert [event["extra"] for event in events] == [{"reason": "drift", "columns": ["delay"], "verdict": "fail"}]
    assert events[0]["source_alias_name"] == "drift:flights-retrain"
    assert re.search(r"delay +numeric +FAIL", run.log)


def _asset(event: dict[str, Any]) -> str:
    return str(event["dest_asset_key"]["name"])


def test_the_retraining_asset_is_no_outlet_of_its_own() -> None:
    """Only an alias is among the outlets: every plain asset outlet of a task that succeeds gets an event."""
    task = DetectDriftOperator(task_id="detect", current="x", reference="y", retrain_asset=RETRAIN)
    assert [(type(o).__name__, o.name) for o in task.outlets] == [("AssetAlias", "drift:flights-retrain")]


def test_drift_can_fail_the_task_and_still_leaves_its_report(reference: str, tmp_path: Path) -> None:
    """With on_drift=fail the task fails for good, and XCom and the file hold the report."""
    current, path = write(tmp_path / "c.parquet", shift=0.8, seed=1), tmp_path / "report.json"
    run = detect(current=str(current), reference=reference, on_drift="fail", report_path=str(path), retries=2)
    assert run.state == "failed"
    assert isinstance(run.error, GateFailedError)
    assert "delay" in str(run.error)
    assert run.result["verdict"] == json.loads(path.read_text())["verdict"] == "fail"
    assert run.result["report_uri"] == path.as_uri()


@pytest.mark.parametrize(("shift", "skipped"), [(0.0, ["retrain"]), (0.8, [])])
def test_without_drift_what_follows_can_be_skipped(
    reference: str, tmp_path: Path, shift: float, skipped: list[str]
) -> None:
    """With without_drift=skip_downstream a retraining in the same DAG runs only on drift; the check itself succeeds."""
    current = write(tmp_path / "c.parquet", shift=shift, seed=1)
    with DAG("watch", schedule=None):
        task = DetectDriftOperator(
            task_id="detect", current=str(current), reference=reference, without_drift="skip_downstream"
        )
        task >> BaseOperator(task_id="retrain")
    run = run_task(task)
    assert run.state == "success", run.log
    assert [s if isinstance(s, str) else s[0] for s in run.skipped_downstream] == skipped
    assert run.result["current_rows"] == 1000


def test_a_missing_column_fails_by_name_and_a_missing_label_does_not(reference: str, tmp_path: Path) -> None:
    """A feature that is gone is drift of the schema; the label that new data cannot have is none."""
    unlabelled = write(tmp_path / "a.parquet", seed=1, drop=("late",))
    assert detect(current=str(unlabelled), reference=reference).result["verdict"] == "pass"
    run = detect(current=str(write(tmp_path / "b.parquet", seed=1, drop=("carrier",))), reference=reference)
    assert (run.result["verdict"], run.result["missing_columns"]) == ("fail", ["carrier"])


def test_a_missing_profile_says_what_to_run(tmp_path: Path) -> None:
    """Without the reference the task fails at once, with the path and the operator that makes one."""
    current = write(tmp_path / "c.parquet")
    run = detect(current=str(current), reference=str(tmp_path / "absent.json"), retries=3)
    assert run.state == "failed"
    assert isinstance(run.error, NotFoundError)
    assert "ProfileDataOperator" in str(run.error)
    run = detect(current=str(current))
    assert isinstance(run.error, InvalidSpecError)


def test_a_typo_in_a_choice_is_refused(reference: str, tmp_path: Path) -> None:
    """An unknown on_drift is refused by value with a close match, before anything is read."""
    run = detect(current=str(tmp_path / "absent"), reference=reference, on_drift="fial")
    assert isinstance(run.error, InvalidSpecError)
    assert "did you mean 'fail'" in str(run.error)


def test_the_result_stays_small(tmp_path: Path) -> None:
    """However many columns there are, XCom holds the most severe ones; the file holds all."""
    rng = np.random.default_rng(0)
    wide = pa.table({f"c{i}": rng.normal(size=300) for i in range(30)})
    pq.write_table(wide, tmp_path / "wide.parquet")
    data, path = str(tmp_path / "wide.parquet"), tmp_path / "report.json"
    run = detect(current=data, reference=data, max_columns=5, report_path=str(path))
    assert (len(run.result["columns"]), run.result["compared"]) == (5, 30)
    assert len(json.loads(path.read_text())["columns"]) == 30


def capture(root: Path, at: datetime, shift: float) -> None:
    """Write traffic as the local gateway does."""
    rng = np.random.default_rng(5)
    rows = 1000
    table = pa.table(
        {
            "request_id": [str(i) for i in range(rows)],
            "row": pa.array([0] * rows, pa.int32()),
            "time": pa.array([at + timedelta(milliseconds=i) for i in range(rows)], pa.timestamp("us", "UTC")),
            "revision": ["v1"] * rows,
            "status": pa.array([200] * rows, pa.int16()),
            "latency_ms": pa.array([1.0] * rows, pa.float32()),
            "input.delay": rng.normal(shift, 1, rows),
            "input.carrier": pa.array(rng.choice(["UA", "DL", "AA"], rows)),
            "prediction": rng.random(rows),
        }
    )
    path = root / "flights" / "v1" / at.date().isoformat() / f"part-{int(at.timestamp())}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def test_captured_traffic_is_checked_window_by_window(reference: str, tmp_path: Path) -> None:
    """Each templated window gets its verdict: clean before the change, drifted after it, inconclusive when empty."""
    capture(tmp_path, NOON, 0.0)
    capture(tmp_path, NOON + timedelta(hours=1), 0.8)
    traffic = {"capture_dir": str(tmp_path), "endpoint": "flights"}
    verdicts = []
    for hour in (12, 13, 14):
        template = "{{ '2024-03-01T%02d:00:00' }}"
        run = detect(current=traffic, reference=reference, since=template % hour, until=template % (hour + 1))
        assert run.state == "success", run.log
        verdicts.append(run.result["verdict"])
    assert verdicts == ["pass", "fail", "inconclusive"]
    assert "no answered traffic" in run.result["reasons"][0]["message"]


@pytest.fixture
def champion(mlflow_server: str, monkeypatch: pytest.MonkeyPatch) -> ModelVersion:
    """Give a registered model version with a run, the champion of its model."""
    host, port = mlflow_server.removeprefix("http://").split(":")
    monkeypatch.setenv(
        "AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps({"conn_type": "mlflow", "host": host, "port": int(port)})
    )
    with MLflowClient(ConnectionInfo(host=host, port=int(port))) as client:
        run = client.create_run(client.experiment_id("drift"), "train")
        name = f"flights-{run['info']['run_id'][:8]}"
        client.create_model(name)
        version = client.create_version(name, run["info"]["artifact_uri"], run_id=run["info"]["run_id"])["version"]
        client.set_alias(name, "champion", version)
    return ModelVersion(name, version, f"models:/{name}/{version}", run_id=run["info"]["run_id"])


def test_a_model_carries_its_profile_and_its_verdict(
    champion: ModelVersion, mlflow_server: str, tmp_path: Path
) -> None:
    """The profile is kept with the model; a check by alias finds it, tags the version and keeps the whole report."""
    data = str(write(tmp_path / "train.parquet"))
    profile = run_task(ProfileDataOperator(task_id="profile", data=data, target="late", model=champion.to_dict()))
    assert profile.state == "success", profile.log
    assert profile.result["profile_uri"].endswith("/drift/profile.json")
    current = str(write(tmp_path / "c.parquet", shift=0.8, seed=1))
    run = detect(current=current, model_name=champion.name)
    assert run.state == "success", run.log
    by_address = detect(current=current, reference=profile.result)
    assert run.result["drifted"] == by_address.result["drifted"] == ["delay"]
    with MLflowClient(ConnectionInfo(host=mlflow_server)) as client:
        tags = {t["key"]: t["value"] for t in client.version(champion.name, champion.version)["tags"]}
        kept = json.loads(client.artifacts.read(run.result["report_uri"]))
    found = {key.removeprefix("airflow_mlops.drift."): value for key, value in tags.items()}
    assert (found["verdict"], found["columns"], found["rows"]) == ("fail", "delay", "1000")
    assert datetime.fromisoformat(found["at"]).tzinfo is not None
    assert found["profile"] == profile.result["profile_uri"]
    assert kept["verdict"] == "fail"


def test_a_model_without_a_profile_says_what_to_run(champion: ModelVersion, tmp_path: Path) -> None:
    """A champion that nobody profiled fails the check with the next step, and is not retried."""
    run = detect(current=str(write(tmp_path / "c.parquet")), model=champion.to_dict(), retries=2)
    assert run.state == "failed"
    assert isinstance(run.error, NotFoundError)
    assert "ProfileDataOperator" in str(run.error)
    assert champion.name in str(run.error)
