"""Local jobs under fire: workers, runners and jobs are killed, and many submit at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.training.backends import local_runner
from airflow_mlops.training.backends.local import LocalBackend
from airflow_mlops.training.backends.local_folder import JobFolder
from airflow_mlops.training.contract import JobHandle, JobState, TrainingSpec

OWNER = TaskIdentity("faults", "run", "train")

SUBMITTER = """
import json, sys
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.training.backends.local import LocalBackend
from airflow_mlops.training.contract import TrainingSpec
backend = LocalBackend(sys.argv[1])
spec = TrainingSpec.from_dict(json.loads(sys.argv[2]))
print("ready", flush=True)
sys.stdin.readline()
backend.submit(spec, name="job", owner=TaskIdentity("faults", "run", "train"))
print("submitted", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def backend(tmp_path: Path) -> LocalBackend:
    """Keep jobs in the test's own folder."""
    return LocalBackend(tmp_path / "jobs")


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    """Give the file to which each process of the job adds a line."""
    return tmp_path / "marks"


@pytest.fixture
def spec(marks: Path) -> TrainingSpec:
    """Give a job that leaves a mark and works for a second."""
    return TrainingSpec(("sh", "-c", f"echo $$ >> {marks}; sleep 1"))


@pytest.fixture
def submitter(backend: LocalBackend, spec: TrainingSpec) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Start processes that submit the job when told to and then stay."""
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", SUBMITTER, str(backend.workdir), json.dumps(spec.to_dict())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def tell(process: subprocess.Popen[str]) -> None:
    """Let a submitter take its next step."""
    process.stdin.write("\n")
    process.stdin.flush()


def ended(backend: LocalBackend, handle: JobHandle, limit: float = 20) -> JobState:
    """Wait for the end of a job and return its state."""
    end = time.monotonic() + limit
    while not (status := backend.observe([handle])[handle]).state.terminal:
        assert time.monotonic() < end, status
        time.sleep(0.02)
    return status.state


def until(condition: Callable[[], bool], limit: float = 10) -> None:
    """Wait for *condition*."""
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def started(backend: LocalBackend) -> dict:
    """Wait until the job's process runs, and return what its runner wrote down."""
    folder = JobFolder(backend.workdir / "job")
    until(lambda: "job" in (folder.read(local_runner.STARTED) or {}))
    return folder.read(local_runner.STARTED)


def test_a_job_outlives_a_killed_worker_and_is_adopted(backend, spec, marks, submitter) -> None:
    """After kill -9 of the worker and its whole process group, another process adopts the job, which ran once."""
    worker = submitter()
    tell(worker)
    assert worker.stdout.readline() == "submitted\n"
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    handle = backend.submit(spec, name="job", owner=OWNER)
    assert backend.observe([handle])[handle].state in (JobState.PENDING, JobState.RUNNING)
    assert ended(backend, handle) is JobState.SUCCEEDED
    assert len(marks.read_text().splitlines()) == 1


@pytest.mark.parametrize("delay", [0.0, 0.002, 0.005, 0.01, 0.02, 0.04])
def test_killed_at_any_moment_of_a_submission_one_job_runs(delay, backend, spec, marks, submitter) -> None:
    """Whenever kill -9 hits a submission, the next one of the same name ends with exactly one process."""
    worker = submitter()
    tell(worker)
    time.sleep(delay)
    os.killpg(worker.pid, signal.SIGKILL)
    handle = backend.submit(spec, name="job", owner=OWNER)
    assert ended(backend, handle) is JobState.SUCCEEDED
    assert len(marks.read_text().splitlines()) == 1


@pytest.mark.parametrize("file", ["nothing", local_runner.JOB])
def test_an_accepted_job_is_taken_on_by_the_next_submission(file, backend, spec, marks) -> None:
    """A worker that died before the job file, or between it and the runner, leaves nothing that must be repaired."""
    folder = backend.workdir / "job"
    folder.mkdir(parents=True)
    if file == local_runner.JOB:
        local_runner.write(folder / file, backend._job(spec, "job", OWNER))
        found = backend.locate("job")
        assert backend.observe([found])[found].native == "accepted"
    assert ended(backend, backend.submit(spec, name="job", owner=OWNER)) is JobState.SUCCEEDED
    assert len(marks.read_text().splitlines()) == 1


def test_eight_submissions_at_once_start_one_job(backend, spec, marks, submitter) -> None:
    """Eight processes that submit the same name at the same time start one process."""
    with ThreadPoolExecutor(8) as pool:
        workers = list(pool.map(lambda _: submitter(), range(8)))
        for worker in workers:
            tell(worker)
        assert set(pool.map(lambda worker: worker.stdout.readline(), workers)) == {"submitted\n"}
    assert ended(backend, backend.locate("job")) is JobState.SUCCEEDED
    assert len(marks.read_text().splitlines()) == 1


def test_a_job_that_was_begun_is_never_begun_again(backend, spec, marks) -> None:
    """A runner that was killed before it started the program leaves a job that failed, not one that may run twice."""
    folder = backend.workdir / "job"
    folder.mkdir(parents=True)
    local_runner.write(folder / local_runner.JOB, backend._job(spec, "job", OWNER))
    begun = {"host": "h", "boot": local_runner.boot_id(), "began": 0.0, "runner": {"pid": 1, "ticks": "0"}}
    local_runner.write(folder / local_runner.STARTED, begun)
    subprocess.run([sys.executable, "-I", "-S", local_runner.__file__, str(folder)], check=True)
    time.sleep(0.5)
    assert backend.observe([found := backend.locate("job")])[found].native == "vanished"
    assert not marks.exists()


def test_two_runners_of_one_job_start_one_process(backend, marks) -> None:
    """Even runners that were started side by side, past the submission's own lock, run the job once."""
    spec = TrainingSpec(("sh", "-c", f"echo $$ >> {marks}; sleep 3"))
    folder = backend.workdir / "job"
    folder.mkdir(parents=True)
    local_runner.write(folder / local_runner.JOB, backend._job(spec, "job", OWNER))
    command = [sys.executable, "-I", "-S", local_runner.__file__, str(folder)]
    runners = [subprocess.Popen(command) for _ in range(6)]
    assert [runner.wait() for runner in runners] == [0] * 6
    until(lambda: JobFolder(folder).begun())
    assert ended(backend, backend.locate("job")) is JobState.SUCCEEDED
    assert len(marks.read_text().splitlines()) == 1


def test_a_killed_runner_leaves_a_running_job_running(backend, spec, marks) -> None:
    """While the job lives it is RUNNING, even if its runner was killed; at its end nobody knows the exit code."""
    handle = backend.submit(spec, name="job", owner=OWNER)
    os.kill(started(backend)["runner"]["pid"], signal.SIGKILL)
    time.sleep(0.2)
    assert backend.observe([handle])[handle].state is JobState.RUNNING
    assert ended(backend, handle) is JobState.FAILED
    status = backend.observe([handle])[handle]
    assert (status.native, "no exit code" in status.detail) == ("vanished", True)
    assert backend.submit(spec, name="job", owner=OWNER) == handle
    assert len(marks.read_text().splitlines()) == 1


def test_a_job_without_its_runner_can_be_cancelled(backend, marks) -> None:
    """Cancelling ends a job whose runner was killed."""
    spec = TrainingSpec(("sleep", "60"))
    handle = backend.submit(spec, name="job", owner=OWNER)
    processes = started(backend)
    os.kill(processes["runner"]["pid"], signal.SIGKILL)
    until(lambda: not local_runner.start_ticks(processes["runner"]["pid"]))
    backend.cancel(handle)
    assert ended(backend, handle) is JobState.CANCELLED
    assert not local_runner.start_ticks(processes["job"]["pid"])


def test_a_process_with_a_reused_id_is_not_signalled(backend, spec) -> None:
    """A process that merely has the id of a dead job's process is left alone."""
    handle = backend.submit(spec, name="job", owner=OWNER)
    record = started(backend)
    ended(backend, handle)
    until(lambda: not local_runner.start_ticks(record["runner"]["pid"]))
    stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        folder = backend.workdir / "job"
        (folder / local_runner.EXIT).unlink()
        reused = {"pid": stranger.pid, "ticks": "1"}
        local_runner.write(folder / local_runner.STARTED, {**record, "job": reused})
        JobFolder(folder).end_orphan()
        time.sleep(0.1)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_cancel_ends_all_that_the_job_started(backend, tmp_path) -> None:
    """A child of the job that ignores the request to end is ended by force with the whole process group."""
    pids = tmp_path / "pids"
    script = f"trap '' TERM; sh -c \"trap '' TERM; echo \\$\\$ >> {pids}; while :; do sleep 0.1; done\" & wait"
    local = LocalBackend(tmp_path / "jobs", grace=0.5)
    handle = local.submit(TrainingSpec(("sh", "-c", script)), name="job", owner=OWNER)
    until(pids.exists)
    began = time.monotonic()
    local.cancel(handle)
    assert ended(local, handle) is JobState.CANCELLED
    assert time.monotonic() - began >= 0.5
    until(lambda: not local_runner.start_ticks(int(pids.read_text())))


def test_a_job_that_ends_in_peace_when_asked_is_not_forced(backend, tmp_path) -> None:
    """A job has time to tidy up after it was asked to end."""
    tidy = tmp_path / "tidy"
    script = f"trap 'sleep 0.3; echo done > {tidy}; exit 0' TERM; while :; do sleep 0.05; done"
    handle = backend.submit(TrainingSpec(("sh", "-c", script)), name="job", owner=OWNER)
    started(backend)
    time.sleep(0.1)
    backend.cancel(handle)
    assert ended(backend, handle) is JobState.CANCELLED
    assert tidy.read_text() == "done\n"


def test_a_restart_of_the_machine_is_a_preemption(backend, spec) -> None:
    """A job that was running when the machine was restarted is PREEMPTED; on another machine it is UNKNOWN."""
    handle = backend.submit(spec, name="job", owner=OWNER)
    record = started(backend)
    ended(backend, handle)
    folder = backend.workdir / "job"
    until(lambda: not JobFolder(folder).alive())
    (folder / local_runner.EXIT).unlink()
    local_runner.write(folder / local_runner.STARTED, {**record, "boot": "another"})
    assert backend.observe([handle])[handle].state is JobState.PREEMPTED
    local_runner.write(folder / local_runner.STARTED, {**record, "boot": "another", "host": "elsewhere.example"})
    assert backend.observe([handle])[handle].state is JobState.UNKNOWN


def test_a_shutdown_of_the_machine_is_a_preemption(backend) -> None:
    """A runner that is asked to end with its machine ends the job, which is PREEMPTED and not failed."""
    handle = backend.submit(TrainingSpec(("sleep", "60")), name="job", owner=OWNER)
    os.kill(started(backend)["runner"]["pid"], signal.SIGTERM)
    assert ended(backend, handle) is JobState.PREEMPTED
