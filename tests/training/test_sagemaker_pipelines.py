"""Pipelines of SageMaker: one execution a name, whoever is away, and what is told of its steps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_mlops.core.errors import ConflictError, InvalidSpecError, PlatformUnavailableError
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.testing.sagemaker import SageMakerFake, sagemaker_fake
from airflow_mlops.training.contract import FailureReason, JobHandle, JobState, JobStatus
from airflow_mlops.training.pipelines.contract import PipelineSpec
from airflow_mlops.training.pipelines.sagemaker import SageMakerPipelines

OWNER = TaskIdentity("dag" * 80, "run" * 80, "task" * 60)


@pytest.fixture
def fake() -> Iterator[SageMakerFake]:
    """Give an account with a pipeline that takes a parameter."""
    with sagemaker_fake() as found:
        declared = [{"Name": "Seconds", "Type": "Integer", "DefaultValue": 0}]
        found.add_pipeline("wait", {"load": 'sleep "$Seconds"', "fit": "true"}, declared)
        yield found


@pytest.fixture
def backend(fake: SageMakerFake) -> SageMakerPipelines:
    """Give the backend."""
    return SageMakerPipelines.from_connection(fake.connection())


def start(backend: SageMakerPipelines, name: str, seconds: int = 0, pipeline: str = "wait", **fields: Any) -> JobHandle:
    """Start a pipeline."""
    spec = PipelineSpec(pipeline, parameters={"Seconds": seconds} if seconds else {}, **fields)
    return backend.submit(spec, name=name, owner=OWNER)


def ended(backend: SageMakerPipelines, handle: JobHandle) -> JobStatus:
    """Look until it is over."""
    end = time.monotonic() + 30
    while not (status := backend.observe([handle])[handle]).state.terminal:
        assert time.monotonic() < end
        time.sleep(0.05)
    return status


def test_a_lost_answer_leaves_one_execution(fake: SageMakerFake, backend: SageMakerPipelines) -> None:
    """The client's own second attempt has the same token; so has the next worker's."""
    fake.faults.lose_answers(5, operation="StartPipelineExecution")
    with pytest.raises(PlatformUnavailableError):
        start(backend, "aml-1", 1)
    handle = start(backend, "aml-1", 1)
    assert handle == backend.locate("aml-1") == start(backend, "aml-1", 1)
    assert [one["PipelineExecutionArn"] for one in fake.executions()] == [handle.job_id]


def test_a_token_that_was_forgotten_starts_nothing_again(fake: SageMakerFake, backend: SageMakerPipelines) -> None:
    """The name is looked for first, so the limits of SageMaker's own memory do not matter."""
    handle = start(backend, "aml-1")
    ended(backend, handle)
    fake.forget_tokens()
    assert start(backend, "aml-1") == handle
    with pytest.raises(ConflictError, match="aml-1"):
        start(backend, "aml-1", 1)
    assert len(fake.executions()) == 1


def test_even_a_long_owner_is_in_the_mark(fake: SageMakerFake, backend: SageMakerPipelines) -> None:
    """SageMaker keeps long descriptions, so the janitor finds every owner."""
    handle = start(backend, "aml-1")
    assert dict(backend.managed()) == {handle: OWNER}


def test_many_of_one_pipeline_cost_its_list(fake: SageMakerFake, backend: SageMakerPipelines) -> None:
    """One list tells of all; nobody is described."""
    handles = [start(backend, f"aml-{number}", 20) for number in range(3)]
    fake.calls.reset()
    found = backend.observe(handles)
    assert {handle: status.state for handle, status in found.items()} == dict.fromkeys(handles, JobState.RUNNING)
    assert {call.verb: fake.calls.count(call.verb) for call in fake.calls.seen()} == {"ListPipelineExecutions": 1}


def test_stopping_ends_the_step_that_runs_and_starts_no_other(fake: SageMakerFake, backend: SageMakerPipelines) -> None:
    """The execution is CANCELLED; its second step never was."""
    handle = start(backend, "aml-1", 60)
    while not fake.jobs():
        time.sleep(0.05)
    backend.cancel(handle)
    backend.cancel(handle)
    assert ended(backend, handle).state is JobState.CANCELLED
    assert [job["TrainingJobStatus"] for job in fake.jobs().values()] == ["Stopped"]
    with pytest.raises(InvalidSpecError, match="aml-1"):
        backend.collect(handle)


def test_the_platforms_own_fault_in_a_step_may_be_tried_again(fake: SageMakerFake, backend: SageMakerPipelines) -> None:
    """The kind of failure of the step's job is that of the run."""
    handle = start(backend, "aml-1", 60)
    while not fake.jobs():
        time.sleep(0.05)
    fake.fail(next(iter(fake.jobs())), "InternalServerError: We encountered an internal error.")
    status = ended(backend, handle)
    assert (status.state, status.reason) == (JobState.FAILED, FailureReason.PLATFORM)
    assert "Step 'load' failed" in status.detail


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (PipelineSpec({"Version": "2020-12-01", "Steps": []}), "by its name"),
        (PipelineSpec("wait", parameters={"Seconds": "x" * 1025}), "'Seconds'"),
        (PipelineSpec("wait", options={"parallel": 2}), "parallel_steps"),
        (PipelineSpec("wait@newest"), "'newest'"),
        (PipelineSpec("none"), "does not exist"),
    ],
)
def test_what_cannot_run_is_refused_by_name(
    fake: SageMakerFake, backend: SageMakerPipelines, spec: PipelineSpec, message: str
) -> None:
    """A definition instead of a name, a value that is too long, an unknown option: nothing starts."""
    with pytest.raises(InvalidSpecError, match=message):
        backend.submit(spec, name="aml-1", owner=OWNER)
    assert fake.executions() == []


def test_steps_at_a_time_are_handed_on(fake: SageMakerFake, backend: SageMakerPipelines) -> None:
    """The option becomes the execution's own limit; the request is checked by the service model."""
    handle = start(backend, "aml-1", options={"parallel_steps": 2})
    assert ended(backend, handle).state is JobState.SUCCEEDED
    assert backend.collect(handle).tasks == {"load": "Succeeded", "fit": "Succeeded"}
