"""What every training backend must do: one suite for ours and for strangers'.

Subclass :class:`TrainingBackendContract` in a test module and give it a ``backend`` fixture. It needs no Airflow.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from airflow_mlops.core.errors import ConflictError, InvalidSpecError, UnsupportedFeatureError
from airflow_mlops.core.features import Feature
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.training.contract import (
    FailureReason,
    HasLog,
    JobHandle,
    JobState,
    JobStatus,
    Resources,
    TrainingBackend,
    TrainingSpec,
)
from airflow_mlops.training.look import Observer, Streams

OWNER = TaskIdentity("contract", "run", "train")

ASKING: dict[Feature, dict[str, Any]] = {
    Feature.IMAGE: {"image": "busybox:1"},
    Feature.NODES: {"nodes": 2},
    Feature.GPUS: {"resources": Resources(gpus=1)},
    Feature.SPOT: {"spot": True},
    Feature.CHECKPOINT: {"checkpoint": "checkpoints"},
    Feature.SECRET_ENV: {"secret_env": {"TOKEN": "token"}},
    Feature.MAX_RUNTIME: {"max_runtime": 60.0},
}
"""For each optional ability, the fields that ask for it."""


def wait_for(backend: Observer, handle: JobHandle, done: Callable[[JobStatus], bool], limit: float) -> JobStatus:
    """Look until the job is as wanted; fail with its last status after *limit* seconds."""
    end = time.monotonic() + limit
    while True:
        status = backend.observe([handle]).get(handle)
        if status is not None and done(status):
            return status
        assert time.monotonic() < end, f"{handle} is still {status}"
        time.sleep(0.05)


class TrainingBackendContract:
    """The promises of :class:`~airflow_mlops.training.contract.TrainingBackend`. Override what a platform needs."""

    limit = 30.0
    """Seconds a job that does next to nothing may take."""

    tells_reasons = False
    """Whether the platform tells an exit code apart from its own faults. One that does must say so of every failure."""

    @pytest.fixture
    def backend(self) -> TrainingBackend:
        """Give the backend under test."""
        raise NotImplementedError("Give a fixture called 'backend'.")

    def spec(self, script: str, **fields: Any) -> TrainingSpec:
        """Return a spec that runs a shell script."""
        return TrainingSpec(("sh", "-c", script, "job"), **fields)

    @pytest.fixture
    def name(self) -> str:
        """Give a job name nobody has used."""
        return f"aml-{uuid.uuid4().hex[:16]}"

    @pytest.fixture
    def sleeper(self, backend: TrainingBackend, name: str) -> Iterator[JobHandle]:
        """Give a running job, which is ended afterwards."""
        handle = backend.submit(self.spec("sleep 60"), name=name, owner=OWNER)
        wait_for(backend, handle, lambda status: status.state is JobState.RUNNING, self.limit)
        yield handle
        backend.cancel(handle)

    def test_it_keeps_the_protocol(self, backend: TrainingBackend) -> None:
        """A backend has all verbs, its name and the table of what it lacks, with reasons."""
        assert isinstance(backend, TrainingBackend)
        assert all(why for why in backend.lacks.values())

    def test_a_good_job_succeeds_and_can_be_collected_twice(self, backend: TrainingBackend, name: str) -> None:
        """Exit code 0 is SUCCEEDED, and collecting it twice gives the same result."""
        handle = backend.submit(self.spec("true"), name=name, owner=OWNER)
        status = wait_for(backend, handle, lambda found: found.state.terminal, self.limit)
        assert status.state is JobState.SUCCEEDED
        assert backend.collect(handle) == backend.collect(handle)
        assert backend.collect(handle).job == handle

    def test_a_bad_job_fails_and_says_why(self, backend: TrainingBackend, name: str) -> None:
        """A non-zero exit code is FAILED; the detail has the code, and the job cannot be collected."""
        handle = backend.submit(self.spec("exit 41"), name=name, owner=OWNER)
        status = wait_for(backend, handle, lambda found: found.state.terminal, self.limit)
        assert status.state is JobState.FAILED
        assert "41" in status.detail
        assert status.reason in {FailureReason.USER_CODE} | (set() if self.tells_reasons else {FailureReason.NONE})
        with pytest.raises(InvalidSpecError, match=name):
            backend.collect(handle)

    def test_same_name_same_job(self, backend: TrainingBackend, sleeper: JobHandle, name: str) -> None:
        """Submitting again what runs returns the same handle, and so does locating it."""
        assert backend.submit(self.spec("sleep 60"), name=name, owner=OWNER) == sleeper
        assert backend.locate(name) == sleeper
        assert [handle for handle, _ in backend.managed()].count(sleeper) == 1

    def test_an_ended_job_is_not_started_again(self, backend: TrainingBackend, name: str) -> None:
        """Submitting again what has ended returns the ended job."""
        handle = backend.submit(self.spec("exit 3"), name=name, owner=OWNER)
        before = wait_for(backend, handle, lambda found: found.state.terminal, self.limit)
        assert backend.submit(self.spec("exit 3"), name=name, owner=OWNER) == handle
        assert backend.observe([handle])[handle] == before

    def test_same_name_with_another_spec_is_a_conflict(
        self, backend: TrainingBackend, sleeper: JobHandle, name: str
    ) -> None:
        """A name stands for one spec: another one is refused, and the first job goes on."""
        with pytest.raises(ConflictError, match=name):
            backend.submit(self.spec("sleep 61"), name=name, owner=OWNER)
        assert backend.observe([sleeper])[sleeper].state is JobState.RUNNING

    def test_many_are_observed_at_once(self, backend: TrainingBackend, sleeper: JobHandle, name: str) -> None:
        """One call tells about many jobs; a job the platform does not know is absent, not failed."""
        other = backend.submit(self.spec("true"), name=f"{name}-b", owner=OWNER)
        wait_for(backend, other, lambda found: found.state.terminal, self.limit)
        unknown = JobHandle(backend.name, f"{name}-unknown")
        found = backend.observe([sleeper, other, unknown])
        assert {handle: status.state for handle, status in found.items()} == {
            sleeper: JobState.RUNNING,
            other: JobState.SUCCEEDED,
        }
        assert backend.observe([]) == {}

    def test_unknown_jobs_are_not_an_accident(self, backend: TrainingBackend, name: str) -> None:
        """A name nobody used is located nowhere, and cancelling it is no error."""
        assert backend.locate(name) is None
        backend.cancel(JobHandle(backend.name, name))

    def test_cancelling_twice_is_cancelling(self, backend: TrainingBackend, sleeper: JobHandle) -> None:
        """A cancelled job ends as CANCELLED; cancelling it again changes nothing."""
        backend.cancel(sleeper)
        backend.cancel(sleeper)
        wait_for(backend, sleeper, lambda found: found.state is JobState.CANCELLED, self.limit)
        backend.cancel(sleeper)
        assert backend.observe([sleeper])[sleeper].state is JobState.CANCELLED

    def test_a_finished_job_is_left_alone(self, backend: TrainingBackend, name: str) -> None:
        """Cancelling what has succeeded leaves it succeeded."""
        handle = backend.submit(self.spec("true"), name=name, owner=OWNER)
        wait_for(backend, handle, lambda found: found.state.terminal, self.limit)
        backend.cancel(handle)
        assert backend.observe([handle])[handle].state is JobState.SUCCEEDED

    def test_jobs_know_their_owner(self, backend: TrainingBackend, sleeper: JobHandle) -> None:
        """The sweep finds every job with the task that owns it."""
        assert dict(backend.managed())[sleeper] == OWNER

    def test_handles_travel(self, backend: TrainingBackend, sleeper: JobHandle) -> None:
        """A handle that went through a dict finds the job as well."""
        again = JobHandle.from_dict(sleeper.to_dict())
        assert backend.observe([again])[again].state is JobState.RUNNING

    @pytest.mark.parametrize("feature", list(Feature))
    def test_what_it_lacks_is_refused_by_name(self, backend: TrainingBackend, name: str, feature: Feature) -> None:
        """A spec that asks for a missing ability is refused with the field's name, and no job is left behind."""
        if feature not in backend.lacks:
            pytest.skip(f"{backend.name} has {feature.value}")
        with pytest.raises(UnsupportedFeatureError, match=feature.value) as caught:
            backend.submit(replace(self.spec("true"), **ASKING[feature]), name=name, owner=OWNER)
        assert backend.lacks[feature] in str(caught.value)
        assert backend.locate(name) is None

    def test_unknown_options_are_refused(self, backend: TrainingBackend, name: str) -> None:
        """An option the platform does not have is an error that names it."""
        with pytest.raises(InvalidSpecError, match="no_such_option"):
            backend.submit(self.spec("true", options={"no_such_option": 1}), name=name, owner=OWNER)

    def test_the_job_sees_its_variables_and_parameters(self, backend: TrainingBackend, name: str) -> None:
        """Plain variables, the job's name, arguments and ``--name value`` of each parameter reach the program."""
        if not isinstance(backend, HasLog):
            pytest.skip(f"{backend.name} shows no log")
        spec = self.spec(
            'echo "$MLOPS_JOB_NAME $WORD $*"', env={"WORD": "hello"}, args=("a b",), parameters={"lr": 0.5, "on": True}
        )
        handle = backend.submit(spec, name=name, owner=OWNER)
        wait_for(backend, handle, lambda found: found.state.terminal, self.limit)
        text, offset = backend.read_log(handle, 0)
        assert text.split("\n")[0] == f"{name} hello a b --lr 0.5 --on true"
        assert backend.read_log(handle, offset) == ("", offset)

    def test_a_stream_tells_what_a_look_tells(self, backend: TrainingBackend, sleeper: JobHandle, name: str) -> None:
        """A stream sees jobs from before it was opened and from after, through to their ends, with the same states."""
        if not isinstance(backend, Streams):
            pytest.skip(f"{backend.name} has no stream")
        unknown = replace(sleeper, job_id=f"{sleeper.job_id}-unknown")
        with backend.stream() as stream:
            assert stream.observe([sleeper, unknown])[sleeper].state is JobState.RUNNING
            good = backend.submit(self.spec("true"), name=f"{name}-good", owner=OWNER)
            bad = backend.submit(self.spec("exit 3"), name=f"{name}-bad", owner=OWNER)
            backend.cancel(sleeper)
            jobs = [good, bad, sleeper]
            ended = [wait_for(stream, job, lambda found: found.state.terminal, self.limit).state for job in jobs]
            looked = backend.observe(jobs)
            assert ended == [looked[job].state for job in jobs]
            assert ended == [JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED]
            assert unknown not in stream.observe([unknown])

    def test_a_stream_can_be_opened_again(self, backend: TrainingBackend, sleeper: JobHandle) -> None:
        """Leaving a stream ends it within seconds; another one tells the same."""
        if not isinstance(backend, Streams):
            pytest.skip(f"{backend.name} has no stream")
        for _ in range(2):
            with backend.stream() as stream:
                assert stream.observe([sleeper])[sleeper].state is JobState.RUNNING
                began = time.monotonic()
            assert time.monotonic() - began < 5
