"""What a training spec becomes on Kubernetes, without a cluster."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.core.refs import DataVersion
from airflow_mlops.testing.kubernetes.environment import expanded
from airflow_mlops.training.backends.kubernetes_job import job_body, secret_body, service_body
from airflow_mlops.training.backends.kubernetes_pod import PodOptions, escaped, pod_template, read_options
from airflow_mlops.training.backends.kubernetes_volumes import checkpoint_place
from airflow_mlops.training.contract import Resources, TrainingSpec

OWNER = TaskIdentity("dag", "run", "train")
VERSION = DataVersion("data/train", "v1", "c" * 40, "md5:0123", 3, repo="https://example.com/data.git")
JOB = {"metadata": {"name": "aml-1", "uid": "u-1"}}


def spec(**fields: Any) -> TrainingSpec:
    """Return a spec with an image."""
    return TrainingSpec(**{"command": ("python", "train.py"), "image": "train:1", **fields})


def pod(wanted: TrainingSpec, **options: Any) -> dict[str, Any]:
    """Return the spec of the pod."""
    found: dict[str, Any] = pod_template(
        wanted, "aml-1", read_options("kubernetes", options), labels={}, annotations={}
    )["spec"]
    return found


def variables(container: dict[str, Any]) -> dict[str, Any]:
    """Return a container's variables: plain values, or where they come from."""
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container["env"]}


@given(st.text(alphabet="$()A b{}", max_size=12))
def test_a_dollar_reaches_the_program(text: str) -> None:
    """Kubernetes replaces ``$(NAME)`` in commands and values: what the spec says arrives as it was written."""
    assert expanded(escaped(text), {"A": "replaced"}) == text


def test_one_container_runs_the_command_and_never_restarts() -> None:
    """Command, arguments and parameters are those of the spec; a pod that failed is not started again in place."""
    found = pod(spec(args=("a b",), parameters={"lr": 0.5}))
    container = found["containers"][0]
    assert (container["command"], container["args"]) == (["python", "train.py"], ["a b", "--lr", "0.5"])
    assert (found["restartPolicy"], len(found["containers"])) == ("Never", 1)
    assert "initContainers" not in found


def test_the_world_is_told_on_one_node_and_on_many() -> None:
    """Rank, size, host and port are there on every job; more nodes find node 0 by its name in the Service."""
    one, many = pod(spec()), pod(spec(nodes=3))
    alone, together = variables(one["containers"][0]), variables(many["containers"][0])
    assert (alone["MLOPS_NODES"], alone["MLOPS_MASTER_ADDR"]) == ("1", "127.0.0.1")
    assert (together["MLOPS_NODES"], together["MLOPS_MASTER_ADDR"]) == ("3", "aml-1-0.aml-1")
    assert together["MLOPS_MASTER_PORT"] == str(service_body(JOB)["spec"]["ports"][0]["port"])
    assert "job-completion-index" in together["MLOPS_NODE_RANK"]["fieldRef"]["fieldPath"]
    assert (one.get("subdomain"), many["subdomain"]) == (None, service_body(JOB)["metadata"]["name"])


def test_resources_are_asked_for_and_memory_is_bounded() -> None:
    """Cores are a request, memory request and limit, accelerators a limit of the resource that the option names."""
    wanted = spec(resources=Resources(cpus=1.5, memory_mib=512, gpus=2, instance_type="m5.large"))
    found = pod(wanted, gpu_resource="amd.com/gpu", node_selector={"pool": "spot"})
    assert found["containers"][0]["resources"] == {
        "requests": {"cpu": "1500m", "memory": "512Mi"},
        "limits": {"memory": "512Mi", "amd.com/gpu": "2"},
    }
    assert found["nodeSelector"] == {"pool": "spot", "node.kubernetes.io/instance-type": "m5.large"}


def test_secrets_are_names() -> None:
    """A secret of the cluster is referred to by name and key, one of the worker by the Secret that the job owns."""
    found = variables(
        pod(spec(env={"TOKEN": "plain"}, secret_env={"TOKEN": "MY_TOKEN", "KEY": "vault/api-key"}))["containers"][0]
    )
    assert found["TOKEN"] == {"secretKeyRef": {"name": "aml-1", "key": "TOKEN"}}
    assert found["KEY"] == {"secretKeyRef": {"name": "vault", "key": "api-key"}}
    secret = secret_body(JOB, {"TOKEN": "s3cret"})
    assert secret["metadata"]["name"] == "aml-1"
    assert secret["metadata"]["ownerReferences"][0]["uid"] == "u-1"


def test_placement_is_passed_on() -> None:
    """Account, tolerations, pull secrets, priority, volumes and mounts arrive in the pod."""
    toleration = {"key": "spot", "operator": "Exists"}
    found = pod(
        spec(),
        service_account="trainer",
        tolerations=[toleration],
        image_pull_secrets=["registry"],
        priority_class="low",
        volumes=[{"name": "scratch", "emptyDir": {}}],
        volume_mounts=[{"name": "scratch", "mountPath": "/scratch"}],
    )
    assert (found["serviceAccountName"], found["priorityClassName"]) == ("trainer", "low")
    assert (found["tolerations"], found["imagePullSecrets"]) == ([toleration], [{"name": "registry"}])
    assert found["volumes"] == [{"name": "scratch", "emptyDir": {}}]
    assert found["containers"][0]["volumeMounts"] == [{"name": "scratch", "mountPath": "/scratch"}]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"node_selectr": {}}, "did you mean 'node_selector'"),
        ({"image_pull_secrets": "registry"}, "image_pull_secrets"),
        ({"labels": ["a"]}, "labels"),
        ({"ttl_seconds_after_finished": "week"}, "ttl_seconds_after_finished"),
        ({"tolerations": ["spot"]}, "tolerations"),
    ],
)
def test_wrong_options_are_refused_by_name(options: dict[str, Any], told: str) -> None:
    """An unknown option is refused with the name that was meant, a wrong kind of value with the option's name."""
    with pytest.raises(InvalidSpecError, match=told):
        read_options("kubernetes", options)


def test_checkpoints_are_a_claim_or_an_address() -> None:
    """A claim is mounted and seen as a path; an address is passed on; a path of a pod's own disk is refused."""
    found = pod(spec(checkpoint="pvc://models/flights/1"))
    container = found["containers"][0]
    assert found["volumes"][0]["persistentVolumeClaim"] == {"claimName": "models"}
    assert container["volumeMounts"][0]["subPath"] == "flights/1"
    assert variables(container)["MLOPS_CHECKPOINT_DIR"] == container["volumeMounts"][0]["mountPath"]
    assert variables(pod(spec(checkpoint="s3://b/c"))["containers"][0])["MLOPS_CHECKPOINT_DIR"] == "s3://b/c"
    for wrong, told in (("/data/checkpoints", "pvc://<claim>"), ("pvc://a/../b", "is not"), ("pvc://", "is not")):
        with pytest.raises(InvalidSpecError, match=told):
            checkpoint_place(wrong)


def test_inputs_are_fetched_before_the_start() -> None:
    """With an image to fetch with, each data version has an init container, and its variable is a path."""
    wanted = spec(inputs={"train": VERSION}, env={"MLOPS_INPUT_TRAIN": VERSION.uri})
    found = pod(wanted, fetch_image="dvc:3", fetch_secret="git")
    fetch = found["initContainers"][0]
    assert fetch["command"] == [
        *("dvc", "get", "--rev", "c" * 40, "--out", "$(MLOPS_INPUT_TRAIN)"),
        *("--", "https://example.com/data.git", "data/train"),
    ]
    assert (fetch["image"], fetch["envFrom"]) == ("dvc:3", [{"secretRef": {"name": "git"}}])
    assert variables(found["containers"][0])["MLOPS_INPUT_TRAIN"] == variables(fetch)["MLOPS_INPUT_TRAIN"]
    assert fetch["volumeMounts"] == found["containers"][0]["volumeMounts"]


def test_inputs_are_left_as_they_are_without_an_image_or_with_a_path() -> None:
    """Without an image to fetch with, the program sees the address; an input whose path is known is not fetched."""
    wanted = spec(inputs={"train": VERSION}, env={"MLOPS_INPUT_TRAIN": VERSION.uri})
    assert variables(pod(wanted)["containers"][0])["MLOPS_INPUT_TRAIN"] == VERSION.uri
    mounted = spec(inputs={"train": VERSION}, env={"MLOPS_INPUT_TRAIN": "/mnt/train"})
    found = pod(mounted, fetch_image="dvc:3")
    assert "initContainers" not in found
    assert variables(found["containers"][0])["MLOPS_INPUT_TRAIN"] == "/mnt/train"


@pytest.mark.parametrize(("fields", "action"), [({}, "Ignore"), ({"spot": True}, "FailJob"), ({"nodes": 2}, "FailJob")])
def test_a_pod_that_is_taken_away(fields: dict[str, Any], action: str) -> None:
    """Where nobody said that nodes may go away, Kubernetes replaces the pod; otherwise the attempt ends."""
    rules = job_body(spec(**fields), "aml-1", OWNER, PodOptions())["spec"]["podFailurePolicy"]["rules"]
    assert [(rule["action"], rule["onPodConditions"][0]["type"]) for rule in rules] == [(action, "DisruptionTarget")]


def test_a_job_says_whose_it_is_and_ends_in_time() -> None:
    """Owner, digest and data are annotations; it is tried once, ends after max_runtime and stays for a week."""
    wanted = spec(nodes=2, max_runtime=1.2, inputs={"train": VERSION})
    body = job_body(wanted, "aml-1", OWNER, read_options("kubernetes", {"labels": {"team": "a"}}))
    notes, made = body["metadata"]["annotations"], body["spec"]
    assert json.loads(notes["airflow-mlops/owner"]) == OWNER.to_dict()
    assert notes["airflow-mlops/spec"] == wanted.digest()
    assert json.loads(notes["airflow-mlops/data"]) == {"train": VERSION.to_dict()}
    assert body["metadata"]["labels"] == {"team": "a", "app.kubernetes.io/managed-by": "airflow-mlops"}
    assert (made["activeDeadlineSeconds"], made["backoffLimit"], made["ttlSecondsAfterFinished"]) == (2, 0, 604800)
    assert (made["completionMode"], made["completions"], made["parallelism"]) == ("Indexed", 2, 2)


@pytest.mark.parametrize("name", ["Upper", "a.b", "-a", "1a", "a" * 61, ""])
def test_names_that_cannot_be_a_job_are_refused(name: str) -> None:
    """A name that the cluster would refuse, or change, is refused here."""
    with pytest.raises(InvalidSpecError, match="job name"):
        job_body(spec(), name, OWNER, PodOptions())


def test_a_job_needs_an_image() -> None:
    """Without an image the error says which field is missing."""
    with pytest.raises(InvalidSpecError, match="image"):
        pod(spec(image=""))
