"""A worker is killed before and after every single step it takes with a job; the next one carries on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.training.backends.local import LocalBackend
from airflow_mlops.training.contract import JobState, TrainingResult, TrainingSpec
from airflow_mlops.training.driver import JobRecord
from airflow_mlops.training.job import TrainingJob

OWNER = TaskIdentity("faults", "run", "train")
STEPS = ("load", "save", "submit", "observe", "cancel", "collect", "locate")


class Killed(BaseException):
    """The worker is gone: nothing may catch this."""


class Mortal:
    """Passes calls on and dies at one of them."""

    def __init__(self, inner: Any, clock: Clock) -> None:
        self._inner, self._clock = inner, clock

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in STEPS:
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self._clock.tick()
            answer = found(*args, **kwargs)
            self._clock.tick()
            return answer

        return call


class Clock:
    """Counts steps and kills at one of them."""

    def __init__(self, end: int) -> None:
        self.end, self.now = end, 0

    def tick(self) -> None:
        self.now += 1
        if self.now == self.end:
            raise Killed


class Memory:
    """A record that outlives workers, as a dict, like the state store."""

    def __init__(self) -> None:
        self.record: dict[str, Any] | None = None
        self.mark = ""

    def load(self) -> JobRecord | None:
        if self.record is None:
            return None
        return JobRecord.from_dict({**self.record, "cancelled": self.mark == self.record["name"]})

    def save(self, record: JobRecord) -> None:
        self.record = record.to_dict()

    def mark_cancelled(self, name: str) -> None:
        self.mark = name

    def show(self, summary: dict[str, Any]) -> None:
        pass


@pytest.fixture
def backend(tmp_path: Path) -> LocalBackend:
    """Keep jobs in the test's own folder."""
    return LocalBackend(tmp_path / "jobs", grace=0.5)


def work(backend: LocalBackend, memory: Memory, clock: Clock, script: str, generation: int = 0) -> Any:
    """Do what one worker does, until it ends or dies."""
    spec = TrainingSpec(("sh", "-c", script))
    mortal: Any = Mortal(backend, clock)
    job = TrainingJob(mortal, Mortal(memory, clock), OWNER, generation, lambda record: spec, say=lambda line: None)
    return job.wait(job.advance(entering=True), 0.15)


def deaths(run: Any) -> int:
    """Let *run(clock)* die at its first step, then at its second and so on; return at how many it can die."""
    end = 1
    while True:
        try:
            run(Clock(end))
        except Killed:
            end += 1
        else:
            return end - 1


@pytest.mark.parametrize("seconds", [0, 0.2])
def test_killed_at_every_step_one_job_runs(seconds: float, backend: LocalBackend, tmp_path: Path) -> None:
    """At whichever step a worker is killed, the next one ends with the result of one single process."""
    marks = tmp_path / "marks"
    number = 0

    def once(clock: Clock) -> None:
        nonlocal number
        number += 1
        memory, script = Memory(), f"echo {number} >> {marks}; sleep {seconds}"
        try:
            work(backend, memory, clock, script, generation=number)
        finally:
            found = work(backend, memory, Clock(0), script, generation=number)
            assert isinstance(found, TrainingResult)

    assert deaths(once) >= 12
    assert marks.read_text().split() == [str(i + 1) for i in range(number)]


def test_killed_at_every_step_and_cleared_no_job_is_left_behind(backend: LocalBackend) -> None:
    """Also a job that was submitted and not yet recorded as such is ended when its task is cleared."""
    for end in range(1, 11):
        memory = Memory()
        with pytest.raises(Killed):
            work(backend, memory, Clock(end), "sleep 60", generation=2 * end)
        assert isinstance(work(backend, memory, Clock(0), "true", generation=2 * end + 1), TrainingResult)
        states = [status.state for status in backend.observe([handle for handle, _ in backend.managed()]).values()]
        assert set(states) <= {JobState.CANCELLED, JobState.SUCCEEDED}
    assert JobState.CANCELLED in states


@pytest.mark.slow
def test_killed_at_every_step_of_a_clear_the_old_job_ends_first(backend: LocalBackend, tmp_path: Path) -> None:
    """At whichever step of a restart a worker is killed, in the end the old job is over and one new one has run."""
    marks = tmp_path / "marks"
    number = 0

    def once(clock: Clock) -> None:
        nonlocal number
        number += 2
        memory = Memory()
        with pytest.raises(Killed):
            work(backend, memory, Clock(9), f"echo old {number} >> {marks}; sleep 60", generation=number)
        new = f"echo new {number} >> {marks}"
        try:
            work(backend, memory, clock, new, generation=number + 1)
        finally:
            found = work(backend, memory, Clock(0), new, generation=number + 1)
            assert isinstance(found, TrainingResult)
            states = backend.observe([handle for handle, _ in backend.managed()]).values()
            assert {status.state for status in states} == {JobState.CANCELLED, JobState.SUCCEEDED}

    assert deaths(once) >= 12
    lines = marks.read_text().splitlines()
    assert [line for line in lines if line.startswith("new")] == [f"new {i}" for i in range(2, number + 1, 2)]
