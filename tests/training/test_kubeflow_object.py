"""What a training spec becomes as a TrainJob, and what the words of a TrainJob mean: pure."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.core.errors import InvalidSpecError, UnsupportedFeatureError
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.testing.kubernetes.schema import check_schema
from airflow_mlops.testing.kubernetes.trainer import TRAIN_JOBS, training_runtime
from airflow_mlops.training.backends import kubeflow_object as manifest
from airflow_mlops.training.backends.kubeflow_runtime import refuse_runtime, repeats
from airflow_mlops.training.backends.kubeflow_status import STATES, train_job_status
from airflow_mlops.training.backends.kubernetes_job import CANCELLED
from airflow_mlops.training.contract import FailureReason, JobState, Resources, TrainingSpec

OWNER = TaskIdentity("dag", "run", "train")
NAME = "aml-abcdefgh12345678"
ALL = {
    "runtime": "mine",
    "runtime_kind": "TrainingRuntime",
    "num_proc_per_node": 4,
    "service_account": "trainer",
    "node_selector": {"pool": "gpu"},
    "tolerations": [{"key": "spot", "operator": "Exists"}],
    "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
    "volume_mounts": [{"name": "data", "mountPath": "/data", "readOnly": True}],
    "image_pull_secrets": ["registry"],
    "labels": {"team": "churn"},
    "annotations": {"note": "x"},
    "gpu_resource": "amd.com/gpu",
}


def made(spec: TrainingSpec, **defaults: Any) -> dict[str, Any]:
    """Return the TrainJob of a spec."""
    options = manifest.read_options("kubeflow", spec.options, defaults)
    return manifest.train_job(spec, NAME, OWNER, options)


def test_every_field_has_its_place() -> None:
    """All fields of a spec and all options are in the TrainJob, which has the shape that the CRD wants."""
    resources = Resources(cpus=2.5, memory_mib=512, gpus=2, instance_type="big")
    spec = TrainingSpec(
        *(("python", "train.py"), ("--fast",), "image:1"),
        parameters={"lr": 0.1},
        resources=resources,
        nodes=3,
        checkpoint="pvc://claim/churn",
        max_runtime=59.5,
        options=ALL,
    )
    body = made(spec)["spec"]
    assert body["runtimeRef"] == {"name": "mine", "kind": "TrainingRuntime", "apiGroup": "trainer.kubeflow.org"}
    trainer = body["trainer"]
    assert (trainer["command"], trainer["args"]) == (["python", "train.py"], ["--fast", "--lr", "0.1"])
    assert (trainer["image"], trainer["numNodes"], trainer["numProcPerNode"]) == ("image:1", 3, 4)
    limits = {"memory": "512Mi", "amd.com/gpu": "2"}
    assert trainer["resourcesPerNode"] == {"requests": {"cpu": "2500m", "memory": "512Mi"}, "limits": limits}
    assert body["activeDeadlineSeconds"] == 60
    jobs = body["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    template = jobs[0]["template"]["spec"]["template"]
    assert template["metadata"]["labels"] == {"team": "churn", "app.kubernetes.io/managed-by": "airflow-mlops"}
    pod = template["spec"]
    assert pod["nodeSelector"] == {"pool": "gpu", "node.kubernetes.io/instance-type": "big"}
    assert (pod["serviceAccountName"], pod["imagePullSecrets"]) == ("trainer", [{"name": "registry"}])
    assert [volume["name"] for volume in pod["volumes"]] == ["data", "mlops-checkpoints"]
    assert [mount["name"] for mount in pod["containers"][0]["volumeMounts"]] == ["data", "mlops-checkpoints"]


texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=20)


@given(
    args=st.lists(texts, max_size=4),
    env=st.dictionaries(st.from_regex(r"[A-Z_]{1,8}", fullmatch=True), texts, max_size=4),
    nodes=st.integers(1, 100),
    max_runtime=st.none() | st.floats(0.01, 1e6),
)
def test_whatever_the_spec_the_shape_is_right(
    args: list[str], env: dict[str, str], nodes: int, max_runtime: float | None
) -> None:
    """No spec makes an object that the CRD refuses, and JSON can carry it."""
    spec = TrainingSpec(("sh",), tuple(args), env=env, nodes=nodes, max_runtime=max_runtime)
    body = json.loads(json.dumps(made(spec)))
    found = check_schema(TRAIN_JOBS.schema, body)
    assert (found.errors, found.missing) == ([], [])


@pytest.mark.parametrize("option", list(manifest.REFUSED))
def test_what_a_train_job_cannot_carry_is_refused_by_name(option: str) -> None:
    """The message names the option and says where else to put it."""
    with pytest.raises(UnsupportedFeatureError, match=f"'options.{option}'.*TrainJob"):
        made(TrainingSpec(("true",), options={option: "x"}))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"runtim": "x"}, "did you mean 'runtime'"),
        ({"runtime": 3}, "'runtime'.*is 3"),
        ({"num_proc_per_node": True}, "'num_proc_per_node'.*True"),
        ({"runtime_kind": "Deployment"}, "ClusterTrainingRuntime, TrainingRuntime"),
        ({"node_selector": ["a"]}, "'node_selector'"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], told: str) -> None:
    """An unknown option and one of the wrong kind are errors, not ignored."""
    with pytest.raises(InvalidSpecError, match=told):
        made(TrainingSpec(("true",), options=options))


def test_a_volume_at_two_paths_is_refused() -> None:
    """The API takes a volume's name only once in a container."""
    mounts = [{"name": "data", "mountPath": "/a"}, {"name": "data", "mountPath": "/b"}]
    with pytest.raises(UnsupportedFeatureError, match=r"options.volume_mounts.*only once"):
        made(TrainingSpec(("true",), options={"volume_mounts": mounts}))


def test_a_variable_has_one_value() -> None:
    """What we say of the world stands against a variable of the same name, which the API would refuse."""
    body = made(TrainingSpec(("true",), env={"MLOPS_NODES": "7", "MLOPS_MASTER_ADDR": "x"}, nodes=2))
    found = [(one["name"], one.get("value")) for one in body["spec"]["trainer"]["env"]]
    assert [value for name, value in found if name in ("MLOPS_NODES", "MLOPS_MASTER_ADDR")] == [
        "2",
        f"{NAME}-node-0-0.{NAME}",
    ]


@pytest.mark.parametrize("name", ["a" * 36, "1st", "Upper", "dot.ted", "end-"])
def test_names_that_pods_could_not_have_are_refused(name: str) -> None:
    """The name is the beginning of longer ones, and a DNS label."""
    options = manifest.read_options("kubeflow", {}, {})
    with pytest.raises(InvalidSpecError, match=name):
        manifest.train_job(TrainingSpec(("true",)), name, OWNER, options)


def test_a_runtime_with_a_launcher_is_refused() -> None:
    """Results are read from ``node``: a runtime whose trainer is elsewhere would lose them."""
    runtime = training_runtime("deepspeed-distributed")
    jobs = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    jobs.append({**jobs[0], "name": "launcher"})
    jobs[0] = {"name": "node", "template": {"spec": jobs[0]["template"]["spec"]}}
    options = manifest.TrainerOptions("deepspeed-distributed")
    with pytest.raises(UnsupportedFeatureError, match=r"deepspeed-distributed.*launcher"):
        refuse_runtime(TrainingSpec(("true",)), runtime, options)


def test_a_runtime_that_would_run_failed_jobs_again_is_refused() -> None:
    """When a JobSet is removed by its TTL, Trainer up to 2.3 starts a failed TrainJob from the beginning."""
    runtime = training_runtime("tidy")
    runtime["spec"]["template"]["spec"]["ttlSecondsAfterFinished"] = 60
    with pytest.raises(UnsupportedFeatureError, match=r"tidy.*ttlSecondsAfterFinished.*3779"):
        refuse_runtime(TrainingSpec(("true",)), runtime, manifest.TrainerOptions("tidy"))


def test_the_shipped_runtime_repeats_programs() -> None:
    """What says nothing of restarts has the defaults of JobSet and Job; ours never repeats."""
    shipped = training_runtime()
    node = {"template": {"spec": {"containers": [{"name": "node"}]}}}
    shipped["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"] = node
    assert "up to 6 times (restartPolicy OnFailure); then its pods are deleted" in repeats(shipped)
    assert repeats(training_runtime()) == ""
    assert repeats({}) == ""


def train_job(
    *conditions: tuple[str, str], suspend: bool = False, ours: bool = False, deleted: bool = False, **counts: int
) -> dict[str, Any]:
    """Return a TrainJob with these true conditions and counts of its nodes."""
    told = [{"type": kind, "status": "True", "reason": reason, "message": "m"} for kind, reason in conditions]
    metadata = {
        "annotations": {CANCELLED: "true"} if ours else {},
        **({"deletionTimestamp": "2026-01-01T00:00:00Z"} if deleted else {}),
    }
    status = {"conditions": told, "jobsStatus": [{"name": "node", **counts}]}
    return {"metadata": metadata, "spec": {"suspend": suspend}, "status": status}


SUSPENDED = ("Suspended", "Suspended")


@pytest.mark.parametrize(
    ("found", "word"),
    [
        ({"metadata": {}, "spec": {}}, "Created"),
        (train_job(active=1), "Created"),
        (train_job(active=1, ready=1), "Ready"),
        (train_job(succeeded=1), "Ready"),
        (train_job(("Complete", "AllJobsCompleted"), succeeded=1), "Complete"),
        (train_job(("Complete", "AllJobsCompleted"), SUSPENDED, suspend=True, ours=True), "Complete"),
        (train_job(("Failed", "FailedJobs")), "Failed"),
        (train_job(("Failed", "ANewReason")), "Failed"),
        (train_job(("Failed", "DeadlineExceeded")), "DeadlineExceeded"),
        (train_job(("Failed", "FailedJobs"), suspend=True, ours=True), "Cancelled"),
        (train_job(SUSPENDED, suspend=True), "Suspended"),
        (train_job(suspend=True, ours=True), "Suspending"),
        (train_job(SUSPENDED, suspend=True, ours=True, active=1), "Suspending"),
        (train_job(SUSPENDED, suspend=True, ours=True, suspended=1), "Cancelled"),
        (train_job(SUSPENDED, suspend=True, deleted=True), "Deleting"),
        (train_job(active=1, ready=1, ours=True), "Ready"),
    ],
)
def test_words_and_states(found: dict[str, Any], word: str) -> None:
    """Each description has one word, and each word one state; being marked by us alone ends nothing."""
    status = train_job_status(found)
    assert (status.native, status.state) == (word, STATES[word])


@pytest.mark.parametrize("odd", [{}, {"metadata": {}, "spec": None}, {**train_job(), "status": {"conditions": "odd"}}])
def test_what_cannot_be_read_is_unknown(odd: dict[str, Any]) -> None:
    """One odd job is UNKNOWN: it is looked at again, and spoils no look at others."""
    assert train_job_status(odd).state is JobState.UNKNOWN


def test_progress_and_time() -> None:
    """The share done is passed on; a deadline is a failure of its own kind."""
    running = train_job(ready=1)
    running["status"]["trainerStatus"] = {"progressPercentage": 40}
    assert train_job_status(running).progress == 0.4
    assert train_job_status(train_job(("Failed", "DeadlineExceeded"))).reason is FailureReason.TIMEOUT
