"""What the fake accepts and refuses, over the wire with the official client."""

from __future__ import annotations

import json
import ssl
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from kubernetes import client, config

MERGE = "application/merge-patch+json"


def refusal(call: Callable[[], Any]) -> tuple[int, str]:
    """Return the code and the message of a refused request."""
    with pytest.raises(client.ApiException) as caught:
        call()
    return caught.value.status, json.loads(caught.value.body)["message"]


def with_change(job: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Set (or, for None, remove) one field of a Job; a number in the path is an index."""
    *parents, last = path.split(".")
    target: Any = job
    for part in parents:
        target = target[int(part)] if part.isdigit() else target[part]
    target.pop(last, None)
    if value is not None:
        target[last] = value
    return job


def create_unchecked(session: Any, job: dict[str, Any]) -> Any:
    """Send a Job past the client's own checks, which know the same models."""
    body = {"apiVersion": "batch/v1", "kind": "Job"} | job
    return session.custom.create_namespaced_custom_object("batch", "v1", "default", "jobs", body)


REFUSED = [
    ("metadata.name", "Not_DNS", 422, "RFC 1123"),
    ("metadata.name", "a" * 64, 422, "no more than 63"),
    ("metadata.labels", {"a": "no spaces"}, 422, "a valid label"),
    ("spec.retries", 3, 400, 'unknown field "spec.retries"'),
    ("spec.template.spec.containers.0.comand", ["x"], 400, 'unknown field "spec.template.spec.containers[0].comand"'),
    ("spec.backoffLimit", "3", 400, "spec.backoffLimit of type int32"),
    ("spec.template", None, 422, "spec.template: Required value"),
    ("spec.template.spec.containers.0.name", None, 422, "containers[0].name: Required value"),
    ("spec.template.spec.restartPolicy", None, 422, "restartPolicy"),
    ("spec.template.spec.restartPolicy", "Always", 422, "Unsupported value"),
    ("spec.backoffLimit", -1, 422, "greater than or equal to 0"),
    ("spec.successPolicy", {"rules": [{"succeededCount": 1}]}, 501, "does not model"),
    ("apiVersion", "batch/v2", 400, "does not match"),
]


@pytest.mark.parametrize(("path", "value", "code", "told"), REFUSED)
def test_a_malformed_job_is_refused(session: Any, job: Any, path: str, value: Any, code: int, told: str) -> None:
    """Unknown fields and wrong types are 400, missing and invalid ones 422, what is not modelled 501, each by name."""
    body = with_change(job("refused", "true"), path, value)
    answer = refusal(lambda: create_unchecked(session, body))
    assert answer[0] == code
    assert told in answer[1]


def test_a_name_is_taken_once(session: Any) -> None:
    """The second object of a name is 409 AlreadyExists, also when the client's models are sent."""
    session.submit("twice", "true", suspend=True)
    again = refusal(lambda: session.submit("twice", "true"))
    assert again == (409, 'jobs.batch "twice" already exists')
    spec = client.V1Secret(metadata=client.V1ObjectMeta(name="typed"), string_data={"a": "b"})
    assert session.core.create_namespaced_secret("default", spec).data == {"a": "Yg=="}
    assert refusal(lambda: session.core.create_namespaced_secret("default", spec))[0] == 409


def test_what_is_not_there_is_not_found(session: Any, job: Any) -> None:
    """Unknown names, namespaces and kinds are 404."""
    assert refusal(lambda: session.job("nobody")) == (404, 'jobs.batch "nobody" not found')
    elsewhere = refusal(lambda: session.batch.create_namespaced_job("elsewhere", job("x", "true")))
    assert elsewhere == (404, 'namespaces "elsewhere" not found')
    assert refusal(lambda: session.custom.list_cluster_custom_object("nobody.io", "v1", "things"))[0] == 404


def test_a_patch_changes_what_may_change(session: Any) -> None:
    """A merge patch changes an object and null removes a key; a fixed field is 422, an unknown one 400."""
    session.submit("patched", "true", suspend=True)
    session.batch.patch_namespaced_job("patched", "default", {"metadata": {"labels": {"team": "a", "old": "b"}}})
    patch = {"metadata": {"labels": {"old": None}}}
    after = session.batch.patch_namespaced_job("patched", "default", patch, _content_type=MERGE)
    assert after.metadata.labels == {"team": "a"}
    unknown = {"spec": {"suspended": True}}
    told = refusal(lambda: session.batch.patch_namespaced_job("patched", "default", unknown, _content_type=MERGE))
    assert told[0] == 400
    fixed = {"spec": {"completions": 2}}
    told = refusal(lambda: session.batch.patch_namespaced_job("patched", "default", fixed, _content_type=MERGE))
    assert told == (422, 'Job "patched" is invalid: spec.completions: Invalid value: field is immutable')


def test_a_stale_object_is_a_conflict(session: Any) -> None:
    """A replacement with an old resourceVersion is 409 Conflict."""
    old = session.submit("stale", "true", suspend=True)
    patch = {"metadata": {"annotations": {"a": "b"}}}
    session.batch.patch_namespaced_job("stale", "default", patch, _content_type=MERGE)
    assert refusal(lambda: session.batch.replace_namespaced_job("stale", "default", old))[0] == 409


def test_only_the_token_and_the_authority_open_the_door(session: Any) -> None:
    """Another token is 401, another authority fails the handshake, the kubeconfig carries both."""
    stranger = session.fake.configuration()
    stranger.api_key = {"authorization": "Bearer guessed"}
    assert refusal(lambda: client.CoreV1Api(client.ApiClient(stranger)).list_namespace())[0] == 401
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        urllib.request.urlopen(session.fake.address + "/version", context=ssl.create_default_context())
    friend = config.new_client_from_config(str(session.fake.kubeconfig))
    names = [one.metadata.name for one in client.CoreV1Api(friend).list_namespace().items]
    assert names == ["default", "kube-system"]


def test_a_custom_kind_obeys_its_schema(session: Any) -> None:
    """Fields outside the CRD's schema are 400, missing and too long ones 422; the status is its controller's."""
    where = ("trainer.kubeflow.org", "v1alpha1", "default", "trainjobs")

    def create(spec: dict[str, Any]) -> Any:
        body = {"apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob", "metadata": {"name": "t"}}
        return session.custom.create_namespaced_custom_object(*where, body | {"spec": spec})

    assert refusal(lambda: create({"runtimeRef": {"name": "torch"}, "gpus": 1}))[0] == 400
    assert refusal(lambda: create({"suspend": True}))[0] == 422
    assert refusal(lambda: create({"runtimeRef": {"name": "x" * 21}}))[0] == 422
    assert create({"runtimeRef": {"name": "torch"}})["metadata"]["generation"] == 1
    patch = {"spec": {"suspend": True}}
    change = session.custom.patch_namespaced_custom_object
    assert (
        refusal(lambda: change(*where, "t", patch, _content_type=MERGE.replace("merge", "strategic-merge")))[0] == 415
    )
    after = change(*where, "t", patch)
    assert (after["spec"]["suspend"], after["metadata"]["generation"]) == (True, 2)
    session.fake.set_status(session.train_job, "t", {"conditions": [{"type": "Complete"}]})
    assert session.custom.get_namespaced_custom_object(*where, "t")["status"]["conditions"] == [{"type": "Complete"}]
