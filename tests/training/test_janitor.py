"""Which jobs the janitor stops: decided on what Airflow and the platforms say, and carried out on real local jobs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.core.errors import PlatformUnavailableError
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.training.backends.local import LocalBackend
from airflow_mlops.training.contract import JobHandle, JobState, TrainingSpec
from airflow_mlops.training.janitor import ABSENT, ENDED, RUNS, OwnedJob, Question, orphans, questions, task_states
from airflow_mlops.training.patrol import Patrol

WAITING = ("running", "deferred", "up_for_retry", "up_for_reschedule", "queued", "scheduled", "restarting", None)
WORDS = st.sampled_from([*WAITING, *sorted(ENDED), "awaiting_input", "a word of Airflow 4"])
NAMES = st.sampled_from(["train", "train_1", "train_1_2", "other"])
OWNERS = st.builds(
    TaskIdentity,
    dag_id=st.sampled_from(["a", "b"]),
    run_id=st.sampled_from(["r1", "r2"]),
    task_id=NAMES,
    map_index=st.integers(-1, 2),
    deployment_id=st.sampled_from(["", "prod"]),
)
JOBS = st.builds(
    OwnedJob,
    place=st.sampled_from(["local", "kubernetes:k8s"]),
    job=st.builds(JobHandle, backend=st.just("local"), job_id=st.integers(0, 20).map(str)),
    owner=OWNERS,
)


STATES = st.one_of(WORDS, st.just(ABSENT))


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[OwnedJob], dict[TaskIdentity, str | None], dict[TaskIdentity, str | None]]:
    """Draw active jobs and what Airflow says about the tasks of most of them, now and later."""
    active = draw(st.lists(JOBS, max_size=8))
    owners = [job.owner for job in active if draw(st.integers(0, 5))]
    return active, {owner: draw(STATES) for owner in owners}, {owner: draw(STATES) for owner in owners}


class Airflow:
    """Answers questions as Airflow's server does, for one deployment, and counts them."""

    def __init__(self, instances: dict[TaskIdentity, str | None]) -> None:
        self.instances, self.asked = instances, list[Question]()

    def __call__(self, question: Question) -> dict[str, dict[str, Any]]:
        self.asked.append(question)
        found: dict[str, dict[str, Any]] = {}
        for ti, state in self.instances.items():
            if (ti.dag_id, ti.task_id) == (question.dag_id, question.task_id) and ti.run_id in question.run_ids:
                key = ti.task_id if ti.map_index < 0 else f"{ti.task_id}_{ti.map_index}"
                found.setdefault(ti.run_id, {})[key] = state
        return found


@given(st.dictionaries(OWNERS, WORDS), st.sets(OWNERS))
def test_each_owner_gets_the_state_of_its_own_instance(
    instances: dict[TaskIdentity, str | None], others: set[TaskIdentity]
) -> None:
    """No task gets the answer of another one, even if a task is called as an instance of a mapped one is shown."""
    one = {TaskIdentity(ti.dag_id, ti.run_id, ti.task_id, ti.map_index): state for ti, state in instances.items()}
    bare = {TaskIdentity(ti.dag_id, ti.run_id, ti.task_id, ti.map_index) for ti in others}
    found = task_states(set(one) | bare, Airflow(one))
    assert found == {owner: one.get(owner, ABSENT) for owner in set(one) | bare}


def test_questions_are_batched() -> None:
    """A thousand instances of a mapped task are one question, and runs are asked for fifty at a time."""
    mapped = [TaskIdentity("a", "r", "train", index) for index in range(1000)]
    assert list(questions(mapped)) == [Question("a", "train", ("r",))]
    runs = [TaskIdentity("a", f"r{number:03}", "train") for number in range(2 * RUNS + 1)]
    assert [len(question.run_ids) for question in questions(runs)] == [RUNS, RUNS, 1]


@given(worlds(), st.sampled_from(["", "prod"]))
def test_only_own_jobs_of_ended_or_absent_tasks_are_orphans(world: Any, me: str) -> None:
    """Another Airflow's job, one whose task waits and one that was not asked about are no orphans; all others are."""
    active, states, _ = world
    expected = [job for job in active if job.owner.deployment_id == me and states.get(job.owner) in {*ENDED, ABSENT}]
    found = orphans(active, states, deployment_id=me)
    assert [replace(orphan, task_state=None) for orphan in found] == expected
    assert all(orphan.task_state == states[orphan.owner] for orphan in found)


@given(worlds(), st.integers(0, 8))
def test_a_job_must_be_an_orphan_twice(world: Any, started_later: int) -> None:
    """What the second look finds was active in the first one, and its task had ended or was absent both times."""
    active, now, later = world
    suspects = orphans(active[started_later:], now, deployment_id="")
    seen = {(job.place, job.job.job_id) for job in suspects}
    found = orphans(active, later, deployment_id="", suspected=seen)
    assert {(orphan.place, orphan.job.job_id) for orphan in found} <= seen
    assert all(later[orphan.owner] in {*ENDED, ABSENT} for orphan in found)
    assert len(found) == sum(
        (job.place, job.job.job_id) in seen
        and job.owner.deployment_id == ""
        and later.get(job.owner) in {*ENDED, ABSENT}
        for job in active
    )


@pytest.mark.parametrize("state", WAITING)
def test_a_task_that_waits_or_was_cleared_keeps_its_job(state: str | None) -> None:
    """In none of the states in which a task will look after its job itself is the job an orphan."""
    owner = TaskIdentity("a", "r", "train")
    assert orphans([OwnedJob("local", JobHandle("local", "1"), owner)], {owner: state}, deployment_id="") == ()


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[LocalBackend]:
    """Keep jobs in the test's own folder, and leave none running."""
    found = LocalBackend(tmp_path / "jobs", grace=0.3)
    yield found
    for handle, _ in found.managed():
        found.cancel(handle)


def start(backend: LocalBackend, name: str, owner: TaskIdentity, script: str = "sleep 60") -> JobHandle:
    """Start a job and wait until it runs."""
    handle = backend.submit(TrainingSpec(("sh", "-c", script)), name=name, owner=owner)
    end = time.monotonic() + 10
    while backend.observe([handle])[handle].state is JobState.PENDING:
        assert time.monotonic() < end
        time.sleep(0.02)
    return handle


class Down:
    """A platform that does not answer."""

    def managed(self) -> Iterator[Any]:
        raise PlatformUnavailableError("nobody home")


def test_a_place_that_is_down_does_not_keep_others_from_being_swept(backend: LocalBackend) -> None:
    """The orphan is found and stopped for certain; the other place is named with its reason, not counted as empty."""
    lost, kept = TaskIdentity("a", "r", "lost"), TaskIdentity("a", "r", "kept")
    foreign = TaskIdentity("a", "r", "lost", deployment_id="staging")
    handles = [start(backend, task.task_id + task.deployment_id, task) for task in (lost, kept, foreign)]
    patrol = Patrol({"down": Down, "local": lambda: backend}, Airflow({lost: "failed", kept: "deferred"}), "")
    look = patrol.look()
    assert (look.checked, look.active, look.unreachable) == (3, 2, {"down": "nobody home"})
    assert [(found.job, found.task_state) for found in look.orphans] == [(handles[0], "failed")]
    stopped = patrol.stop(look.orphans, limit=10, interval=0.05)
    assert ([found.job for found in stopped.cancelled], stopped.still_active) == ([handles[0]], ())
    states = backend.observe(handles)
    assert [states[handle].state for handle in handles] == [JobState.CANCELLED, JobState.RUNNING, JobState.RUNNING]


def test_a_job_that_does_not_end_is_reported_as_active(tmp_path: Path) -> None:
    """Ordering the end is not enough: a job that ignores it is reported with the platform's word for it."""
    backend = LocalBackend(tmp_path / "jobs", grace=30)
    handle = start(backend, "stubborn", TaskIdentity("a", "r", "gone"), "trap '' TERM; sleep 60 & wait; sleep 60")
    try:
        patrol = Patrol({"local": lambda: backend}, Airflow({}), "")
        stopped = patrol.stop(patrol.look().orphans, limit=0.5, interval=0.1)
        assert stopped.cancelled == ()
        assert [(found.job, why) for found, why in stopped.still_active] == [(handle, "running")]
    finally:
        kill(backend, handle)


def kill(backend: LocalBackend, handle: JobHandle) -> None:
    """End a job by force."""
    import os
    import signal

    from airflow_mlops.training.backends.local_folder import JobFolder

    started = JobFolder(backend.workdir / handle.job_id).read("started.json")
    assert started is not None
    os.killpg(started["job"]["pid"], signal.SIGKILL)
