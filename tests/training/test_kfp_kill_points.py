"""A worker is killed before and after every single step it takes with a pipeline run; the next one carries on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.testing.kfp import KfpFake, kfp_fake
from airflow_mlops.testing.kfp.pipelines import shell_pipeline
from airflow_mlops.training.driver import JobRecord
from airflow_mlops.training.job import TrainingJob
from airflow_mlops.training.pipelines.contract import PipelineResult, PipelineSpec
from airflow_mlops.training.pipelines.kubeflow import KubeflowPipelines

OWNER = TaskIdentity("dag", "run", "pipe")
STEPS = ("load", "save", "submit", "observe", "cancel", "collect", "locate", "run", "create_run", "terminate")


class KilledError(BaseException):
    """The worker is gone: nothing may catch this."""


class Mortal:
    """Passes calls on and dies before or after one of them."""

    def __init__(self, inner: Any, tick: Callable[[], None]) -> None:
        self._inner, self._tick = inner, tick

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in STEPS:
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self._tick()
            answer = found(*args, **kwargs)
            self._tick()
            return answer

        return call


class Memory:
    """A record that outlives workers."""

    def __init__(self) -> None:
        self.record: JobRecord | None = None
        self.mark = ""

    def load(self) -> JobRecord | None:
        return self.record and replace(self.record, cancelled=self.mark == self.record.name)

    def save(self, record: JobRecord) -> None:
        self.record = record

    def mark_cancelled(self, name: str) -> None:
        self.mark = name

    def show(self, summary: dict[str, Any]) -> None:
        """Nobody looks."""


@pytest.fixture
def server() -> Iterator[KfpFake]:
    """Give a server."""
    with kfp_fake(pending_seconds=0.0) as fake:
        yield fake


def work(server: KfpFake, memory: Memory, script: str, *, generation: int, dies: int = 0) -> Any:
    """Do what one worker does, until it ends or dies at step *dies*."""
    steps = iter(range(1, 1000))

    def tick() -> None:
        if next(steps) == dies:
            raise KilledError

    backend = KubeflowPipelines.from_connection(server.connection())
    backend._client = Mortal(backend._client, tick)
    mortal: Any = Mortal(memory, tick)
    spec = PipelineSpec(shell_pipeline({"only": script}))
    job = TrainingJob(backend, mortal, OWNER, generation, lambda record: spec, say=lambda line: None)
    return job.wait(job.advance(entering=True), 0.05)


def test_killed_at_every_step_one_run_is_started(server: KfpFake) -> None:
    """At whichever step a worker is killed, the next one ends with the result of one single run."""
    number, killed = 0, True
    while killed:
        number += 1
        memory = Memory()
        try:
            work(server, memory, "true", generation=number, dies=number)
        except KilledError:
            pass
        else:
            killed = False
        assert isinstance(work(server, memory, "true", generation=number), PipelineResult)
        assert len(server.runs()) == server.workflows() == number
    assert number > 12
    assert {run["state"] for run in server.runs()} == {"SUCCEEDED"}


@pytest.mark.slow
def test_killed_at_every_step_of_a_clear_the_old_run_ends(server: KfpFake) -> None:
    """At whichever step of a clear a worker is killed, in the end the old run is over and one new one has run."""
    number, killed = 0, True
    while killed:
        number += 2
        memory = Memory()
        with pytest.raises(KilledError):
            work(server, memory, "sleep 60", generation=number, dies=11)
        try:
            work(server, memory, "true", generation=number + 1, dies=number // 2)
        except KilledError:
            pass
        else:
            killed = False
        assert isinstance(work(server, memory, "true", generation=number + 1), PipelineResult)
        assert len(server.runs()) == server.workflows() == number
        end = time.monotonic() + 5
        while server.going():
            assert time.monotonic() < end
            time.sleep(0.01)
    assert number > 24
    assert sorted({run["state"] for run in server.runs()}) == ["FAILED", "SUCCEEDED"]
