"""CancelOrphanedJobsOperator with Airflow's real task runner and real local jobs."""

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

from airflow_mlops.core.errors import InvalidSpecError, PlatformUnavailableError
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.hooks.training import TrainingHook
from airflow_mlops.operators.janitor import CancelOrphanedJobsOperator
from airflow_mlops.operators.training import TrainModelOperator
from airflow_mlops.testing.task_runner import DagRunMemory, TaskRun, run_task
from airflow_mlops.training.contract import JobHandle, JobState, TrainingSpec

LOCAL = {"backend": "local", "conn_id": "local_jobs"}
PLACE = "local:local_jobs"


@pytest.fixture(autouse=True)
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give each test a folder of jobs of its own, and leave none running."""
    connection = {"conn_type": "mlops_local", "extra": {"workdir": str(tmp_path / "jobs"), "grace": 0.3}}
    monkeypatch.setenv("AIRFLOW_CONN_LOCAL_JOBS", json.dumps(connection))
    yield tmp_path / "jobs"
    backend = TrainingHook("local", "local_jobs").get_backend()
    for handle, _ in backend.managed():
        backend.cancel(handle)


def start(owner: TaskIdentity, name: str = "", script: str = "sleep 60") -> JobHandle:
    """Start the job of a task."""
    backend = TrainingHook("local", "local_jobs").get_backend()
    return backend.submit(TrainingSpec(("sh", "-c", script)), name=name or owner.task_id, owner=owner)


def state(handle: JobHandle) -> JobState:
    """Look at a job."""
    return TrainingHook("local", "local_jobs").get_backend().observe([handle])[handle].state


def task(**kwargs: Any) -> CancelOrphanedJobsOperator:
    """Return a janitor with little patience."""
    arguments = {"task_id": "sweep", "backends": [LOCAL], "patience": 1, "poll_interval": 0.1, "stop_limit": 10}
    return CancelOrphanedJobsOperator(**{**arguments, **kwargs})


def sweep(states: dict[str, str | None] | None = None, **kwargs: Any) -> TaskRun:
    """Run the janitor in an Airflow that has these tasks, by their ids."""
    return run_task(task(**kwargs), memory=airflow(states or {}))


def airflow(states: dict[str, str | None]) -> DagRunMemory:
    """Return an Airflow with one run of the DAG ``jobs``."""
    return DagRunMemory(task_states={("jobs", "r1", task_id, -1): state for task_id, state in states.items()})


def owner(task_id: str, **kwargs: Any) -> TaskIdentity:
    """Return a task of that run."""
    return TaskIdentity("jobs", "r1", task_id, **kwargs)


WORKER = """
from airflow_mlops.operators.training import TrainModelOperator
from airflow_mlops.testing.task_runner import DagRunMemory, run_task
task = TrainModelOperator(task_id="train", conn_id="local_jobs", command="sleep 60", deferrable=False, retries=0,
                          poll_interval=0.1)
run_task(task, memory=DagRunMemory(dag_id="jobs", run_id="r1"))
"""


def test_the_job_of_a_killed_worker_without_retries_is_stopped(jobs: Path) -> None:
    """After kill -9 of a worker on its last try nobody would stop its job: the janitor does, and says whose it was."""
    backend = TrainingHook("local", "local_jobs").get_backend()
    worker = subprocess.Popen([sys.executable, "-c", WORKER], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while not any(status.state is JobState.RUNNING for status in looks(backend)):
            assert (worker.poll(), time.monotonic() < end) == (None, True)
            time.sleep(0.1)
    finally:
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
    assert [status.state for status in looks(backend)] == [JobState.RUNNING]
    run = sweep({"train": "failed"})  # what Airflow makes of a task without a heartbeat and without retries
    assert (run.state, run.deferrals) == ("success", 1)
    (gone,) = run.result["cancelled"]
    assert (gone["place"], gone["owner"]["task_id"], gone["task_state"]) == (PLACE, "train", "failed")
    assert [status.state for status in looks(backend)] == [JobState.CANCELLED]


def looks(backend: Any) -> list[Any]:
    """Return the status of every job."""
    return list(backend.observe([handle for handle, _ in backend.managed()]).values())


def test_nothing_suspicious_is_not_waited_for() -> None:
    """Jobs of tasks that wait and jobs that are over go on as they are, and the task ends at once."""
    kept, over = start(owner("kept")), start(owner("over"), script="true")
    while not state(over).terminal:
        time.sleep(0.02)
    run = sweep({"kept": "deferred"})
    assert (run.state, run.deferrals) == ("success", 0)
    assert run.result == {
        "checked": 2,
        "active": 1,
        "cancelled": [],
        "would_cancel": [],
        "still_active": [],
        "unreachable": {},
    }
    assert state(kept) is JobState.RUNNING


def test_a_task_that_comes_back_in_time_keeps_its_job() -> None:
    """A suspect whose task was cleared before the second look goes on, and so does a job started in between."""
    handle, memory = start(owner("train")), airflow({"train": "failed"})
    first = run_task(task(), memory=memory, follow=False)
    assert first.state == "deferred"
    memory.task_states["jobs", "r1", "train", -1] = None
    late = start(owner("late"))
    run = run_task(task(), memory=memory, resume=first, event={})
    assert (run.state, run.result["cancelled"]) == ("success", [])
    assert (state(handle), state(late)) == (JobState.RUNNING, JobState.RUNNING)


def test_mapped_tasks_and_deleted_runs() -> None:
    """One instance of a mapped task is told from the other, and a job whose run Airflow no longer has is an orphan."""
    ended, waits = (start(owner("train", map_index=index), f"train{index}") for index in (0, 1))
    deleted = start(TaskIdentity("deleted", "r0", "train"), "deleted")
    memory = DagRunMemory(task_states={("jobs", "r1", "train", 0): "success", ("jobs", "r1", "train", 1): "running"})
    run = run_task(task(), memory=memory)
    assert {found["job"]["job_id"]: found["task_state"] for found in run.result["cancelled"]} == {
        "train0": "success",
        "deleted": "absent",
    }
    states = [state(handle) for handle in (ended, waits, deleted)]
    assert states == [JobState.CANCELLED, JobState.RUNNING, JobState.CANCELLED]


def test_another_airflow_s_jobs_are_never_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two deployments share a place: each one's janitor stops only what the operator of its own deployment started."""
    handles = {}
    for name in ("prod", "staging", ""):
        monkeypatch.setenv("AIRFLOW__MLOPS__DEPLOYMENT_ID", name)
        train = TrainModelOperator(task_id="train", conn_id="local_jobs", command="sleep 60")
        started = run_task(train, memory=DagRunMemory(dag_id="jobs", run_id="r1"), follow=False)
        handles[name] = JobHandle.from_dict(started.trigger.job)
    assert len(set(handles.values())) == 3
    monkeypatch.setenv("AIRFLOW__MLOPS__DEPLOYMENT_ID", "prod")
    run = sweep({"train": "failed"})
    assert (run.result["checked"], run.result["active"]) == (3, 1)
    assert [found["owner"]["deployment_id"] for found in run.result["cancelled"]] == ["prod"]
    states = {name: state(handle) for name, handle in handles.items()}
    assert states == {"prod": JobState.CANCELLED, "staging": JobState.RUNNING, "": JobState.RUNNING}


def test_a_report_alone_stops_nothing() -> None:
    """With report_only the same jobs are found, and they go on."""
    handle = start(owner("train"))
    run = sweep(report_only=True)
    assert [found["job"]["job_id"] for found in run.result["would_cancel"]] == [handle.job_id]
    assert (run.result["cancelled"], state(handle)) == ([], JobState.RUNNING)


def test_a_place_that_cannot_be_looked_at_fails_the_task_after_the_others_are_swept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The orphan elsewhere is stopped, then the task fails with the names of the places and is tried again."""
    monkeypatch.setenv("AIRFLOW__MLOPS__DEPLOYMENT_ID", "prod")
    handle = start(owner("train", deployment_id="prod"))
    run = sweep(backends=[{"backend": "nowhere"}, {"backend": "local", "conn_id": "no_such"}, LOCAL], retries=1)
    assert (run.state, type(run.error)) == ("up_for_retry", PlatformUnavailableError)
    assert all(part in str(run.error) for part in ("'nowhere'", "'no_such'", "could not be looked at"))
    assert set(run.result["unreachable"]) == {"nowhere", "local:no_such"}
    assert [found["job"]["job_id"] for found in run.result["cancelled"]] == [handle.job_id]
    assert state(handle) is JobState.CANCELLED


def test_a_job_that_does_not_end_fails_the_task(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The task is not green as long as a job that should be over is active: it names the job."""
    connection = {"conn_type": "mlops_local", "extra": {"workdir": str(tmp_path / "jobs"), "grace": 2}}
    monkeypatch.setenv("AIRFLOW_CONN_LOCAL_JOBS", json.dumps(connection))
    handle = start(owner("train"), script="trap '' TERM; while true; do sleep 0.2; done")
    time.sleep(0.3)
    run = sweep(stop_limit=0.5)
    assert (run.state, type(run.error)) == ("failed", PlatformUnavailableError)
    assert f"job '{handle.job_id}' at {PLACE}" in str(run.error)
    assert [found["job"]["job_id"] for found in run.result["still_active"]] == [handle.job_id]


def test_airflow_s_silence_is_not_absence(monkeypatch: pytest.MonkeyPatch) -> None:
    """When Airflow cannot say what became of the task, the janitor fails and the job goes on."""
    handle = start(owner("train"))
    from airflow_mlops.testing.execution_api import ExecutionApi

    monkeypatch.setattr(ExecutionApi, "__call__", refuse_states(ExecutionApi.__call__))
    run = sweep()
    assert (run.state, run.deferrals, state(handle)) == ("failed", 0, JobState.RUNNING)


def refuse_states(answer: Any) -> Any:
    """Return an Execution API that fails when it is asked for states."""
    import httpx

    def call(self: Any, request: Any) -> Any:
        broken = request.url.path.endswith("task-instances/states")
        return httpx.Response(500, json={"detail": "no database"}) if broken else answer(self, request)

    return call


@pytest.mark.parametrize(
    "backends",
    ["local", [{"conn_id": "x"}], [{"backend": "local", "connection": "x"}], [{"backend": "local", "kind": "serving"}]],
)
def test_wrong_backends_are_refused(backends: Any) -> None:
    """An entry that is not understood is shown; it is not skipped."""
    run = sweep(backends=backends, retries=1)
    assert (run.state, type(run.error)) == ("failed", InvalidSpecError)
    assert "backends holds" in str(run.error)


def test_pipeline_backends_are_places_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A platform that runs pipelines is looked at through its own connection; if it is down it is named."""
    monkeypatch.setenv("AIRFLOW__MLOPS__DEPLOYMENT_ID", "prod")
    monkeypatch.setenv(
        "AIRFLOW_CONN_KFP", json.dumps({"conn_type": "kubeflow_pipelines", "host": "http://127.0.0.1:9"})
    )
    run = sweep(backends=[{"kind": "pipeline", "backend": "kubeflow", "conn_id": "kfp"}, LOCAL])
    assert (run.state, type(run.error)) == ("failed", PlatformUnavailableError)
    assert set(run.result["unreachable"]) == {"pipeline:kubeflow:kfp"}


def test_an_airflow_without_a_name_looks_at_no_shared_platform() -> None:
    """Without a deployment_id its jobs could be another Airflow's: it says what to set and asks no platform."""
    run = sweep(backends=[LOCAL, {"backend": "kubernetes", "conn_id": "nowhere"}])
    assert run.state == "failed"
    assert isinstance(run.error, InvalidSpecError)
    assert "AIRFLOW__MLOPS__DEPLOYMENT_ID" in str(run.error)
