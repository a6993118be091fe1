"""The strict Vertex AI speaks the vendor's language: it is driven with Google's own client here."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import aiplatform_v1 as vertex

from airflow_mlops.testing.kfp.pipelines import shell_pipeline
from airflow_mlops.testing.vertex import BUCKET, PROJECT, REGION, VertexFake, vertex_fake

PARENT = f"projects/{PROJECT}/locations/{REGION}"


@pytest.fixture
def fake() -> Iterator[VertexFake]:
    """Give a server of its own to each test."""
    with vertex_fake() as found:
        yield found


@pytest.fixture
def jobs(fake: VertexFake) -> vertex.JobServiceClient:
    """Give Google's client of custom jobs."""
    return vertex.JobServiceClient(
        credentials=AnonymousCredentials(), transport="rest", client_options={"api_endpoint": fake.address}
    )


@pytest.fixture
def pipelines(fake: VertexFake) -> vertex.PipelineServiceClient:
    """Give Google's client of pipeline jobs."""
    return vertex.PipelineServiceClient(
        credentials=AnonymousCredentials(), transport="rest", client_options={"api_endpoint": fake.address}
    )


def job(script: str = "true", **fields: Any) -> vertex.CustomJob:
    """Return a job that runs a script."""
    container = {"image_uri": "busybox:1", "command": ["sh", "-c", script], "env": fields.pop("env", [])}
    pool = {"machine_spec": {"machine_type": "n1-standard-4"}, "replica_count": 1, "container_spec": container}
    spec = {"worker_pool_specs": [pool], **fields.pop("job_spec", {"scheduling": {"disable_retries": True}})}
    return vertex.CustomJob({"display_name": "j", "job_spec": spec, **fields})


def until(jobs: vertex.JobServiceClient, name: str, *states: str) -> vertex.CustomJob:
    """Look until a job is as wanted."""
    end = time.monotonic() + 10
    while (found := jobs.get_custom_job(name=name)).state.name.removeprefix("JOB_STATE_") not in states:
        assert time.monotonic() < end, found.state
        time.sleep(0.02)
    return found


def test_a_job_runs_through_its_states(jobs: vertex.JobServiceClient) -> None:
    """Queued, pending, running, succeeded, with the times of each, under the project's number."""
    made = jobs.create_custom_job(parent=PARENT, custom_job=job("sleep 0.3"))
    assert made.state.name == "JOB_STATE_QUEUED"
    assert made.name.startswith("projects/1")
    until(jobs, made.name, "PENDING")
    until(jobs, made.name, "RUNNING")
    found = until(jobs, made.name, "SUCCEEDED")
    assert found.create_time <= found.start_time <= found.end_time
    assert not found.error.code


def test_a_failed_job_is_tried_again_unless_it_says_no(fake: VertexFake, jobs: vertex.JobServiceClient) -> None:
    """The service starts a failed program again by itself, six times in all."""
    once = jobs.create_custom_job(parent=PARENT, custom_job=job("exit 3"))
    often = jobs.create_custom_job(parent=PARENT, custom_job=job("exit 3", job_spec={}))
    assert until(jobs, once.name, "FAILED").error.message.startswith("The replica workerpool0-0 exited with")
    until(jobs, often.name, "FAILED")
    assert (fake.started(once.name), fake.started(often.name)) == (1, 6)


def test_a_cancel_is_a_signal_and_a_second_one_is_refused(jobs: vertex.JobServiceClient) -> None:
    """The job is CANCELLING until its program has ended; a final job cannot be cancelled."""
    made = jobs.create_custom_job(parent=PARENT, custom_job=job("trap 'sleep 0.5; exit 0' TERM; sleep 60 & wait"))
    until(jobs, made.name, "RUNNING")
    time.sleep(0.2)
    jobs.cancel_custom_job(name=made.name)
    assert until(jobs, made.name, "CANCELLING", "CANCELLED").state.name == "JOB_STATE_CANCELLING"
    assert until(jobs, made.name, "CANCELLED").error.code == 1
    with pytest.raises(exceptions.BadRequest, match="final state"):
        jobs.cancel_custom_job(name=made.name)


def test_lists_filter_page_and_mask(jobs: vertex.JobServiceClient) -> None:
    """By label and state, in pages that end, with the fields that were asked for; newest first."""
    names = [
        jobs.create_custom_job(parent=PARENT, custom_job=job("sleep 60", labels={"n": str(number % 2)})).name
        for number in range(5)
    ]
    request = {"parent": PARENT, "filter": 'labels.n="0" AND state!="JOB_STATE_FAILED"', "page_size": 2}
    pages = list(jobs.list_custom_jobs(request={**request, "read_mask": "name,labels"}).pages)
    assert [[each.name for each in page.custom_jobs] for page in pages] == [[names[4], names[2]], [names[0]]]
    assert not pages[0].custom_jobs[0].display_name
    with pytest.raises(exceptions.BadRequest, match="token"):
        list(jobs.list_custom_jobs(request={**request, "page_token": "bm9uZQ=="}))
    with pytest.raises(exceptions.BadRequest, match="machine"):
        list(jobs.list_custom_jobs(request={**request, "filter": 'machine="x"'}))
    with pytest.raises(exceptions.MethodNotImplemented):
        list(jobs.list_custom_jobs(request={**request, "filter": 'labels.n="0" OR labels.n="1"'}))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"display_name": ""}, "CustomJob.display_name"),
        ({"labels": {"Upper": "x"}}, "Label"),
        ({"labels": {"key": "x" * 64}}, "Label"),
        ({"labels": {f"k{number}": "" for number in range(65)}}, "64 labels"),
        ({"job_spec": {"scheduling": {"strategy": 17}}}, "strategy"),
        ({"job_spec": {"base_output_directory": {}}}, "output_uri_prefix"),
        ({"job_spec": {"base_output_directory": {"output_uri_prefix": "/tmp"}}}, "Cloud Storage"),
        ({"job_spec": {"tensorboard": "t"}}, "service account"),
        ({"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}, "each once"),
        ({"env": [{"value": "1"}]}, "name"),
    ],
)
def test_a_wrong_job_is_refused(jobs: vertex.JobServiceClient, fake: VertexFake, change: Any, told: str) -> None:
    """Missing, unknown and impossible fields are errors that name them, and nothing is started."""
    with pytest.raises(exceptions.BadRequest, match=told):
        jobs.create_custom_job(parent=PARENT, custom_job=job(**change))
    assert fake.jobs() == []


def test_what_the_messages_do_not_have_is_refused(fake: VertexFake) -> None:
    """A field, a query parameter and an address that Vertex AI does not have: the client's own checks are passed by."""
    url = f"{fake.address}/v1/{PARENT}/customJobs"
    with httpx.Client(trust_env=False) as wire:
        for answer, told in (
            (wire.post(url, json={"displayName": "j", "jobSpecs": {}}), "jobSpecs"),
            (wire.post(url, json={"displayName": "j", "state": "DONE"}), "DONE"),
            (wire.post(url, content="{"), "Invalid JSON"),
            (wire.get(url, params={"sort": "x"}), "sort"),
        ):
            assert answer.status_code == 400
            assert told in answer.json()["error"]["message"]
        assert wire.get(f"{fake.address}/v1/{PARENT}/tensorboards").status_code == 501


def test_what_only_the_server_writes_is_ignored(jobs: vertex.JobServiceClient) -> None:
    """A client cannot make a job that has succeeded."""
    made = jobs.create_custom_job(parent=PARENT, custom_job=job("sleep 60", state=4, name="mine"))
    assert made.state.name == "JOB_STATE_QUEUED"
    assert made.name != "mine"


def test_programs_see_where_their_output_goes(fake: VertexFake, jobs: vertex.JobServiceClient) -> None:
    """The AIP variables are below the base output directory, and a bucket is a folder."""
    spec = {"base_output_directory": {"output_uri_prefix": f"gs://{BUCKET}/out"}}
    env = [{"name": "OUT", "value": f"/gcs/{BUCKET}/found"}]
    made = jobs.create_custom_job(
        parent=PARENT, custom_job=job('echo "$AIP_MODEL_DIR $CLOUD_ML_JOB_ID" > $OUT', job_spec=spec, env=env)
    )
    until(jobs, made.name, "SUCCEEDED")
    found = (fake.buckets / BUCKET / "found").read_text()
    assert found == f"gs://{BUCKET}/out/model/ {made.name.rpartition('/')[2]}\n"
    address = f"{fake.address}/storage/v1/b/{BUCKET}/o/found"
    assert httpx.get(address, params={"alt": "media"}, trust_env=False).text == found


def test_secrets_need_the_token_of_the_machine(fake: VertexFake) -> None:
    """Secret Manager answers only to who asked the metadata server, which wants its header."""
    fake.services.keep_secret(PROJECT, "s", "value")
    address = f"{fake.address}/v1/projects/{PROJECT}/secrets/s/versions/latest:access"
    metadata = f"{fake.address}/computeMetadata/v1/instance/service-accounts/default/token"
    with httpx.Client(trust_env=False) as wire:
        assert wire.get(address).status_code == 401
        assert wire.get(metadata).status_code == 403
        token = wire.get(metadata, headers={"Metadata-Flavor": "Google"}).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        assert wire.get(address, headers=headers).json()["payload"] == {"data": "dmFsdWU="}
        assert wire.get(address.replace("/s/", "/t/"), headers=headers).status_code == 404


def test_a_pipelines_id_is_taken_once(pipelines: vertex.PipelineServiceClient) -> None:
    """The client chooses the id; a second job with it is refused, and a wrong id too."""
    run = vertex.PipelineJob(
        {
            "pipeline_spec": shell_pipeline({"only": "true"}),
            "runtime_config": {"gcs_output_directory": f"gs://{BUCKET}/root"},
        }
    )
    made = pipelines.create_pipeline_job(parent=PARENT, pipeline_job=run, pipeline_job_id="mine")
    assert made.name.endswith("/pipelineJobs/mine")
    with pytest.raises(exceptions.Conflict):
        pipelines.create_pipeline_job(parent=PARENT, pipeline_job=run, pipeline_job_id="mine")
    with pytest.raises(exceptions.BadRequest, match="pipeline_job_id"):
        pipelines.create_pipeline_job(parent=PARENT, pipeline_job=run, pipeline_job_id="Mine")
    run.runtime_config.gcs_output_directory = ""
    with pytest.raises(exceptions.BadRequest, match="gcs_output_directory"):
        pipelines.create_pipeline_job(parent=PARENT, pipeline_job=run, pipeline_job_id="other")


def test_a_step_is_a_custom_job(jobs: vertex.JobServiceClient, pipelines: vertex.PipelineServiceClient) -> None:
    """The details of a run name the CustomJob of each step, which a list of runs does not show."""
    run = {
        "pipeline_spec": shell_pipeline({"only": "true"}),
        "runtime_config": {"gcs_output_directory": f"gs://{BUCKET}/root"},
    }
    name = pipelines.create_pipeline_job(parent=PARENT, pipeline_job=run, pipeline_job_id="mine").name
    end = time.monotonic() + 10
    while (found := pipelines.get_pipeline_job(name=name)).state.name != "PIPELINE_STATE_SUCCEEDED":
        assert time.monotonic() < end, found
        time.sleep(0.02)
    [task] = found.job_detail.task_details
    assert (task.task_name, task.state.name) == ("only", "SUCCEEDED")
    assert until(jobs, task.executor_detail.container_detail.main_job, "SUCCEEDED")
    [listed] = pipelines.list_pipeline_jobs(parent=PARENT)
    assert not listed.job_detail.task_details
