"""Pods of the fake: volumes, termination messages, init containers, quotas, images, and what belongs to a Job."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from kubernetes.client.exceptions import ApiException

from airflow_mlops.testing.kubernetes import JOBS, PODS


def with_pod(job: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Change fields of the pod's spec."""
    job["spec"]["template"]["spec"] |= fields
    return job


def with_container(job: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Change fields of the container."""
    job["spec"]["template"]["spec"]["containers"][0] |= fields
    return job


def variable(name: str, value: str) -> dict[str, str]:
    """Return one variable."""
    return {"name": name, "value": value}


def test_a_termination_message_is_in_the_status(session: Any, job: Callable[..., Any]) -> None:
    """What a program writes to the file is in the pod's status, its last 4096 bytes, whichever way it ended."""
    where = [variable("OUT", "/dev/termination-log")]
    session.batch.create_namespaced_job("default", job("message", 'printf "%05000d" 7 > $OUT; exit 3', env=where))
    session.finished("message")
    ended = session.pods("message")[0].status.container_statuses[0].state.terminated
    assert (ended.exit_code, len(ended.message), ended.message[-2:]) == (3, 4096, "07")


def test_a_claim_is_shared_and_an_empty_folder_is_not(session: Any, job: Callable[..., Any]) -> None:
    """A claim is one folder for all pods that mount it, below its sub path; an empty folder is the pod's own."""
    volumes = [{"name": "kept", "persistentVolumeClaim": {"claimName": "c"}}, {"name": "own", "emptyDir": {}}]
    mounts = [{"name": "kept", "mountPath": "/kept", "subPath": "a/b"}, {"name": "own", "mountPath": "/own"}]
    env = [variable("KEPT", "/kept/file"), variable("OWN", "/own"), variable("ELSE", "/keptnot")]
    for name in ("volumes-1", "volumes-2"):
        body = job(name, "date >> $KEPT; date >> $OWN/file; wc -l < $KEPT; wc -l < $OWN/file; echo $ELSE", env=env)
        session.batch.create_namespaced_job(
            "default", with_container(with_pod(body, volumes=volumes), volumeMounts=mounts)
        )
        session.finished(name)
    logs = [session.log(session.pods(name)[0].metadata.name).split() for name in ("volumes-1", "volumes-2")]
    assert logs == [["1", "1", "/keptnot"], ["2", "1", "/keptnot"]]


def test_init_containers_run_one_after_the_other(session: Any, job: Callable[..., Any]) -> None:
    """They run before the command, in order, with their own logs and states; the pod is Pending meanwhile."""
    mount = [{"name": "own", "mountPath": "/own"}]
    shared = {"image": "x:1", "volumeMounts": mount, "env": [variable("OWN", "/own")]}
    inits = [
        {"name": "one", "command": ["sh", "-c", "sleep 0.5; echo one | tee $OWN/file"], **shared},
        {"name": "two", "command": ["sh", "-c", "echo two >> $(OWN)/file"], **shared},
    ]
    body = job("inits", "cat $OWN/file", env=[variable("OWN", "/own")])
    body = with_pod(body, initContainers=inits, volumes=[{"name": "own", "emptyDir": {}}])
    session.batch.create_namespaced_job("default", with_container(body, volumeMounts=mount))
    assert session.pod("inits", "Pending").status.container_statuses is None
    assert "Complete" in session.finished("inits")
    pod = session.pods("inits")[0]
    assert session.log(pod.metadata.name) == "one\ntwo\n"
    assert session.log(pod.metadata.name, container="one") == "one\n"
    assert [one.state.terminated.exit_code for one in pod.status.init_container_statuses] == [0, 0]


def test_an_init_container_that_fails_fails_the_pod(session: Any, job: Callable[..., Any]) -> None:
    """The command never starts, and the code is in the state of the init container."""
    init = {"name": "fetch", "image": "x:1", "command": ["sh", "-c", "echo no; exit 7"]}
    session.batch.create_namespaced_job("default", with_pod(job("bad-init", "echo never"), initContainers=[init]))
    assert session.finished("bad-init")["Failed"] == "BackoffLimitExceeded"
    pod = session.pods("bad-init")[0]
    assert pod.status.init_container_statuses[0].state.terminated.exit_code == 7
    assert pod.status.container_statuses[0].state.waiting.reason == "PodInitializing"
    assert session.log(pod.metadata.name, container="fetch") == "no\n"


def test_an_init_container_ends_with_its_pod(session: Any, job: Callable[..., Any], until: Callable[..., Any]) -> None:
    """A Job that is over its time while inputs are fetched leaves no pod behind."""
    init = {"name": "fetch", "image": "x:1", "command": ["sleep", "60"]}
    body = with_pod(job("slow-init", "true", activeDeadlineSeconds=1), initContainers=[init])
    session.batch.create_namespaced_job("default", body)
    assert session.finished("slow-init")["Failed"] == "DeadlineExceeded"
    until(lambda: session.pods("slow-init") == [])


@pytest.mark.parametrize(
    ("change", "code", "told"),
    [
        (lambda body: with_pod(body, volumes=[{"name": "v", "hostPath": {"path": "/"}}]), 501, "volumes"),
        (lambda body: with_container(body, volumeMounts=[{"name": "v", "mountPath": "/v"}]), 422, "Not found"),
        (
            lambda body: with_pod(
                body, initContainers=[{"name": "i", "image": "x", "command": ["true"], "restartPolicy": "Always"}]
            ),
            501,
            "restart policy",
        ),
    ],
)
def test_what_is_wrong_or_not_modelled_is_refused(
    session: Any, job: Callable[..., Any], change: Callable[[Any], Any], code: int, told: str
) -> None:
    """A mount without a volume is 422; other volumes and init containers that stay are 501."""
    with pytest.raises(ApiException) as caught:
        session.batch.create_namespaced_job("default", change(job("refused", "true")))
    assert caught.value.status == code
    assert told in caught.value.body


def test_quotas_refuse_jobs_and_pods(session: Any, job: Callable[..., Any], until: Callable[..., Any]) -> None:
    """A quota on Jobs is a 403 to the client; one on Pods an event of the Job, which goes on when there is room."""
    session.fake.limit(JOBS, 0)
    with pytest.raises(ApiException) as caught:
        session.submit("over-quota", "true")
    assert (caught.value.status, "exceeded quota" in caught.value.body) == (403, True)
    session.fake.limit(JOBS, None)
    session.fake.limit(PODS, 0)
    session.submit("no-pods", "true")
    until(lambda: "FailedCreate" in session.reasons("no-pods"))
    session.fake.limit(PODS, None)
    assert "Complete" in session.finished("no-pods")


def test_a_missing_image_holds_a_pod_back(session: Any, job: Callable[..., Any], until: Callable[..., Any]) -> None:
    """The pod waits with the kubelet's reason and event, and starts when the image is there."""
    session.fake.hide_image("private:1")
    session.batch.create_namespaced_job("default", with_container(job("no-image", "true"), image="private:1"))
    pod = session.pod("no-image", "Pending")
    until(lambda: "Failed" in session.reasons(pod.metadata.name))
    state = session.pods("no-image")[0].status.container_statuses[0].state
    assert state.waiting.reason == "ImagePullBackOff"
    session.fake.hide_image("private:1", False)
    assert "Complete" in session.finished("no-image")


@pytest.mark.parametrize(("policy", "stays"), [("Background", False), ("Orphan", True)])
def test_what_a_job_owns_goes_with_it(session: Any, until: Callable[..., Any], policy: str, stays: bool) -> None:
    """A Secret and a Service with an owner reference are removed with the Job, unless they are orphaned."""
    name = f"owner-{policy.lower()}"
    made = session.submit(name, "true")
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": made.metadata.uid}
    metadata = {"name": name, "ownerReferences": [owner]}
    session.core.create_namespaced_secret("default", {"metadata": metadata})
    service = {"metadata": metadata, "spec": {"clusterIP": "None", "selector": {"job-name": name}}}
    session.core.create_namespaced_service("default", service)
    session.batch.delete_namespaced_job(name, "default", propagation_policy=policy)

    def left() -> list[str]:
        kinds = (session.core.list_namespaced_secret, session.core.list_namespaced_service)
        return [item.metadata.name for kind in kinds for item in kind("default").items if item.metadata.name == name]

    until(lambda: len(left()) == (2 if stays else 0))
    if stays:
        assert session.core.read_namespaced_secret(name, "default").metadata.owner_references is None


def test_services_with_an_address_are_not_modelled(session: Any) -> None:
    """Only headless Services are served."""
    with pytest.raises(ApiException) as caught:
        session.core.create_namespaced_service(
            "default", {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}}
        )
    assert caught.value.status == 501
