"""The lock in the registry, with real processes on a real server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import ConflictError
from airflow_mlops.platforms.mlflow import MLflowClient
from airflow_mlops.registry.lock import Lease, alias_lock

CONTENDER = """
import sys, time
from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import ConflictError
from airflow_mlops.platforms.mlflow import MLflowClient
from airflow_mlops.registry.promotion import move_champion
server, model, to, start, rounds = sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]), int(sys.argv[5])
with MLflowClient(ConnectionInfo(host=server)) as client:
    for turn in range(rounds):
        time.sleep(max(0, start + turn * 2 - time.time()))
        try:
            move_champion(client, f"{model}-{turn}", expected="1", to=to)
            print(turn, "won", flush=True)
        except ConflictError:
            print(turn, "lost", flush=True)
"""

HOLDER = """
import sys, time
from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.platforms.mlflow import MLflowClient
from airflow_mlops.registry.lock import alias_lock
with MLflowClient(ConnectionInfo(host=sys.argv[1])) as client, alias_lock(client, sys.argv[2], "champion", lease=8):
    print("held", flush=True)
    time.sleep(60)
"""


def test_six_processes_promote_and_one_wins(client: MLflowClient, mlflow_server: str, name: str) -> None:
    """Of six processes that promote over the same champion at the same moment exactly one wins, in every round."""
    rounds, contenders = 4, 6
    for turn in range(rounds):
        client.create_model(f"{name}-{turn}")
        for number in range(1, contenders + 2):
            client.create_version(f"{name}-{turn}", f"s3://bucket/{number}")
        client.set_alias(f"{name}-{turn}", "champion", "1")
    start = str(time.time() + 3)
    arguments = [[mlflow_server, name, str(number), start, str(rounds)] for number in range(2, contenders + 2)]
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", CONTENDER, *given], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for given in arguments
    ]
    ended = [run.communicate(timeout=120) for run in runs]
    assert [errors for _, errors in ended if errors] == []
    said = Counter(line for said, _ in ended for line in said.splitlines())
    assert said == Counter({f"{t} won": 1 for t in range(rounds)} | {f"{t} lost": 5 for t in range(rounds)})
    for turn in range(rounds):
        aliases = {entry["alias"]: str(entry["version"]) for entry in client.model(f"{name}-{turn}")["aliases"]}
        assert aliases["previous"] == "1"
        assert aliases["champion"] in {"2", "3", "4", "5", "6", "7"}
    assert client.models(f"name LIKE '__lock__.{name}%'") == []


def test_the_lock_of_a_killed_holder_ends_with_its_lease(client: MLflowClient, mlflow_server: str, name: str) -> None:
    """A holder that is killed blocks the others until its lease of eight seconds is over, and no longer."""
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, mlflow_server, name], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait(10)
    with pytest.raises(ConflictError, match="held by somebody else"), alias_lock(client, name, "champion", wait=0.2):
        pytest.fail("the lease was not over")
    began = time.monotonic()
    with alias_lock(client, name, "champion", wait=60):
        assert 0.5 < time.monotonic() - began < 20


def test_a_late_contender_cannot_bury_a_fresh_lock(client: MLflowClient, name: str) -> None:
    """Who read a stale lock long ago and acts on it now cannot take the lock that replaced it."""
    lock = f"__lock__.{name}.champion"
    client.create_model(lock, {"owner": "dead", "expires": "1"})
    with alias_lock(client, name, "champion"):
        with pytest.raises(ConflictError):  # what the late contender does next
            client.rename_model(lock, f"{lock}.stale.dead")
        owner = {tag["key"]: tag["value"] for tag in client.model(lock)["tags"]}["owner"]
        assert owner != "dead"


def test_all_who_find_a_stale_lock_get_it_in_turn(client: MLflowClient, mlflow_server: str, name: str) -> None:
    """Of eight who bury the same stale lock at the same moment nobody fails, and all hold the lock once."""
    lock = f"__lock__.{name}.champion"
    together, held = threading.Barrier(8), []

    def contend(number: int) -> None:
        with MLflowClient(ConnectionInfo(host=mlflow_server)) as own:
            own.model(lock)
            together.wait(30)
            with alias_lock(own, name, "champion"):
                held.append(number)

    for _ in range(4):
        client.create_model(lock, {"owner": uuid.uuid4().hex, "expires": "1"})
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(contend, range(8)))
    assert sorted(held) == sorted([*range(8)] * 4)


def test_a_holder_stops_before_its_lease_ends(client: MLflowClient, name: str) -> None:
    """A holder that was paused for longer than its lease is stopped before it writes, and leaves the lock alone."""
    lock = f"__lock__.{name}.champion"
    with pytest.raises(ConflictError, match="too long"), alias_lock(client, name, "champion", lease=0.5) as lease:
        lease.check()
    assert client.model(lock)["name"] == lock, "a lock that may be somebody else's was deleted"
    Lease(lock, "me", time.time() + 60).check()
