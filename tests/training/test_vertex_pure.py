"""What Vertex AI says and what it is told, without a server."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from google.cloud.aiplatform_v1.types import JobState as NativeJob
from google.cloud.aiplatform_v1.types import PipelineState as NativePipeline
from google.rpc.code_pb2 import Code
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.core.errors import InvalidSpecError, UnsupportedFeatureError
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.platforms.gcp_access import OFFICIAL, OWN, TOLERATED
from airflow_mlops.training.backends.vertex_job import Place, custom_job, one_step_pipeline
from airflow_mlops.training.backends.vertex_log import nanoseconds, rfc3339, whole
from airflow_mlops.training.backends.vertex_machine import FAMILIES, chosen, machine_spec
from airflow_mlops.training.backends.vertex_options import VertexOptions, read_options
from airflow_mlops.training.backends.vertex_start import environment, mounted, secret_version
from airflow_mlops.training.backends.vertex_status import CODES, STATES, status_of
from airflow_mlops.training.contract import FailureReason, JobState, Resources, TrainingSpec
from airflow_mlops.training.pipelines.vertex import RunOptions, owner_in, owner_labels

OWNER = TaskIdentity("dag", "run", "task")
PLACE = Place("acme", "gs://staging/jobs", "trainer@acme.example", "projects/1/global/networks/default")


def spec(**fields: Any) -> TrainingSpec:
    """Return a spec of a job in an image."""
    return TrainingSpec(("python", "train.py"), **{"image": "train:1", **fields})


def made(options: VertexOptions = VertexOptions(), **fields: Any) -> dict[str, Any]:  # noqa: B008 - it is frozen
    """Return the CustomJob of a spec."""
    return custom_job(spec(**fields), "aml-x", OWNER, options, PLACE)


def variables(job: dict[str, Any]) -> dict[str, str]:
    """Return the variables of the first node."""
    return {one["name"]: one["value"] for one in job["job_spec"]["worker_pool_specs"][0]["container_spec"]["env"]}


# States


def test_every_native_state_is_mapped_on_purpose() -> None:
    """The table has every word of the installed API, and no other: a release with a new one fails here."""
    assert set(STATES) == {state.name for state in (*NativeJob, *NativePipeline)}


@pytest.mark.parametrize(
    ("native", "state"),
    [
        ("JOB_STATE_UNSPECIFIED", JobState.UNKNOWN),
        ("JOB_STATE_QUEUED", JobState.PENDING),
        ("JOB_STATE_PENDING", JobState.PENDING),
        ("JOB_STATE_RUNNING", JobState.RUNNING),
        ("JOB_STATE_SUCCEEDED", JobState.SUCCEEDED),
        ("JOB_STATE_FAILED", JobState.FAILED),
        ("JOB_STATE_CANCELLING", JobState.RUNNING),
        ("JOB_STATE_CANCELLED", JobState.CANCELLED),
        ("JOB_STATE_PAUSED", JobState.PENDING),
        ("JOB_STATE_EXPIRED", JobState.FAILED),
        ("JOB_STATE_UPDATING", JobState.RUNNING),
        ("JOB_STATE_PARTIALLY_SUCCEEDED", JobState.FAILED),
        ("PIPELINE_STATE_UNSPECIFIED", JobState.UNKNOWN),
        ("PIPELINE_STATE_QUEUED", JobState.PENDING),
        ("PIPELINE_STATE_PENDING", JobState.PENDING),
        ("PIPELINE_STATE_RUNNING", JobState.RUNNING),
        ("PIPELINE_STATE_SUCCEEDED", JobState.SUCCEEDED),
        ("PIPELINE_STATE_FAILED", JobState.FAILED),
        ("PIPELINE_STATE_CANCELLING", JobState.RUNNING),
        ("PIPELINE_STATE_CANCELLED", JobState.CANCELLED),
        ("PIPELINE_STATE_PAUSED", JobState.PENDING),
        (99, JobState.UNKNOWN),
        ("JOB_STATE_BRAND_NEW", JobState.UNKNOWN),
    ],
)
def test_each_state_means_what_the_table_says(native: Any, state: JobState) -> None:
    """PAUSED is no success, CANCELLING is not over, partly is not wholly, and a new word or number is UNKNOWN."""
    found = status_of({"state": native})
    assert (found.state, found.native) == (state, str(native))


@given(st.recursive(st.none() | st.text() | st.integers(), lambda inner: st.dictionaries(st.text(), inner)))
def test_an_odd_job_is_unknown_not_an_error(odd: Any) -> None:
    """Whatever a job looks like, one that cannot be read spoils no look at others."""
    job = odd if isinstance(odd, dict) else {"state": odd}
    assert status_of(job).state in JobState


def failed(message: str, code: int = 3, **job: Any) -> dict[str, Any]:
    """Return a job that failed with this error."""
    return {"state": "JOB_STATE_FAILED", "error": {"code": code, "message": message}, **job}


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("UNKNOWN", FailureReason.NONE),
        ("INVALID_ARGUMENT", FailureReason.USER_CODE),
        ("DEADLINE_EXCEEDED", FailureReason.TIMEOUT),
        ("PERMISSION_DENIED", FailureReason.USER_CODE),
        ("RESOURCE_EXHAUSTED", FailureReason.QUOTA),
        ("ABORTED", FailureReason.PLATFORM),
        ("INTERNAL", FailureReason.PLATFORM),
        ("UNAVAILABLE", FailureReason.PLATFORM),
        ("DATA_LOSS", FailureReason.PLATFORM),
    ],
)
def test_codes_of_errors_tell_the_reason(code: str, reason: FailureReason) -> None:
    """Where the message says nothing, the code of google.rpc decides whether another try can help."""
    assert status_of(failed("it failed", Code.Value(code))).reason is reason


def test_every_code_of_google_rpc_is_in_the_table() -> None:
    """None is left to chance."""
    assert set(CODES) == set(Code.values())


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("The replica workerpool0-0 exited with a non-zero status of 1. Termination reason: Error.", "user_code"),
        ("The replica workerpool0-0 exited with a non-zero status of 137. OOMKilled.", "out_of_memory"),
        ("The replica master 0 ran out-of-memory and exited with a non-zero status of 9(SIGKILL)", "out_of_memory"),
        ("Replicas low on memory: workerpool0", "out_of_memory"),
        ("Resources are insufficient in region: us-central1.", "platform"),
    ],
)
def test_words_of_errors_go_before_their_codes(message: str, reason: str) -> None:
    """The same code is used for a program's own error and for lost memory: the message tells them apart."""
    assert status_of(failed(message, 8 if "Resources" in message else 3)).reason == reason


def test_a_spot_job_that_lost_its_machines_is_preempted() -> None:
    """Only of a SPOT job, and only if the error says so; its own error stays a failure."""
    on_spot = {"job_spec": {"scheduling": {"strategy": "SPOT"}}}
    assert status_of(failed("STOCKOUT: no machines", 8, **on_spot)).state is JobState.PREEMPTED
    assert status_of(failed("The instance was preempted.", 14, **on_spot)).state is JobState.PREEMPTED
    assert status_of(failed("exited with a non-zero status of 1", **on_spot)).state is JobState.FAILED
    assert status_of(failed("STOCKOUT: no machines", 8)).reason is FailureReason.PLATFORM


def test_a_job_that_used_all_its_time_timed_out() -> None:
    """Vertex AI ends it as CANCELLED; it ran as long as it might, so it was not a person."""
    times = {"start_time": "2026-01-01T00:00:00Z", "end_time": "2026-01-01T00:01:00.5Z"}
    job = {"state": "JOB_STATE_CANCELLED", **times, "job_spec": {"scheduling": {"timeout": "60s"}}}
    assert (status_of(job).state, status_of(job).reason) == (JobState.FAILED, FailureReason.TIMEOUT)
    job["job_spec"]["scheduling"]["timeout"] = "61s"
    assert status_of(job).state is JobState.CANCELLED


def test_the_time_all_nodes_ran_is_counted() -> None:
    """Seconds between start and end, times the nodes of all pools; nothing before the end is known."""
    pools = [{"replica_count": "1"}, {"replica_count": "3"}]
    job = {"state": "JOB_STATE_SUCCEEDED", "start_time": "2026-01-01T00:00:00Z", "end_time": "2026-01-01T00:00:30Z"}
    assert status_of({**job, "job_spec": {"worker_pool_specs": pools}}).billed_seconds == 120.0
    assert status_of({**job, "end_time": None, "job_spec": {"worker_pool_specs": pools}}).billed_seconds is None


def test_a_pipeline_tells_of_its_failed_task() -> None:
    """The error of the task is the reason; that of the pipeline says only that a task failed."""
    task = {"state": "FAILED", "error": {"code": 3, "message": "exited with a non-zero status of 41"}}
    job = {"state": "PIPELINE_STATE_FAILED", "error": {"code": 9, "message": "The DAG failed"}}
    found = status_of({**job, "job_detail": {"task_details": [task]}})
    assert (found.reason, "41" in found.detail) == (FailureReason.USER_CODE, True)


# Specs


@given(
    st.one_of(st.none(), st.floats(0.1, 96)),
    st.one_of(st.none(), st.integers(1, 600_000)),
)
def test_a_chosen_machine_has_what_was_asked_for(cpus: float | None, memory: int | None) -> None:
    """Never less, and there is no smaller number of processors that would do."""
    family, _, number = chosen(Resources(cpus, memory)).rpartition("-")
    each, _ = FAMILIES[family]
    if cpus is None and memory is None:
        assert (family, number) == ("n1-standard", "4")
        return
    assert int(number) >= (cpus or 0)
    assert int(number) * each >= (memory or 0)
    smaller = [(n, m) for m, all_sizes in FAMILIES.values() for n in all_sizes if n < int(number)]
    assert not any(n >= (cpus or 0) and n * m >= (memory or 0) for n, m in smaller)


def test_machines_that_cannot_be_had_are_refused() -> None:
    """Too large a machine, or an accelerator without a kind or a number, is an error that says what to write."""
    with pytest.raises(InvalidSpecError, match=r"97.*instance_type"):
        chosen(Resources(97))
    with pytest.raises(InvalidSpecError, match="accelerator_type"):
        machine_spec(Resources(gpus=1), "")
    with pytest.raises(InvalidSpecError, match="accelerator_type"):
        machine_spec(Resources(), "NVIDIA_TESLA_T4")
    wanted = {"machine_type": "g2-standard-8", "accelerator_type": "NVIDIA_L4", "accelerator_count": 1}
    assert machine_spec(Resources(gpus=1, instance_type="g2-standard-8"), "NVIDIA_L4") == wanted


def test_a_spot_job_keeps_its_place_across_attempts() -> None:
    """Strategy SPOT, retries left to our driver, and the checkpoints' place as output directory and as a folder."""
    job = made(spot=True, checkpoint="gs://ckpt/churn/aml-first", max_runtime=59.5)
    assert job["job_spec"]["scheduling"] == {"disable_retries": True, "strategy": "SPOT", "timeout": {"seconds": 60}}
    assert job["job_spec"]["base_output_directory"] == {"output_uri_prefix": "gs://ckpt/churn/aml-first"}
    assert variables(job)["MLOPS_CHECKPOINT_DIR"] == "/gcs/ckpt/churn/aml-first"
    assert variables(job)["MLOPS_REPORT"] == "/gcs/staging/jobs/aml-x/report.json"


def test_nodes_are_two_pools() -> None:
    """The first pool has one replica, as Vertex AI wants it, the second all others."""
    pools = made(nodes=4)["job_spec"]["worker_pool_specs"]
    assert [pool["replica_count"] for pool in pools] == [1, 3]


def test_what_the_connection_says_is_a_default() -> None:
    """Account and network come from the connection unless the options name others."""
    assert made()["job_spec"]["service_account"] == "trainer@acme.example"
    assert made(VertexOptions(service_account="me@acme.example"))["job_spec"]["service_account"] == "me@acme.example"


def test_a_job_that_cannot_be_is_refused() -> None:
    """No image, no staging bucket, a bare path for checkpoints, too many variables, a name that is no label."""
    with pytest.raises(InvalidSpecError, match="image"):
        made(image="")
    with pytest.raises(InvalidSpecError, match="staging_bucket"):
        custom_job(spec(), "aml-x", OWNER, VertexOptions(), Place("acme", ""))
    with pytest.raises(InvalidSpecError, match=r"'ckpt'.*gs://"):
        made(checkpoint="ckpt")
    with pytest.raises(InvalidSpecError, match=r"10\d variables; Vertex AI takes 100"):
        made(env={f"V{number}": "" for number in range(100)})
    with pytest.raises(InvalidSpecError, match="Aml"):
        custom_job(spec(), "Aml", OWNER, VertexOptions(), PLACE)


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("nodes", {"nodes": 2}),
        ("spot", {"spot": True}),
        ("max_runtime", {"max_runtime": 60.0}),
        ("resources.instance_type", {"resources": Resources(instance_type="n1-standard-4")}),
    ],
)
def test_a_step_of_a_pipeline_refuses_by_name_what_it_has_not(field: str, fields: dict[str, Any]) -> None:
    """Nothing that mode 'pipeline' cannot honour is dropped in silence."""
    with pytest.raises(UnsupportedFeatureError, match=field):
        one_step_pipeline(spec(**fields), "aml-x", OWNER, VertexOptions(), PLACE)


def test_a_step_of_a_pipeline_has_its_needs_and_no_cache() -> None:
    """Processors, memory and accelerators are limits of the step; it is never answered from an earlier run."""
    asked = spec(resources=Resources(4, 15259, 1))
    job = one_step_pipeline(asked, "aml-x", OWNER, VertexOptions(accelerator_type="NVIDIA_L4"), PLACE)
    pipeline = job["pipeline_spec"]
    found = pipeline["deploymentSpec"]["executors"]["exec-train"]["container"]["resources"]
    assert found["cpuLimit"] == 4
    assert found["memoryLimit"] == pytest.approx(16.0, abs=0.01)
    assert found["accelerator"] == {"count": "1", "type": "NVIDIA_L4"}
    assert pipeline["root"]["dag"]["tasks"]["train"]["cachingOptions"] == {"enableCache": False}
    with pytest.raises(InvalidSpecError, match="mode 'job'"):
        one_step_pipeline(spec(args=("{{$.x}}",)), "aml-x", OWNER, VertexOptions(), PLACE)


def test_options_are_of_their_kinds() -> None:
    """A wrong word, kind or label is refused with its name."""
    for options, told in (
        ({"acelerator_type": "x"}, "did you mean 'accelerator_type'"),
        ({"mode": "batch"}, "'batch'"),
        ({"labels": {"Team": "a"}}, "Team"),
        ({"boot_disk_size_gb": "100"}, "boot_disk_size_gb"),
    ):
        with pytest.raises(InvalidSpecError, match=told):
            read_options("vertex", options)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("mlflow/latest", "projects/acme/secrets/mlflow/versions/latest"),
        ("mlflow/3", "projects/acme/secrets/mlflow/versions/3"),
        ("projects/other/secrets/mlflow", "projects/other/secrets/mlflow/versions/latest"),
        ("projects/other/secrets/mlflow/versions/7", "projects/other/secrets/mlflow/versions/7"),
    ],
)
def test_a_secret_is_one_of_secret_manager(written: str, name: str) -> None:
    """By its name and version in the job's own project, or by its full name."""
    assert secret_version(written, "acme") == name


def test_a_variable_of_the_worker_is_no_secret_here() -> None:
    """A bare name is refused, with what to write instead."""
    with pytest.raises(InvalidSpecError, match=r"'TOKEN'.*<secret>/latest"):
        secret_version("TOKEN", "acme")


def test_no_value_of_a_secret_is_in_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the name of the secret travels, and the program's variable is not in the description at all."""
    monkeypatch.setenv("TOKEN", "s3cr3t-value")
    job = made(secret_env={"TOKEN": "token/latest"}, env={"TOKEN": "shadowed"})
    assert "s3cr3t-value" not in json.dumps(job)
    assert "TOKEN" not in variables(job)
    assert json.loads(variables(job)["MLOPS_SECRETS"]) == {"TOKEN": "projects/acme/secrets/token/versions/latest"}


def test_only_addresses_in_cloud_storage_are_mounted() -> None:
    """A bucket is a folder; anything else is refused."""
    assert mounted("gs://bucket/a b/c") == "/gcs/bucket/a b/c"
    for wrong in ("s3://bucket/a", "/tmp/a", "gs://", "gs://B/a"):
        with pytest.raises(InvalidSpecError, match="gs://bucket"):
            mounted(wrong)


def test_the_how_to_names_every_option_and_extra() -> None:
    """What can be set is written down where people look for it."""
    text = (Path(__file__).parents[2] / "docs" / "howto" / "vertex.md").read_text()
    names = [field.name for kind in (VertexOptions, RunOptions) for field in dataclasses.fields(kind)]
    assert [name for name in (*names, *OFFICIAL, *OWN, *TOLERATED) if f"`{name}`" not in text] == []


# Owners and logs


@given(st.builds(TaskIdentity, *[st.text(max_size=80)] * 3, map_index=st.integers(-1, 1000), deployment_id=st.text()))
def test_any_owner_survives_labels(owner: TaskIdentity) -> None:
    """Labels take few characters; what is written into them is read from them."""
    found = owner_labels(owner)
    assert all(len(value) <= 63 and value.isascii() and value == value.lower() for value in found.values())
    assert owner_in(found) == owner
    assert owner_in({}) is None


@given(st.integers(0, 4 * 10**18))
def test_an_offset_is_a_time_to_the_nanosecond(moment: int) -> None:
    """What is asked for and what is answered are the same moment."""
    assert nanoseconds(rfc3339(moment)) == moment


def entry(moment: int, text: str = "x") -> dict[str, Any]:
    """Return a log entry."""
    return {"timestamp": rfc3339(moment), "jsonPayload": {"message": text}}


def test_a_page_is_cut_where_no_line_is_lost() -> None:
    """Lines of one time are read together: the next page begins after that time."""
    entries = [entry(1), entry(2), entry(2)]
    assert whole(entries, has_more=False) == entries
    assert whole(entries, has_more=True) == entries[:1]
    assert whole([entry(2), entry(2)], has_more=True) == [entry(2), entry(2)]
    assert whole([], has_more=False) == []
    large = [entry(number, "x" * 400_000) for number in range(4)]
    assert whole(large, has_more=False) == large[:1]


@pytest.mark.parametrize("variable", ["A-B", "Aé", "1A", ""])
def test_a_name_that_no_shell_takes_is_refused(variable: str) -> None:
    """A shell would print such a name together with its value, which may be a secret's."""
    for fields in ({"env": {variable: "x"}}, {"secret_env": {variable: "token/latest"}}):
        spec = TrainingSpec(("true",), image="image", **fields)
        with pytest.raises(InvalidSpecError, match="cannot be a variable"):
            environment(spec, "aml-x", OWNER, project="acme", report="gs://bucket/report.json")
