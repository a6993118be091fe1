"""The training contract, kept by ``nohup``: the suite that every backend inherits, and one task that runs on it."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from airflow_mlops.hooks.training import TrainingHook
from airflow_mlops.operators.training import TrainModelOperator
from airflow_mlops.testing.job_backend import OWNER
from airflow_mlops.testing.task_runner import run_task
from airflow_mlops.testing.training_backend import TrainingBackendContract
from airflow_mlops.training.contract import FailureReason, JobState, TrainingBackend


class TestNohup(TrainingBackendContract):
    """Jobs are folders of this machine."""

    tells_reasons = True

    @pytest.fixture
    def backend(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainingBackend:
        """Get it by its name, as a task does."""
        connection = {"conn_type": "generic", "extra": {"folder": str(tmp_path / "jobs")}}
        monkeypatch.setenv("AIRFLOW_CONN_NOHUP", json.dumps(connection))
        return TrainingHook("nohup", "nohup").get_backend()

    def test_the_operator_runs_on_it(self, backend: TrainingBackend) -> None:
        """Only the name of the backend changes in a DAG; one that shows no log is waited for all the same."""
        report = """echo '{"metrics": {"auc": 0.9}}' > "$MLOPS_OUTPUT" """
        where = {"backend": "nohup", "conn_id": "nohup", "deferrable": False, "poll_interval": 0.1}
        run = run_task(TrainModelOperator(task_id="train", command=["sh", "-c", report], **where))
        assert (run.state, run.result["job"]["backend"], run.result["metrics"]) == ("success", "nohup", {"auc": 0.9})

    def test_a_job_that_was_not_started_is_started_by_the_next_submission(
        self, backend: TrainingBackend, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A worker that dies between accepting and starting leaves a job that waits; a cancelled one never begins."""
        for one in (name, f"{name}-cancelled"):
            with monkeypatch.context() as patch:
                patch.setenv("PATH", "")
                with pytest.raises(FileNotFoundError):
                    backend.submit(self.spec("true"), name=one, owner=OWNER)
        handles = [handle for handle, _ in backend.managed()]
        assert {status.state for status in backend.observe(handles).values()} == {JobState.PENDING}
        for handle in handles:
            if handle.job_id != name:
                backend.cancel(handle)
            backend.submit(self.spec("true"), name=handle.job_id, owner=OWNER)
            self.wait_for(backend, handle, lambda status: status.state.terminal)
        ended = {handle.job_id: status.state for handle, status in backend.observe(handles).items()}
        assert ended == {name: JobState.SUCCEEDED, f"{name}-cancelled": JobState.CANCELLED}

    def test_eight_submissions_at_once_are_one_job(self, backend: TrainingBackend, name: str, tmp_path: Path) -> None:
        """Whoever comes first starts the program, and nobody starts it again."""
        spec = self.spec(f"echo ran >> {tmp_path}/runs; sleep 0.5")
        with ThreadPoolExecutor(8) as pool:
            handles = set(pool.map(lambda _: backend.submit(spec, name=name, owner=OWNER), range(8)))
        (handle,) = handles
        self.wait_for(backend, handle, lambda status: status.state is JobState.SUCCEEDED)
        assert (tmp_path / "runs").read_text() == "ran\n"

    def test_a_job_that_is_killed_from_outside_is_lost(self, backend: TrainingBackend, name: str) -> None:
        """It is a failure of the platform, which may be tried again, and neither a success nor a cancel."""
        _, status = self.ended(backend, name, "kill -9 -$(ps -o pgid= -p $$ | tr -d ' ')")
        assert (status.state, status.native, status.reason) == (JobState.FAILED, "lost", FailureReason.PLATFORM)
