"""Processes are killed at bad moments; requests are answered or told to come back, and nothing is forgotten."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from airflow_mlops.testing.gateway import RunningGateway, running_gateway

ROW = {"dataframe_records": [{"x": 2.0, "n": 3}]}
MOOD = {"dataframe_records": [{"mood": "fine"}]}


def _load(
    gateway: RunningGateway, endpoint: str, count: int, meanwhile: Callable[[], None], body: object = ROW
) -> Counter[int]:
    """Send *count* requests from four threads, do something in the middle, and return the statuses."""
    begun = threading.Event()

    def send(part: int) -> Counter[int]:
        found: Counter[int] = Counter()
        with gateway.client() as client:
            for number in range(part):
                found[client.post(f"/endpoints/{endpoint}/invocations", json=body).status_code] += 1
                if number == part // 4:
                    begun.set()
        return found

    with ThreadPoolExecutor(4) as pool:
        parts = [pool.submit(send, count // 4) for _ in range(4)]
        assert begun.wait(30)
        meanwhile()
        return sum((part.result() for part in parts), Counter())


def _worker(client: httpx.Client, endpoint: str, revision: str) -> int | None:
    pid: int | None = client.get("/health").json()["workers"][endpoint][revision]
    return pid


def _gone(pid: int, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        state = Path(f"/proc/{pid}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


def test_a_killed_worker_drops_no_request(gateway: RunningGateway, client: httpx.Client) -> None:
    """Requests that hit a dying worker are answered by the next one, and its death is not an error of the model."""
    pid = _worker(client, "pair", "old")
    assert pid is not None
    assert _load(gateway, "pair", 200, lambda: os.kill(pid, signal.SIGKILL)) == {200: 200}
    assert _worker(client, "pair", "old") not in (pid, None)


def test_shifting_and_removing_drop_no_request(
    gateway: RunningGateway, client: httpx.Client, models: dict[str, Path]
) -> None:
    """Under load traffic moves, the old revision is removed, then the endpoint: every request is answered."""
    for revision in ("v1", "v2"):
        gateway.begin("moving", revision, models["moody"])
    gateway.wait("moving")
    gateway.shift("moving", v1=100)

    def move() -> None:
        gateway.shift("moving", v1=50, v2=50)
        gateway.shift("moving", v2=100)
        assert client.delete("/v1/endpoints/moving/revisions/v1").status_code == 200

    slow = {"dataframe_records": [{"mood": "sleep 0.02"}]}
    assert _load(gateway, "moving", 120, move, slow) == {200: 120}
    assert [item["revision"] for item in client.get("/v1/endpoints/moving").json()["revisions"]] == ["v2"]
    with ThreadPoolExecutor(1) as pool, gateway.client() as other:
        last = pool.submit(
            other.post, "/endpoints/moving/invocations", json={"dataframe_records": [{"mood": "sleep 1"}]}
        )
        time.sleep(0.5)
        assert client.delete("/v1/endpoints/moving").status_code == 200
        assert last.result().status_code == 200


def test_a_gateway_that_was_killed_serves_again_what_it_served(models: dict[str, Path], tmp_path: Path) -> None:
    """After kill -9 the workers end too; a new gateway has the same split, figures and answers."""
    with running_gateway(tmp_path / "g") as first, first.client() as client:
        for revision in ("old", "new"):
            first.begin("pair", revision, models["moody"])
        first.wait("pair")
        first.shift("pair", old=100)
        first.shift("pair", old=50, new=50)
        before = client.post("/endpoints/pair/invocations", json=MOOD, headers={"x-mlops-sticky": "a"})
        client.post("/v1/endpoints/pair/flush")
        status = client.get("/v1/endpoints/pair").json()
        workers = client.get("/health").json()["workers"]["pair"].values()
        assert first.stop(signal.SIGKILL) == -signal.SIGKILL
        assert all(_gone(pid) for pid in workers)
    with running_gateway(tmp_path / "g") as second, second.client() as client:
        after = client.post("/endpoints/pair/invocations", json=MOOD, headers={"x-mlops-sticky": "a"})
        assert (after.status_code, after.content) == (200, before.content)
        assert after.headers["x-mlops-revision"] == before.headers["x-mlops-revision"]
        assert second.wait("pair") == status | {"url": f"{second.url}/endpoints/pair/invocations"}
        figures = client.get("/v1/endpoints/pair/metrics").json()
        assert figures[before.headers["x-mlops-revision"]]["requests"] == 2


def test_sigterm_lets_open_requests_finish_and_writes_the_capture(models: dict[str, Path], tmp_path: Path) -> None:
    """A request that is being answered gets its answer, its row is in parquet, and no worker is left."""
    import pyarrow.parquet as pq

    with running_gateway(tmp_path / "g") as gateway, gateway.client() as client, ThreadPoolExecutor(1) as pool:
        assert gateway.put("moody", "v1", models["moody"])["revisions"][0]["state"] == "ready"
        gateway.shift("moody", v1=100)
        pid = _worker(client, "moody", "v1")
        assert pid is not None
        slow = pool.submit(
            client.post, "/endpoints/moody/invocations", json={"dataframe_records": [{"mood": "sleep 1"}]}
        )
        time.sleep(0.4)
        gateway.stop()
        assert slow.result().json() == {"predictions": [7.0]}
        assert _gone(pid)
    (file,) = (tmp_path / "g" / "capture").rglob("part-*.parquet")
    assert pq.ParquetFile(file).read()["input.mood"].to_pylist() == ["sleep 1"]


def test_nobody_waits_for_ever(client: httpx.Client) -> None:
    """A model that hangs is 504; input that kills its worker is 503; both are errors, and the next request is fine."""

    def status(mood: str) -> int:
        body = {"dataframe_records": [{"mood": mood}]}
        return client.post("/endpoints/moody/invocations", json=body).status_code

    begun = time.time()
    assert [status(mood) for mood in ("sleep 50", "fine", "exit", "fine")] == [504, 200, 503, 200]
    found = client.get("/v1/endpoints/moody/metrics", params={"since": begun}).json()["v1"]
    assert (found["requests"], found["errors"], found["predictions"]) == (4, 2, [4.0, 4.0])


def test_a_gateway_killed_while_it_loads_goes_on_loading(models: dict[str, Path], tmp_path: Path) -> None:
    """Its worker ends in the middle of loading, and after a restart the revision gets ready without another request."""
    held, hold = shutil.copytree(models["moody"], tmp_path / "held"), tmp_path / "hold"
    code = held / "moody.py"
    wait = f"import os, time\nfor _ in range(600):\n    time.sleep(0.05 * os.path.exists({str(hold)!r}))\n"
    code.write_text(wait + code.read_text())
    hold.touch()
    with running_gateway(tmp_path / "g") as first:
        first.begin("e", "v1", held)
        while not (children := _children(first.process.pid)):
            time.sleep(0.05)
        first.stop(signal.SIGKILL)
        assert all(_gone(pid) for pid in children)
    hold.unlink()
    with running_gateway(tmp_path / "g") as second:
        assert second.wait("e")["revisions"][0]["state"] == "ready"


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
