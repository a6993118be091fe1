"""What every backend must do, whatever its jobs are: the part of the suites that training and pipelines share.

It needs no Airflow. Subclass the suite of the kind, such as ``PipelineBackendContract``.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_mlops.core.errors import ConflictError, InvalidSpecError
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.training.contract import JobHandle, JobState, JobStatus
from airflow_mlops.training.look import Observer

OWNER = TaskIdentity("contract", "run", "task")


class JobBackendContract:
    """The promises of :class:`~airflow_mlops.training.contract.JobBackend`. Override what a platform needs."""

    limit = 30.0
    """Seconds a job that does next to nothing may take."""

    @pytest.fixture
    def backend(self) -> Any:
        """Give the backend under test."""
        raise NotImplementedError("Give a fixture called 'backend'.")

    def spec(self, script: str, **fields: Any) -> Any:
        """Return a spec of a job that runs a shell script."""
        raise NotImplementedError("Give a method called 'spec'.")

    @pytest.fixture
    def name(self) -> str:
        """Give a job name nobody has used."""
        return f"aml-{uuid.uuid4().hex[:16]}"

    def wait_for(self, backend: Observer, handle: JobHandle, done: Callable[[JobStatus], bool]) -> JobStatus:
        """Look until the job is as wanted; fail with its last status after ``limit`` seconds."""
        end = time.monotonic() + self.limit
        while True:
            status: JobStatus | None = backend.observe([handle]).get(handle)
            if status is not None and done(status):
                return status
            assert time.monotonic() < end, f"{handle} is still {status}"
            time.sleep(0.05)

    def ended(self, backend: Any, name: str, script: str) -> tuple[JobHandle, JobStatus]:
        """Run a job to its end."""
        handle: JobHandle = backend.submit(self.spec(script), name=name, owner=OWNER)
        return handle, self.wait_for(backend, handle, lambda status: status.state.terminal)

    @pytest.fixture
    def sleeper(self, backend: Any, name: str) -> Iterator[JobHandle]:
        """Give a running job, which is ended afterwards."""
        handle = backend.submit(self.spec("sleep 60"), name=name, owner=OWNER)
        self.wait_for(backend, handle, lambda status: status.state is JobState.RUNNING)
        yield handle
        backend.cancel(handle)

    def test_a_good_job_succeeds_and_can_be_collected_twice(self, backend: Any, name: str) -> None:
        """Exit code 0 is SUCCEEDED, and collecting it twice gives the same result."""
        handle, status = self.ended(backend, name, "true")
        assert status.state is JobState.SUCCEEDED, status
        assert backend.collect(handle) == backend.collect(handle)
        assert backend.collect(handle).job == handle

    def test_a_bad_job_fails_and_says_why(self, backend: Any, name: str) -> None:
        """A non-zero exit code is FAILED; the detail has the code, and the job cannot be collected."""
        handle, status = self.ended(backend, name, "exit 41")
        assert status.state is JobState.FAILED
        assert "41" in status.detail
        with pytest.raises(InvalidSpecError, match=name):
            backend.collect(handle)

    def test_same_name_same_job(self, backend: Any, sleeper: JobHandle, name: str) -> None:
        """Submitting again what runs returns the same handle, and so does locating it."""
        assert backend.submit(self.spec("sleep 60"), name=name, owner=OWNER) == sleeper
        assert backend.locate(name) == sleeper
        assert [handle for handle, _ in backend.managed()].count(sleeper) == 1

    def test_an_ended_job_is_not_started_again(self, backend: Any, name: str) -> None:
        """Submitting again what has ended returns the ended job."""
        handle, before = self.ended(backend, name, "exit 3")
        assert backend.submit(self.spec("exit 3"), name=name, owner=OWNER) == handle
        assert backend.observe([handle])[handle] == before

    def test_same_name_with_another_spec_is_a_conflict(self, backend: Any, sleeper: JobHandle, name: str) -> None:
        """A name stands for one spec: another one is refused, and the first job goes on."""
        with pytest.raises(ConflictError, match=name):
            backend.submit(self.spec("sleep 61"), name=name, owner=OWNER)
        assert backend.observe([sleeper])[sleeper].state is JobState.RUNNING

    def test_many_are_observed_at_once(self, backend: Any, sleeper: JobHandle, name: str) -> None:
        """One call tells about many jobs; a job the platform does not know is absent, not failed."""
        other, _ = self.ended(backend, f"{name}-b", "true")
        unknown = JobHandle(backend.name, f"{sleeper.job_id.rpartition('/')[0]}/{uuid.uuid4()}")
        found = backend.observe([sleeper, other, unknown])
        states = {handle: status.state for handle, status in found.items()}
        assert states == {sleeper: JobState.RUNNING, other: JobState.SUCCEEDED}
        assert backend.observe([]) == {}
        assert backend.observe([unknown]) == {}

    def test_unknown_jobs_are_not_an_accident(self, backend: Any, sleeper: JobHandle, name: str) -> None:
        """A name nobody used is located nowhere, and cancelling it is no error."""
        assert backend.locate(f"{name}-unknown") is None
        backend.cancel(JobHandle(backend.name, f"{sleeper.job_id.rpartition('/')[0]}/{uuid.uuid4()}"))

    def test_cancelling_twice_is_cancelling(self, backend: Any, sleeper: JobHandle) -> None:
        """A cancelled job ends as CANCELLED; cancelling it again changes nothing."""
        backend.cancel(sleeper)
        backend.cancel(sleeper)
        self.wait_for(backend, sleeper, lambda found: found.state is JobState.CANCELLED)
        backend.cancel(sleeper)
        assert backend.observe([sleeper])[sleeper].state is JobState.CANCELLED

    def test_a_finished_job_is_left_alone(self, backend: Any, name: str) -> None:
        """Cancelling what has succeeded leaves it succeeded."""
        handle, _ = self.ended(backend, name, "true")
        backend.cancel(handle)
        assert backend.observe([handle])[handle].state is JobState.SUCCEEDED

    def test_jobs_know_their_owner(self, backend: Any, sleeper: JobHandle) -> None:
        """The janitor finds every job with the task that owns it."""
        assert dict(backend.managed())[sleeper] == OWNER

    def test_handles_travel(self, backend: Any, sleeper: JobHandle) -> None:
        """A handle that went through a dict finds the job as well."""
        again = JobHandle.from_dict(sleeper.to_dict())
        assert backend.observe([again])[again].state is JobState.RUNNING

    def test_unknown_options_are_refused(self, backend: Any, name: str) -> None:
        """An option the platform does not have is an error that names it, and no job is left behind."""
        with pytest.raises(InvalidSpecError, match="no_such_option"):
            backend.submit(self.spec("true", options={"no_such_option": 1}), name=name, owner=OWNER)
        assert backend.locate(name) is None
