"""A connection of Airflow's own Kubernetes provider leads our backend to the cluster, and never without TLS."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import InvalidSpecError, NotFoundError, PlatformUnavailableError
from airflow_mlops.hooks.training import TrainingHook
from airflow_mlops.platforms.kubernetes import JOBS, SECRETS, KubernetesApi
from airflow_mlops.platforms.kubernetes_answers import QuotaError, refusal
from airflow_mlops.testing.kubernetes import KubernetesFake, kubernetes_fake
from airflow_mlops.training.backends.kubernetes import KubernetesBackend


@pytest.fixture(scope="module")
def fake() -> Iterator[KubernetesFake]:
    """Run a cluster."""
    with kubernetes_fake() as found:
        yield found


def api(**extra: Any) -> KubernetesApi:
    """Build the API from extras."""
    return KubernetesApi(ConnectionInfo("cluster", extra=extra))


def test_every_way_in_of_airflows_own_connection(fake: KubernetesFake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path, a mapping, JSON text, or the old prefix of extras: all lead there."""
    text = fake.kubeconfig.read_text()
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    ways: list[dict[str, Any]] = [
        {"kube_config_path": str(fake.kubeconfig), "cluster_context": "fake"},
        {"kube_config": json.loads(text)},
        {"kube_config": text},
        {"extra__kubernetes__kube_config": text, "extra__kubernetes__in_cluster": False},
    ]
    for extra in ways:
        assert api(**extra).list(JOBS, "default")[0] == []


def test_the_form_of_airflows_own_connection_is_tolerated(fake: KubernetesFake) -> None:
    """What the provider's form writes and we have no use for does not refuse the connection."""
    form = {
        "in_cluster": False,
        "kube_config_path": str(fake.kubeconfig),
        "kube_config": "",
        "cluster_context": "",
        "namespace": "team",
        "disable_verify_ssl": False,
        "disable_tcp_keepalive": True,
        "xcom_sidecar_container_image": "alpine",
        "xcom_sidecar_container_resources": "",
        "xcom_sidecar_container_security_context": "",
    }
    found = api(**form)
    assert found.namespace == "team"
    assert found.list(JOBS, "default")[0] == []


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        ({"namespce": "x"}, "did you mean 'namespace'"),
        ({"disable_verify_ssl": True}, "disable_verify_ssl"),
        ({"extra__kubernetes__disable_verify_ssl": "true"}, "disable_verify_ssl"),
    ],
)
def test_wrong_extras_are_refused_by_name(extra: dict[str, Any], told: str) -> None:
    """An unknown extra is named with the one that was meant; TLS cannot be turned off."""
    with pytest.raises(InvalidSpecError, match=told):
        api(**extra)


@pytest.mark.parametrize(
    "extra",
    [
        {"kube_config": '{"users": "hunter2'},
        {"kube_config": {"users": [{"name": "u", "user": {"token": "hunter2"}}]}},
        {"kube_config_path": "/nowhere/hunter2"},
        {"in_cluster": True},
        {"in_cluster": True, "kube_config_path": "x"},
    ],
)
def test_a_connection_that_leads_nowhere_shows_nothing(extra: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the connection or the extras; what is in the kube config is not in it."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(InvalidSpecError, match=r"(?i)connection") as caught:
        api(**extra).list(JOBS, "default")
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_wrong_token_is_not_a_reason_to_try_again(fake: KubernetesFake) -> None:
    """401 is an error of the connection; neither token is in it."""
    config = json.loads(fake.kubeconfig.read_text())
    config["users"][0]["user"]["token"] = "wrong-token"
    with pytest.raises(InvalidSpecError, match="401") as caught:
        api(kube_config=config).list(JOBS, "default")
    assert not {"wrong-token", fake.token} & set(str(caught.value).split())


def test_a_server_with_another_certificate_is_not_trusted(fake: KubernetesFake, tmp_path: Path) -> None:
    """Without the authority of the cluster nothing is sent."""
    config = json.loads(fake.kubeconfig.read_text())
    del config["clusters"][0]["cluster"]["certificate-authority"]
    fake.calls.reset()
    with pytest.raises(PlatformUnavailableError, match="SSL"):
        api(kube_config=config).list(JOBS, "default")
    assert fake.calls.count() == 0


def test_what_the_server_says_about_a_secret_is_not_passed_on(fake: KubernetesFake) -> None:
    """A Secret that is refused may be quoted by the server: the error only says that it was refused."""
    body = {"metadata": {"name": "x"}, "data": {"hunter2!": "not base64 hunter2"}, "hunter2": 1}
    with pytest.raises(InvalidSpecError, match="400") as caught:
        api(kube_config_path=str(fake.kubeconfig)).create(SECRETS, "default", body)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        (404, "gone", NotFoundError),
        (403, 'jobs "x" is forbidden: exceeded quota: q', QuotaError),
        (403, 'User "u" cannot create resource "jobs"', InvalidSpecError),
        (422, "spec is wrong", InvalidSpecError),
        (429, "slow down", PlatformUnavailableError),
        (502, "bad gateway", PlatformUnavailableError),
    ],
)
def test_answers_say_what_to_do(code: int, message: str, kind: type[Exception]) -> None:
    """Each answer is the error that says whether to try again, with the server's words and no credentials."""
    body = json.dumps({"kind": "Status", "message": f"{message} https://u:hunter2@h/"})
    error = refusal("Kubernetes", code, body)
    assert isinstance(error, kind)
    assert message in str(error)
    assert "hunter2" not in str(error)


def test_an_answer_of_something_else_is_not_shown() -> None:
    """A proxy's page between us and the cluster is no explanation."""
    error = refusal("Kubernetes", 503, b"<html>hunter2</html>")
    assert isinstance(error, PlatformUnavailableError)
    assert "html" not in str(error)


def test_the_backend_comes_in_by_the_hook(
    fake: KubernetesFake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The entry point gives the backend of an Airflow connection, and its test button answers."""
    connection = {"conn_type": "kubernetes", "extra": {"kube_config_path": str(fake.kubeconfig)}}
    monkeypatch.setenv("AIRFLOW_CONN_CLUSTER", json.dumps(connection))
    hook = TrainingHook("kubernetes", "cluster")
    with caplog.at_level(logging.DEBUG):
        assert isinstance(hook.get_backend(), KubernetesBackend)
        assert hook.test_connection()[0]
    assert fake.token not in caplog.text
