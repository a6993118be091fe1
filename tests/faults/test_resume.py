"""A preempted training goes on from its checkpoint and ends as if nothing had happened; a bug does not go on."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from airflow_mlops.core.errors import JobFailedError
from airflow_mlops.hooks.training import TrainingHook
from airflow_mlops.operators.training import TrainModelOperator
from airflow_mlops.testing.kubernetes import KubernetesFake, kubernetes_fake
from airflow_mlops.testing.kubernetes.trainer import CLUSTER_RUNTIMES, TRAINER_KINDS, training_runtime
from airflow_mlops.testing.task_runner import DagRunMemory, TaskRun, run_task
from airflow_mlops.training.contract import JobState

PROGRAM = str(Path(__file__).with_name("resumable_training.py"))


class Local:
    """This machine: a preemption is its shutdown, which a job's runner hears of."""

    arguments: dict[str, Any] = {"backend": "local", "checkpoint": "kept"}  # noqa: RUF012

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.connection = {"conn_type": "mlops_local", "extra": {"workdir": str(folder), "grace": 0.2}}

    def preempt(self, job: str) -> None:
        """Take the machine away."""
        begun = json.loads((self.folder / job / "started.json").read_text())
        os.kill(begun["runner"]["pid"], signal.SIGTERM)


class Cluster:
    """A Kubernetes cluster: a preemption takes the node away from a job's pod."""

    def __init__(self, fake: KubernetesFake, backend: str) -> None:
        self.fake = fake
        self.arguments = {"backend": backend, "checkpoint": "pvc://kept/here", "image": "python:3.12", "spot": True}
        self.connection = {"conn_type": "kubernetes", "extra": {"kube_config_path": str(fake.kubeconfig)}}

    def preempt(self, job: str) -> None:
        """Take the node away."""
        core = client.CoreV1Api(client.ApiClient(self.fake.configuration()))
        running = core.list_namespaced_pod("default", field_selector="status.phase=Running").items
        names = [pod.metadata.name for pod in running]
        self.fake.preempt(next(name for name in names if name.startswith(job.rpartition("/")[2])))


@pytest.fixture(params=["local", "kubernetes", "kubeflow"])
def platform(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Give each platform in turn, with the connection ``place`` to it."""
    with kubernetes_fake(*TRAINER_KINDS) as fake:
        fake.create(CLUSTER_RUNTIMES, training_runtime())
        found = Local(tmp_path / "jobs") if request.param == "local" else Cluster(fake, request.param)
        monkeypatch.setenv("AIRFLOW_CONN_PLACE", json.dumps(found.connection))
        yield found


def train(platform: Any, command: list[str], **kwargs: Any) -> TrainModelOperator:
    """Return the operator."""
    arguments = {**platform.arguments, "conn_id": "place", "poll_interval": 0.1, "deferrable": False, **kwargs}
    return TrainModelOperator(task_id="train", command=command, **arguments)


def weights(run: TaskRun) -> str:
    """Return the weights that the last attempt printed."""
    assert run.state == "success", run.log
    return re.findall(r"weights ([0-9a-f]+)", run.log)[-1]


def preempting(platform: Any, steps: list[int]) -> Callable[[], None]:
    """Return what preempts the job once it has come as far as each of *steps*."""
    backend = TrainingHook(platform.arguments["backend"], "place").get_backend()

    def reached(handle: Any, step: int) -> bool:
        text, _ = backend.read_log(handle, 0)
        return any(float(found) * 60 >= step for found in re.findall(r"mlops progress (\S+)", text))

    def play() -> None:
        seen: set[str] = set()
        for step in steps:
            while True:
                jobs = [h for h, _ in backend.managed() if h.job_id not in seen]
                running = [h for h, s in backend.observe(jobs).items() if s.state is JobState.RUNNING]
                if running and reached(running[0], step):
                    break
                time.sleep(0.02)
            seen.add(running[0].job_id)
            platform.preempt(running[0].job_id)

    return play


def test_a_preempted_training_ends_with_the_same_weights_bit_for_bit(platform: Any, tmp_path: Path) -> None:
    """Preempted three times at random steps, it ends with the weights of a training that nobody interrupted."""
    seed = random.randrange(1 << 30)
    steps = sorted(random.Random(seed).sample(range(2, 45), 3))
    calm = run_task(train(platform, [sys.executable, PROGRAM, "0"]), memory=DagRunMemory(run_id="calm"))
    memory = DagRunMemory(run_id="stormy")
    storm = threading.Thread(target=preempting(platform, steps), daemon=True)
    storm.start()
    stormy = run_task(train(platform, [sys.executable, PROGRAM, "0.05"]), memory=memory)
    storm.join(1)
    assert weights(stormy) == weights(calm), f"seed {seed}, preempted at {steps}"
    assert stormy.state_store["mlops_training_job"]["preemptions"] == 3
    assert "lives 4 weights" in stormy.log


def test_a_bug_is_not_tried_again(platform: Any, tmp_path: Path) -> None:
    """A program that fails by itself is started once, whatever the task's retries and the platform's own."""
    program = f"open({str(tmp_path / 'marks')!r}, 'a').write('x'); raise KeyError('colour')"
    run = run_task(train(platform, [sys.executable, "-c", program], retries=3))
    assert (run.state, type(run.error)) == ("failed", JobFailedError)
    assert "KeyError: 'colour'" in str(run.error)
    assert len(list(TrainingHook(platform.arguments["backend"], "place").get_backend().managed())) == 1
    assert (tmp_path / "marks").read_text() == "x"
