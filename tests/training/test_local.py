"""The local backend's own promises, beyond those that all backends make."""

from __future__ import annotations

import json
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import InvalidSpecError, JobFailedError, NotFoundError, UnsupportedFeatureError
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.training.backends.local import LocalBackend
from airflow_mlops.training.backends.local_folder import STATES, JobFolder
from airflow_mlops.training.contract import JobHandle, JobState, JobStatus, Resources, TrainingSpec

OWNER = TaskIdentity("dag", "run", "train")


@pytest.fixture
def backend(tmp_path: Path) -> LocalBackend:
    """Keep jobs in the test's own folder."""
    return LocalBackend(tmp_path / "jobs", grace=0.5)


def run(backend: LocalBackend, script: str, **fields: Any) -> tuple[JobHandle, JobStatus]:
    """Run a shell script to its end."""
    spec = TrainingSpec(("sh", "-c", script), **fields)
    handle = backend.submit(spec, name="job", owner=OWNER)
    end = time.monotonic() + 20
    while not (status := backend.observe([handle])[handle]).state.terminal:
        assert time.monotonic() < end
        time.sleep(0.02)
    return handle, status


def test_the_report_is_the_result(backend: LocalBackend) -> None:
    """What the program writes to MLOPS_OUTPUT is collected, and how long it had the machine."""
    report = {"model_uri": "models:/m-1", "metrics": {"auc": 1}, "run_id": "r1"}
    handle, status = run(backend, f"sleep 0.3; echo '{json.dumps(report)}' > $MLOPS_OUTPUT")
    result = backend.collect(handle)
    assert (result.model_uri, result.metrics, result.run_id) == ("models:/m-1", {"auc": 1.0}, "r1")
    assert status.billed_seconds == result.billed_seconds
    assert 0.3 <= (result.billed_seconds or 0) < 30


@pytest.mark.parametrize(
    ("report", "word"),
    [
        ("{", "JSON"),
        ("[1]", "object"),
        ('{"metric": {}}', "metrics"),
        ('{"metrics": {"loss": NaN}}', "loss"),
        ('{"metrics": {"loss": "low"}}', "loss"),
        ('{"metrics": {"ok": true}}', "ok"),
        ('{"metrics": 3}', "metrics"),
        ('{"model_uri": 3}', "model_uri"),
    ],
)
def test_a_wrong_report_is_not_read_as_none(report: str, word: str, backend: LocalBackend) -> None:
    """A report that cannot be used fails, with what is wrong and where the file is."""
    handle, status = run(backend, f"echo '{report}' > $MLOPS_OUTPUT")
    assert status.state is JobState.SUCCEEDED
    with pytest.raises(JobFailedError, match=word) as caught:
        backend.collect(handle)
    assert "output.json" in str(caught.value)


def test_a_job_sees_only_what_it_is_given(backend: LocalBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable of the worker reaches a job only if it is harmless, or named by the connection."""
    monkeypatch.setenv("AIRFLOW_CONN_SECRET", "postgres://u:p@h")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "aws")
    monkeypatch.setenv("MY_FLAG", "on")
    backend = LocalBackend.from_connection(
        ConnectionInfo(extra={"workdir": str(backend.workdir), "inherit_env": ["MY_FLAG"]})
    )
    handle, _ = run(backend, "env", env={"PLAIN": "1"})
    seen = dict(line.split("=", 1) for line in backend.read_log(handle, 0)[0].splitlines() if "=" in line)
    assert seen["PATH"]
    assert (seen["MY_FLAG"], seen["PLAIN"], seen["MLOPS_JOB_NAME"]) == ("on", "1", "job")
    assert not {"AIRFLOW_CONN_SECRET", "AWS_SECRET_ACCESS_KEY"} & set(seen)


def test_a_missing_secret_is_named_before_anything_is_written(backend: LocalBackend) -> None:
    """A secret the worker does not have stops the submission, and leaves no job."""
    with pytest.raises(InvalidSpecError, match="NO_SUCH_VARIABLE"):
        run(backend, "true", secret_env={"TOKEN": "NO_SUCH_VARIABLE"})
    assert backend.locate("job") is None


def test_a_jobs_folder_is_its_users_alone(backend: LocalBackend) -> None:
    """Nobody else on the machine can read a job's log."""
    run(backend, "true")
    assert stat.S_IMODE((backend.workdir / "job").stat().st_mode) == 0o700


def test_the_runner_ends_a_job_that_takes_too_long(backend: LocalBackend) -> None:
    """max_runtime needs no worker: the job is ended and the reason told."""
    _, status = run(backend, "echo so far; sleep 60", max_runtime=0.3)
    assert (status.state, status.native) == (JobState.FAILED, "timed_out")
    assert "max_runtime" in status.detail
    assert "so far" in status.detail


def test_a_job_killed_from_outside_is_named_so(backend: LocalBackend) -> None:
    """A signal we did not send is a failure with the signal's name and the usual cause."""
    _, status = run(backend, "kill -9 $$")
    assert (status.state, status.native) == (JobState.FAILED, "killed")
    assert "SIGKILL" in status.detail
    assert "memory" in status.detail


@pytest.mark.parametrize("fields", [{"command": ("no-such-program",)}, {"options": {"cwd": "/no/such/folder"}}])
def test_a_program_that_cannot_start_says_so(fields: dict[str, Any], backend: LocalBackend) -> None:
    """A missing program or folder is a failure with the system's words, not an endless wait."""
    spec = TrainingSpec(**{"command": ("true",), **fields})
    handle = backend.submit(spec, name="job", owner=OWNER)
    while not (status := backend.observe([handle])[handle]).state.terminal:
        time.sleep(0.02)
    assert (status.state, status.native) == (JobState.FAILED, "not_started")
    assert "No such file" in status.detail


def test_a_word_nobody_knows_is_unknown(backend: LocalBackend) -> None:
    """A native word outside the table is UNKNOWN with the word kept, never success."""
    handle, _ = run(backend, "true")
    (backend.workdir / "job" / "exit.json").write_text('{"word": "splendid", "code": 0}')
    assert backend.observe([handle])[handle] == JobStatus(JobState.UNKNOWN, "splendid")
    assert "splendid" not in STATES


def test_a_job_of_another_machine_is_not_absent(backend: LocalBackend) -> None:
    """A triggerer elsewhere must not take a job for lost, which would start it twice."""
    there = JobHandle("local", "job", "file://far.example/jobs/job/log.txt")
    found = backend.observe([there])[there]
    assert found.state is JobState.UNKNOWN
    assert "far.example" in found.detail


@pytest.mark.parametrize("name", ["../evil", "a/b", "", ".hidden"])
def test_a_name_is_a_folder_below_the_jobs(name: str, backend: LocalBackend) -> None:
    """A name that would lead elsewhere is refused."""
    with pytest.raises(InvalidSpecError, match="name"):
        backend.submit(TrainingSpec(("true",)), name=name, owner=OWNER)


@pytest.mark.parametrize(
    "resources", [{"cpus": 4096}, {"memory_mib": 1 << 40}, {"gpus": 64}, {"instance_type": "ml.m5.large"}]
)
def test_resources_this_machine_lacks_are_refused(resources: dict[str, Any], backend: LocalBackend) -> None:
    """A request is met or refused by name, never ignored."""
    with pytest.raises(UnsupportedFeatureError, match=f"resources.{next(iter(resources))}"):
        run(backend, "true", resources=Resources.from_dict(resources))


def test_half_lines_wait_for_their_end(tmp_path: Path) -> None:
    """While a job lives its log is read in whole lines; at its end all of it."""
    folder = JobFolder(tmp_path)
    (tmp_path / "log.txt").write_text("one\ntw")
    assert folder.read_log(0) == ("one\n", 4)
    assert folder.read_log(4) == ("", 4)
    (tmp_path / "exit.json").write_text("{}")
    assert folder.read_log(4) == ("tw", 6)


def test_results_of_a_job_that_is_not_there(backend: LocalBackend) -> None:
    """Collecting an unknown job names the job and the folder."""
    with pytest.raises(NotFoundError, match="nobody"):
        backend.collect(JobHandle("local", "nobody"))


def test_jobs_are_kept_under_airflows_home_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a connection worker and triggerer agree on the folder."""
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    assert LocalBackend.from_connection(ConnectionInfo()).workdir == tmp_path / "mlops" / "jobs"
