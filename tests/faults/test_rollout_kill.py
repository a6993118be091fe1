"""Whoever drives a roll-out may die at any moment: what serves stays whole, and the next try ends it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.deployment.targets.local import LocalTarget
from airflow_mlops.operators.deployment import CanaryRolloutOperator
from airflow_mlops.testing.deployment_target import write_model
from airflow_mlops.testing.gateway import running_gateway
from airflow_mlops.testing.live_requests import live_requests
from airflow_mlops.testing.task_runner import DagRunMemory, run_task

TRIGGERER = """
import json, sys
from airflow_mlops.testing.task_runner import run_trigger
from airflow_mlops.triggers.deployment import CanaryRolloutTrigger
run_trigger(CanaryRolloutTrigger(**json.loads(sys.argv[1])))
"""


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalTarget]:
    """Give a real gateway with an endpoint: v1 serves, v2 is as good, v3 fails half of its requests."""
    models = tmp_path_factory.mktemp("models")
    good, failing = "return list(table['a'])", "if random.random() < 0.5:\n    raise ValueError('no such airport')\n"
    with running_gateway(tmp_path_factory.mktemp("gateway")) as gateway:
        found = LocalTarget(gateway.url)
        for number, code in enumerate((good, good + "  # again", failing + good), 1):
            found.deploy(write_model(models / f"m{number}", code), "fares", revision=f"v{number}")
        yield found


@pytest.fixture
def connected(target: LocalTarget, monkeypatch: pytest.MonkeyPatch) -> LocalTarget:
    """Let gateway_default lead to the gateway, and v1 serve."""
    host, _, port = target.url.removeprefix("http://").partition(":")
    value = json.dumps({"conn_type": "mlops_gateway", "host": host, "port": int(port)})
    monkeypatch.setenv("AIRFLOW_CONN_GATEWAY_DEFAULT", value)
    target.shift("fares", {"v1": 100})
    return target


def canary(revision: str) -> CanaryRolloutOperator:
    """Give a roll-out that is over in seconds."""
    return CanaryRolloutOperator(
        task_id="canary", endpoint="fares", revision=revision, steps=[30, 60, 100], bake=4, max_hold=60,
        min_requests=20, max_latency_ratio=10, poll=0.5, retries=1,
    )  # fmt: skip


def kill_at(target: LocalTarget, trigger: Any, revision: str, percent: float, log: Path) -> None:
    """Run *trigger* in a process of its own and kill it as soon as *revision* has *percent*."""
    arguments = json.dumps(trigger.serialize()[1])
    with log.open("w") as errors:
        process = subprocess.Popen([sys.executable, "-c", TRIGGERER, arguments], stderr=errors, stdout=errors)
    deadline = time.monotonic() + 60
    try:
        while target.status("fares").traffic.get(revision) != percent:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, target.status("fares")
            time.sleep(0.02)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("percent", [30.0, 60.0])
def test_a_killed_driver_loses_no_request_and_the_retry_ends_the_rollout(
    connected: LocalTarget, tmp_path: Path, percent: float
) -> None:
    """The split stays as it was at the moment of death, every request is answered, and the retry goes on from there."""
    memory = DagRunMemory()
    trigger = run_task(canary("v2"), memory=memory, follow=False).trigger
    with live_requests(connected.status("fares").url) as codes:
        kill_at(connected, trigger, "v2", percent, tmp_path / "log")
        assert connected.status("fares").traffic == {"v1": 100 - percent, "v2": percent}
        run = run_task(canary("v2"), memory=memory, try_number=2)
    assert run.state == "success", run.log
    assert run.result["steps"][0]["percent"] == percent
    assert connected.status("fares").traffic == {"v2": 100.0}
    assert set(codes) == {200}


def test_the_retry_after_a_kill_still_takes_a_bad_revision_back(connected: LocalTarget, tmp_path: Path) -> None:
    """The split before the first try is what the second one restores."""
    memory = DagRunMemory()
    trigger = run_task(canary("v3"), memory=memory, follow=False).trigger
    with live_requests(connected.status("fares").url):
        kill_at(connected, trigger, "v3", 30.0, tmp_path / "log")
        run = run_task(canary("v3"), memory=memory, try_number=2)
    assert run.state == "failed", run.log
    assert run.result["decision"] == "rolled_back"
    assert connected.status("fares").traffic == {"v1": 100.0}
