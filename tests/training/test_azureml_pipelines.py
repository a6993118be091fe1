"""Pipeline jobs of Azure Machine Learning: what is sent, what is refused before, and what comes back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_mlops.core.errors import InvalidSpecError, NotFoundError
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.testing.azureml import AzureMLFake, azureml_fake
from airflow_mlops.training.contract import FailureReason, JobHandle, JobState, JobStatus
from airflow_mlops.training.pipelines.azureml import AzureMLPipelines, component_name, job_inputs, pipeline_job
from airflow_mlops.training.pipelines.contract import PipelineSpec

OWNER = TaskIdentity("dag", "run", "pipe")


@pytest.fixture
def fake() -> Iterator[AzureMLFake]:
    """Run a workspace."""
    with azureml_fake() as found:
        yield found


@pytest.fixture
def backend(fake: AzureMLFake) -> AzureMLPipelines:
    """Get in."""
    return AzureMLPipelines.from_connection(fake.connection())


def ended(backend: AzureMLPipelines, spec: PipelineSpec, name: str = "aml-p") -> tuple[JobHandle, JobStatus]:
    """Run a pipeline to its end."""
    handle = backend.submit(spec, name=name, owner=OWNER)
    end = time.monotonic() + 20
    while not (status := backend.observe([handle])[handle]).state.terminal:
        assert time.monotonic() < end
        time.sleep(0.03)
    return handle, status


def test_steps_and_parameters(fake: AzureMLFake, backend: AzureMLPipelines) -> None:
    """Every step has its state in the result, and sees what the pipeline was given."""
    pipeline = fake.shell_pipeline({"a": "true", "b": "test ${{parent.inputs.word}} = hello"}, word="other")
    handle, status = ended(backend, PipelineSpec(pipeline, parameters={"word": "hello"}))
    assert status.state is JobState.SUCCEEDED, status
    assert backend.collect(handle).tasks == {"a": "Completed", "b": "Completed"}


def test_a_failed_step_is_named(fake: AzureMLFake, backend: AzureMLPipelines) -> None:
    """The detail has the step and what it says; its kind of failure is the pipeline's; later steps do not run."""
    pipeline = fake.shell_pipeline({"good": "true", "bad": "echo no such column; exit 7", "never": "true"})
    handle, status = ended(backend, PipelineSpec(pipeline))
    assert (status.state, status.reason) == (JobState.FAILED, FailureReason.USER_CODE)
    assert all(part in status.detail for part in ("Step 'bad'", "no such column", "status code 7"))
    with pytest.raises(InvalidSpecError, match="aml-p"):
        backend.collect(handle)


def test_a_component_is_run_by_its_name(fake: AzureMLFake, backend: AzureMLPipelines) -> None:
    """A pipeline that the workspace has needs its name, its version and its inputs."""
    steps = fake.shell_pipeline({"only": "test ${{parent.inputs.rate}} = 0.5"})["jobs"]
    inputs = {"rate": {"type": "number"}, "more": {"type": "string", "default": "x"}}
    fake.add_component("train", "3", {"type": "pipeline", "inputs": inputs, "jobs": steps})
    _, status = ended(backend, PipelineSpec("train@3", parameters={"rate": 0.5}))
    assert status.state is JobState.SUCCEEDED, status
    with pytest.raises(InvalidSpecError, match="'rate'"):
        backend.submit(PipelineSpec("train@3"), name="aml-q", owner=OWNER)
    with pytest.raises(InvalidSpecError, match="did you mean 'rate'"):
        backend.submit(PipelineSpec("train@3", parameters={"rat": 1}), name="aml-q", owner=OWNER)
    with pytest.raises(NotFoundError, match="train"):
        backend.submit(PipelineSpec("train@4", parameters={"rate": 1}), name="aml-q", owner=OWNER)
    assert fake.started() == 1


def test_options_reach_the_job(fake: AzureMLFake, backend: AzureMLPipelines) -> None:
    """Experiment, compute target, tags and forced runs are where the API has them."""
    options = {"experiment": "mine", "compute": "cpu", "force_rerun": True, "tags": {"a": "b"}}
    ended(backend, PipelineSpec(fake.shell_pipeline({"only": "true"}), options=options))
    found = fake.jobs()[0]["properties"]
    assert found["experimentName"] == "mine"
    assert found["settings"]["default_compute"].endswith("/computes/cpu")
    assert found["settings"]["force_rerun"] is True
    assert found["tags"] == {"a": "b", "airflow-mlops": "true"}


def test_pipelines_and_jobs_are_two_sweeps(fake: AzureMLFake, backend: AzureMLPipelines) -> None:
    """The sweep of pipelines finds pipelines with their owners."""
    handle, _ = ended(backend, PipelineSpec(fake.shell_pipeline({"only": "true"})))
    assert list(backend.managed()) == [(handle, OWNER)]


def test_a_lost_answer_makes_no_second_run(fake: AzureMLFake, backend: AzureMLPipelines) -> None:
    """The order to start is sent again under the same name."""
    fake.faults.lose_answers(2)
    _, status = ended(backend, PipelineSpec(fake.shell_pipeline({"only": "true"})))
    assert (status.state, fake.started()) == (JobState.SUCCEEDED, 1)


@pytest.mark.parametrize("pipeline", [{}, {"root": {}}, {"jobType": "Command", "jobs": {"a": {}}}, {"properties": {}}])
def test_what_is_no_pipeline_is_refused(pipeline: dict[str, Any]) -> None:
    """The message says what a pipeline is here."""
    with pytest.raises(InvalidSpecError, match="'jobs'"):
        pipeline_job(pipeline)


def test_a_whole_body_is_a_pipeline() -> None:
    """What a tool writes for the API is taken as it is."""
    assert pipeline_job({"properties": {"jobs": {"a": {}}}}) == {"jobs": {"a": {}}}


@pytest.mark.parametrize("text", ["train@3", "azureml:train:3", "train:3"])
def test_names_of_components(text: str) -> None:
    """All three ways to write one are the same."""
    assert component_name(text) == ("train", "3")


@pytest.mark.parametrize("text", ["train", "train@", "a/b@1", "@1"])
def test_what_is_no_name_of_a_component_is_refused(text: str) -> None:
    """The message says how to write it."""
    with pytest.raises(InvalidSpecError, match="<component>@<version>"):
        component_name(text)


def test_parameters_become_inputs() -> None:
    """Text as it is, other values as JSON, inputs of another kind as they are given."""
    folder = {"jobInputType": "uri_folder", "uri": "azureml://x"}
    given = {"a": "text", "b": 0.5, "c": True, "d": folder}
    found = job_inputs("p", given, {key: {"jobInputType": "literal"} for key in given})
    assert [one.get("value") for one in found.values()] == ["text", "0.5", "true", None]
    assert found["d"] == folder
