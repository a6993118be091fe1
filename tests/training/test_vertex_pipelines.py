"""Compiled pipelines on Vertex AI: exactly one run for a name, from every place a pipeline can be."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from airflow_mlops.core.errors import InvalidSpecError, NotFoundError
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.testing.kfp.pipelines import shell_pipeline
from airflow_mlops.testing.vertex import BUCKET, VertexFake, vertex_fake
from airflow_mlops.training.contract import FailureReason, JobHandle, JobState, JobStatus
from airflow_mlops.training.pipelines.compiled import read_pipeline
from airflow_mlops.training.pipelines.contract import PipelineSpec
from airflow_mlops.training.pipelines.vertex import VertexPipelines

OWNER = TaskIdentity("dag", "manual__2026-01-01T00:00:00+00:00", "pipeline")
TEMPLATE = "https://europe-west4-kfp.pkg.dev/acme-ml/pipelines/shell/latest"


@pytest.fixture
def fake() -> Iterator[VertexFake]:
    """Run Vertex AI for one test."""
    with vertex_fake() as found:
        yield found


@pytest.fixture
def backend(fake: VertexFake) -> VertexPipelines:
    """Get in."""
    return VertexPipelines.from_connection(fake.connection())


def ended(backend: VertexPipelines, handle: JobHandle) -> JobStatus:
    """Look until the run has ended."""
    end = time.monotonic() + 30
    while not (status := backend.observe([handle])[handle]).state.terminal:
        assert time.monotonic() < end, status
        time.sleep(0.05)
    return status


def test_a_pipeline_is_found_wherever_it_is(fake: VertexFake, backend: VertexPipelines, tmp_path: Path) -> None:
    """A mapping, a file, an object in Cloud Storage, and a template: all run, with their parameters."""
    inputs = {"word": {"parameterType": "STRING"}, "number": {"parameterType": "NUMBER_INTEGER"}}
    pipeline = shell_pipeline({"only": 'test "$1 $2" = "hello 3"'}, inputs=inputs)
    text = yaml.safe_dump(pipeline)
    (tmp_path / "pipeline.yaml").write_text(text)
    (fake.buckets / BUCKET / "pipeline.yaml").write_text(text)
    fake.templates[TEMPLATE] = pipeline
    sources = [pipeline, str(tmp_path / "pipeline.yaml"), f"gs://{BUCKET}/pipeline.yaml", TEMPLATE]
    for number, source in enumerate(sources):
        spec = PipelineSpec(read_pipeline(source), {"word": "hello", "number": 3})
        handle = backend.submit(spec, name=f"aml-{number}", owner=OWNER)
        assert ended(backend, handle).state is JobState.SUCCEEDED, source
        assert backend.collect(handle).tasks == {"only": "SUCCEEDED"}
    assert [handle.job_id.rpartition("/")[2] for handle, _ in backend.managed()] == ["aml-3", "aml-2", "aml-1", "aml-0"]


def test_lost_answers_and_stale_lists_make_no_second_run(fake: VertexFake, backend: VertexPipelines) -> None:
    """The platform refuses the id a second time, so the order may be sent again."""
    fake.freeze_lists()
    fake.faults.lose_answers(1, verb="create", resource="pipelineJobs")
    spec = PipelineSpec(shell_pipeline({"only": "sleep 60"}))
    handles = {backend.submit(spec, name="aml-x", owner=OWNER) for _ in range(3)}
    assert len(handles) == len(fake.jobs("pipelineJobs")) == 1


def test_a_failed_task_is_the_reason(backend: VertexPipelines) -> None:
    """The status tells the exit code of the task; those after it were not started."""
    pipeline = shell_pipeline({"first": "exit 41", "second": "true"}, after={"second": ["first"]})
    handle = backend.submit(PipelineSpec(pipeline), name="aml-x", owner=OWNER)
    status = ended(backend, handle)
    assert (status.state, status.reason) == (JobState.FAILED, FailureReason.USER_CODE)
    assert "status of 41" in status.detail
    assert "[first]" in status.detail


def test_a_paused_run_waits(fake: VertexFake, backend: VertexPipelines) -> None:
    """PAUSED is not the end: the run can be resumed."""
    handle = backend.submit(PipelineSpec(shell_pipeline({"only": "sleep 60"})), name="aml-x", owner=OWNER)
    while backend.observe([handle])[handle].state is not JobState.RUNNING:
        time.sleep(0.05)
    fake.set_job(handle.job_id, state=8)
    assert backend.observe([handle])[handle] == JobStatus(JobState.PENDING, "PIPELINE_STATE_PAUSED")


def test_options_reach_the_platform(fake: VertexFake, backend: VertexPipelines) -> None:
    """Root, account, network, policy, labels and cache are the run's."""
    options: dict[str, Any] = {
        "pipeline_root": f"gs://{BUCKET}/root",
        "service_account": "me@acme.example",
        "network": "projects/1/global/networks/n",
        "fail_fast": True,
        "cache": False,
        "labels": {"team": "a"},
        "kms_key_name": "projects/p/locations/r/keyRings/k/cryptoKeys/c",
    }
    spec = PipelineSpec(shell_pipeline({"only": "true"}), options=options)
    backend.submit(spec, name="aml-x", owner=OWNER)
    [run] = fake.jobs("pipelineJobs")
    assert run["runtimeConfig"]["gcsOutputDirectory"] == f"gs://{BUCKET}/root"
    assert run["runtimeConfig"]["failurePolicy"] == 2
    assert (run["serviceAccount"], run["network"]) == ("me@acme.example", "projects/1/global/networks/n")
    assert run["labels"]["team"] == "a"
    assert run["encryptionSpec"]["kmsKeyName"].endswith("cryptoKeys/c")
    assert run["pipelineSpec"]["root"]["dag"]["tasks"]["only"]["cachingOptions"] == {"enableCache": False}


def test_what_cannot_be_run_is_refused(fake: VertexFake, backend: VertexPipelines) -> None:
    """A name that is no address, an object that is not there, a platform's part, a template with cache."""
    pipeline = shell_pipeline({"only": "true"})
    for source, options, error, told in (
        ("churn", {}, InvalidSpecError, "'churn'"),
        (f"gs://{BUCKET}/none.yaml", {}, NotFoundError, "none.yaml"),
        ({"pipeline_spec": pipeline, "platform_spec": {"platforms": {"k": 1}}}, {}, InvalidSpecError, "platform"),
        (TEMPLATE, {"cache": False}, InvalidSpecError, "cache"),
        (pipeline, {"experiment": "e"}, InvalidSpecError, "experiment"),
        (pipeline, {"pipeline_root": "/tmp"}, InvalidSpecError, "gs://"),
    ):
        with pytest.raises(error, match=told):
            backend.submit(PipelineSpec(source, options=options), name="aml-x", owner=OWNER)
    (fake.buckets / BUCKET / "broken.yaml").write_text("{")
    with pytest.raises(InvalidSpecError, match="neither YAML nor JSON"):
        backend.submit(PipelineSpec(f"gs://{BUCKET}/broken.yaml"), name="aml-x", owner=OWNER)
    assert fake.jobs("pipelineJobs") == []
