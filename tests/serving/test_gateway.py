"""One real gateway process with real MLflow models, spoken to over HTTP."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from airflow_mlops.core.digests import folder_digest
from airflow_mlops.testing.gateway import RunningGateway, running_gateway

PAIR = "/endpoints/pair/invocations"
ROW = {"x": 2.0, "n": 3}


def _ask(client: httpx.Client, count: int, **headers: str) -> list[httpx.Response]:
    answers = [client.post(PAIR, json={"dataframe_records": [ROW]}, headers=headers) for _ in range(count)]
    assert {answer.status_code for answer in answers} == {200}
    return answers


def _served_by(answers: list[httpx.Response]) -> Counter[str]:
    return Counter(answer.headers["x-mlops-revision"] for answer in answers)


def test_the_answer_is_the_score_of_the_positive_class(client: httpx.Client, models: dict[str, Path]) -> None:
    """A binary classifier answers what ``predict_proba`` of the saved model says, to the last digit."""
    import mlflow.sklearn
    import pandas as pd

    rows = [{"x": 0.1 * step, "n": step} for step in range(5)]
    expected = mlflow.sklearn.load_model(str(models["old"])).predict_proba(pd.DataFrame(rows))[:, 1]
    found = client.post(PAIR, json={"dataframe_records": rows}).json()["predictions"]
    assert found == pytest.approx(list(expected), rel=1e-12)


def test_all_protocols_give_the_same_answer(client: httpx.Client) -> None:
    """The same row scores the same, however it is written."""
    bodies: list[dict[str, Any]] = [
        {"dataframe_split": {"columns": ["n", "x"], "data": [[3, 2.0]]}},
        {"instances": [[2.0, 3]]},
        {"inputs": {"x": [2.0], "n": [3]}},
    ]
    expected = _ask(client, 1)[0].json()["predictions"]
    assert [client.post(PAIR, json=body).json()["predictions"] for body in bodies] == [expected] * 3
    tensors = [
        {"name": "x", "shape": [1], "datatype": "FP64", "data": [2.0]},
        {"name": "n", "shape": [1, 1], "datatype": "INT64", "data": [[3]]},
    ]
    answer = client.post("/v2/models/pair/infer", json={"inputs": tensors}).json()
    assert (answer["outputs"][0]["data"], answer["model_version"]) == (expected, "old")


def test_v2_tells_inputs_and_readiness(client: httpx.Client) -> None:
    """A client can learn what to send and whether it will be answered."""
    assert [item["name"] for item in client.get("/v2/models/pair").json()["inputs"]] == ["x", "n"]
    assert client.get("/v2/models/pair/ready").status_code == 200
    assert client.get("/v2/models/pears/ready").status_code == 404


def test_weights_are_kept(client: httpx.Client, gateway: RunningGateway) -> None:
    """Of 500 requests at 80/20 the canary gets 100, within five standard deviations."""
    gateway.shift("pair", old=80, new=20)
    assert abs(_served_by(_ask(client, 500))["new"] - 100) < 5 * (500 * 0.8 * 0.2) ** 0.5


def test_a_sticky_key_stays_on_its_revision(client: httpx.Client, gateway: RunningGateway) -> None:
    """The same key gets the same revision; different keys get both."""
    gateway.shift("pair", old=50, new=50)
    by_key = [_served_by(_ask(client, 4, **{"x-mlops-sticky": f"user-{number}"})) for number in range(20)]
    assert all(len(found) == 1 for found in by_key)
    assert len(set().union(*by_key)) == 2


def test_rollback_gives_the_traffic_back_and_can_be_repeated(client: httpx.Client, gateway: RunningGateway) -> None:
    """In a canary and after it, all traffic is on the old revision again, and requests go there."""
    gateway.shift("pair", old=90, new=10)
    assert client.post("/v1/endpoints/pair/rollback").json()["revisions"][0]["traffic"] == 100
    assert gateway.shift("pair", new=100)["previous"] == "old"
    for _ in range(2):
        status = client.post("/v1/endpoints/pair/rollback").json()
        assert [revision["traffic"] for revision in status["revisions"]] == [100, 0]
    assert _served_by(_ask(client, 3)) == {"old": 3}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "not JSON at character 1"),
        (b'{"dataframe_records": [{"x": 1.0}]}', "lacks the column 'n'"),
        (b'{"dataframe_records": [{"x": "1.0", "n": 1}]}', "Column 'x' must be double, row 0 has a string"),
        (b'{"instances": [[1.0, 2, 3]]}', "A row has 3 values, the model takes 2: x, n"),
        (b'{"dataframe_records": [{"x": 1.0, "n": 100000000000000000000}]}', "Column 'n' does not hold long values"),
        (b'{"dataframe_records": [{"x": 1' + b"0" * 400 + b', "n": 1}]}', "Column 'x' does not hold double values"),
        (b'{"dataframe_records": [{"x": 1.0, "n": 1, "\\ud800": 1}]}', "surrogate"),
        (b'{"rows": []}', "exactly one of"),
    ],
)
def test_bad_input_is_refused_with_the_column(client: httpx.Client, body: bytes, message: str) -> None:
    """Status 400 and a sentence that names what does not fit."""
    answer = client.post(PAIR, content=body)
    assert answer.status_code == 400, answer.text
    assert message in answer.json()["error"]


def test_unknown_endpoints_and_methods(client: httpx.Client) -> None:
    """Status 404 lists what there is."""
    for answer in (client.get("/v1/endpoints/pear"), client.post("/endpoints/pear/invocations", json={})):
        assert answer.status_code == 404
        assert "did you mean 'pair'" in answer.json()["error"]
    assert client.post("/v1/endpoints/pair").status_code == 405


@pytest.mark.parametrize(
    ("traffic", "status", "message"),
    [
        ({"old": 50, "new": 40}, 400, "must sum to 100 percent, got 90"),
        ({"old": "100"}, 400, "must be a number of percent"),
        ({"older": 100}, 404, "did you mean 'old'? It has old, new"),
    ],
)
def test_wrong_traffic_changes_nothing(
    client: httpx.Client, traffic: dict[str, Any], status: int, message: str
) -> None:
    """A refused shift leaves the traffic as it was."""
    answer = client.put("/v1/endpoints/pair/traffic", json=traffic)
    assert (answer.status_code, message in answer.json()["error"]) == (status, True), answer.text
    assert client.get("/v1/endpoints/pair").json()["revisions"][0]["traffic"] == 100


def test_a_revision_keeps_its_digest(client: httpx.Client, gateway: RunningGateway, models: dict[str, Path]) -> None:
    """Putting the same files again is 200; other files under the name are 409."""
    body = {"model": "pair", "version": "old", "digest": folder_digest(models["old"]), "path": str(models["old"])}
    assert client.put("/v1/endpoints/pair/revisions/old", json=body).status_code == 200
    body["digest"] = folder_digest(models["new"])
    assert client.put("/v1/endpoints/pair/revisions/old", json=body).status_code == 409


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("pair/revisions/..%2f..", {}, "Not Found"),
        ("pair/revisions/-x", {}, "cannot name a revision"),
        ("pair/revisions/v9", {"digest": "sha256:0"}, "64 hex digits"),
        ("pair/revisions/v9", {"path": 3}, "the texts model, version, digest, path"),
    ],
)
def test_a_revision_that_makes_no_sense_is_refused(
    client: httpx.Client, path: str, body: dict[str, Any], message: str
) -> None:
    """Names that could leave the folder and incomplete bodies never become state."""
    full = {"model": "m", "version": "1", "digest": "sha256:" + "0" * 64, "path": "/nowhere"} | body
    answer = client.put(f"/v1/endpoints/{path}", json=full)
    assert answer.status_code in (400, 404), answer.text
    assert message in answer.text


def test_other_bytes_than_asked_for_are_not_served(
    gateway: RunningGateway, client: httpx.Client, models: dict[str, Path]
) -> None:
    """A digest that differs ends as failed with both digests, and cannot get traffic."""
    status = gateway.put("tampered", "v1", models["old"], digest=folder_digest(models["new"]))
    assert status["revisions"][0]["state"] == "failed"
    assert folder_digest(models["old"]) in status["revisions"][0]["detail"]
    answer = client.put("/v1/endpoints/tampered/traffic", json={"v1": 100})
    assert (answer.status_code, "is failed" in answer.json()["error"]) == (400, True)
    answer = client.post("/endpoints/tampered/invocations", json={"instances": [[1.0, 1]]})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_a_model_whose_packages_are_missing_fails_with_the_import(
    gateway: RunningGateway, models: dict[str, Path]
) -> None:
    """The detail names the package, so that somebody can install it."""
    status = gateway.put("foreign", "v1", models["foreign"])
    assert status["revisions"][0]["state"] == "failed"
    assert "package_that_nobody_has" in status["revisions"][0]["detail"]


def test_the_gateway_keeps_its_own_copy(
    gateway: RunningGateway, client: httpx.Client, models: dict[str, Path], tmp_path: Path
) -> None:
    """A deleted source does no harm; a model trained on arrays takes rows; removal takes the files along."""
    source = shutil.copytree(models["array"], tmp_path / "array")
    assert gateway.put("array", "v1", source)["revisions"][0]["state"] == "ready"
    shutil.rmtree(source)
    gateway.shift("array", v1=100)
    answer = client.post("/endpoints/array/invocations", json={"inputs": [[1.0, 2.0], [0.0, 1.0]]})
    assert answer.json()["predictions"] == pytest.approx([5.0, 2.0])
    answer = client.delete("/v1/endpoints/array/revisions/v1")
    assert (answer.status_code, "still gets 100 percent" in answer.json()["error"]) == (400, True)
    for _ in range(2):
        assert client.delete("/v1/endpoints/array").json() == {"removed": "array"}
    assert client.get("/v1/endpoints/array").status_code == 404
    assert not list((gateway.root / "models" / "array").iterdir())


def test_a_model_that_raises_is_an_error_without_its_text(client: httpx.Client) -> None:
    """Status 500, counted as an error, captured without a prediction; the client sees the class of the error alone."""
    begun = time.time()
    answer = client.post("/endpoints/moody/invocations", json={"dataframe_records": [{"mood": "raise"}]})
    assert answer.status_code == 500
    assert "RuntimeError" in answer.json()["error"]
    assert "secret-of-the-model" not in answer.text
    found = client.get("/v1/endpoints/moody/metrics", params={"since": begun}).json()["v1"]
    assert (found["requests"], found["errors"]) == (1, 1)


def test_capture_is_complete_after_a_flush(client: httpx.Client, gateway: RunningGateway) -> None:
    """Every answered row is in parquet with its request id, input and prediction; refused input is not."""
    import pyarrow.parquet as pq

    gateway.shift("pair", old=50, new=50)
    answers = [*_ask(client, 40), client.post(PAIR, json={"instances": [[0.5, 1], [1.5, 2]]})]
    client.post(PAIR, json={"instances": [[0.5]]}, headers={"x-request-id": "refused"})
    counts = client.post("/v1/endpoints/pair/flush").json()
    assert (counts["buffered"], counts["dropped"]) == (0, 0)
    files = (gateway.root / "capture" / "pair").glob("*/*/part-*.parquet")
    rows = [row for file in files for row in pq.ParquetFile(file).read().to_pylist()]
    found = {(row["request_id"], row["row"]): row for row in rows}
    assert len(found) == len(rows)
    assert "refused" not in {row["request_id"] for row in rows}
    for answer in answers:
        for number, prediction in enumerate(answer.json()["predictions"]):
            row = found[answer.headers["x-request-id"], number]
            assert (row["prediction"], row["revision"]) == (prediction, answer.headers["x-mlops-revision"])
    assert {found[answers[-1].headers["x-request-id"], n]["input.x"] for n in (0, 1)} == {0.5, 1.5}


def test_metrics_are_those_of_the_window(client: httpx.Client) -> None:
    """Requests before and after the window do not count; refusals are requests but no errors."""
    _ask(client, 2)
    begun = time.time()
    answers = _ask(client, 5)
    client.post(PAIR, json={"instances": [[0.5]]})
    ended = time.time()
    _ask(client, 2)
    found = client.get("/v1/endpoints/pair/metrics", params={"since": begun, "until": ended}).json()
    assert list(found) == ["old"]
    assert (found["old"]["requests"], found["old"]["errors"]) == (6, 0)
    assert 0 < found["old"]["latency_p50_ms"] <= found["old"]["latency_p99_ms"] < (ended - begun) * 1000
    assert found["old"]["predictions"] == [answers[0].json()["predictions"][0]] * 5
    assert client.get("/v1/endpoints/pair/metrics?since=soon").status_code == 400


def test_a_request_id_of_the_client_is_kept(client: httpx.Client) -> None:
    """So that labels that come later can be joined to predictions."""
    assert _ask(client, 1, **{"x-request-id": "order-17"})[0].headers["x-request-id"] == "order-17"
    answer = client.post(PAIR, json={"instances": [[0.5, 1]]}, headers={"x-request-id": "a b"})
    assert answer.status_code == 400


def test_web_pages_and_strange_names_are_turned_away(client: httpx.Client) -> None:
    """A page in a browser on this machine can neither change nor read anything, whatever name it uses."""
    for headers in ({"origin": "http://evil.example"}, {"host": "evil.example"}):
        assert client.post("/v1/endpoints/pair/rollback", headers=headers).status_code == 403


def test_a_token_is_needed_where_one_is_configured(tmp_path: Path) -> None:
    """Without it, or with another one, everything but health is 401; and the address file tells no token."""
    with running_gateway(tmp_path, token="s3cret-token") as guarded, guarded.client() as client:
        assert client.get("/v1/endpoints").json() == {"endpoints": []}
        for headers in ({"authorization": ""}, {"authorization": "Bearer other"}):
            assert client.get("/v1/endpoints", headers=headers).status_code == 401
            assert client.post(PAIR, headers=headers).status_code == 401
            assert client.get("/health", headers=headers).json()["status"] == "ok"
        assert "s3cret-token" not in (tmp_path / "gateway.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "0.0.0.0"], "is not loopback: give --token-file"),
        (["--token-file", "/no/such/file"], "No such file"),
        (["--port", "1", "--host", "203.0.113.1", "--token-file", __file__], "Cannot listen on '203.0.113.1' port 1"),
    ],
)
def test_a_start_that_cannot_work_says_why(tmp_path: Path, arguments: list[str], message: str) -> None:
    """Exit status 2 and one sentence, no stack."""
    command = [sys.executable, "-m", "airflow_mlops.serving", "--root", str(tmp_path), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr


def test_two_gateways_never_share_a_folder(gateway: RunningGateway) -> None:
    """The second one refuses, so that state and files have one writer."""
    command = [sys.executable, "-m", "airflow_mlops.serving", "--root", str(gateway.root)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, "Another gateway serves" in ended.stderr) == (2, True)
