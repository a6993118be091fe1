"""What every training backend must do: one suite for ours and for strangers'.

Subclass :class:`TrainingBackendContract` in a test module and give it a ``backend`` fixture. It needs no Airflow.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from airflow_mlops.core.errors import UnsupportedFeatureError
from airflow_mlops.core.features import Feature
from airflow_mlops.testing.job_backend import OWNER, JobBackendContract
from airflow_mlops.training.contract import (
    FailureReason,
    HasLog,
    JobHandle,
    JobState,
    Resources,
    TrainingBackend,
    TrainingSpec,
)
from airflow_mlops.training.look import Streams

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


class TrainingBackendContract(JobBackendContract):
    """The promises of :class:`~airflow_mlops.training.contract.TrainingBackend`. Override what a platform needs."""

    tells_reasons = False
    """Whether the platform tells an exit code apart from its own faults. One that does must say so of every failure."""

    def spec(self, script: str, **fields: Any) -> TrainingSpec:
        """Return a spec that runs a shell script."""
        return TrainingSpec(("sh", "-c", script, "job"), **fields)

    def test_it_keeps_the_protocol(self, backend: TrainingBackend) -> None:
        """A backend has all verbs, its name and the table of what it lacks, with reasons."""
        assert isinstance(backend, TrainingBackend)
        assert all(why for why in backend.lacks.values())

    def test_a_bug_is_the_program_s_own_fault(self, backend: TrainingBackend, name: str) -> None:
        """A non-zero exit code is never blamed on the platform: then it would be tried again."""
        _, status = self.ended(backend, name, "exit 41")
        assert status.reason in {FailureReason.USER_CODE} | (set() if self.tells_reasons else {FailureReason.NONE})

    def test_what_it_lacks_is_refused_by_name(self, backend: TrainingBackend, name: str) -> None:
        """A spec that asks for a missing ability is refused with the field's name, and no job is left behind."""
        for feature, why in backend.lacks.items():
            with pytest.raises(UnsupportedFeatureError, match=feature.value) as caught:
                backend.submit(replace(self.spec("true"), **ASKING[feature]), name=name, owner=OWNER)
            assert why in str(caught.value)
            assert backend.locate(name) is None

    @pytest.mark.parametrize("script", ["true", "exit 3"])
    def test_what_is_billed_is_a_number_or_not_told(self, backend: TrainingBackend, name: str, script: str) -> None:
        """Billed seconds are never negative, of an ended job they stay as they are, and the result tells them, too."""
        handle, status = self.ended(backend, name, script)
        billed = [status.billed_seconds, backend.observe([handle])[handle].billed_seconds]
        assert billed[0] == billed[1]
        if status.state is JobState.SUCCEEDED:
            result = backend.collect(handle)
            billed += [result.billed_seconds, result.ran_seconds]
        assert [found for found in billed if found is not None and found < 0] == []

    def test_the_job_sees_its_variables_and_parameters(self, backend: TrainingBackend, name: str) -> None:
        """Plain variables, the job's name, arguments and ``--name value`` of each parameter reach the program."""
        if not isinstance(backend, HasLog):
            pytest.skip(f"{backend.name} shows no log")
        spec = self.spec(
            'echo "$MLOPS_JOB_NAME $WORD $*"', env={"WORD": "hello"}, args=("a b",), parameters={"lr": 0.5, "on": True}
        )
        handle = backend.submit(spec, name=name, owner=OWNER)
        self.wait_for(backend, handle, lambda found: found.state.terminal)
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
            ended = [self.wait_for(stream, job, lambda found: found.state.terminal).state for job in jobs]
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
