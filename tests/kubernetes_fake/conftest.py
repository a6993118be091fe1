"""One fake for a module, the official client that talks to it, and the Jobs the tests submit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest
from kubernetes import client

from airflow_mlops.testing.kubernetes import KubernetesFake, custom_kind, kubernetes_fake

T = TypeVar("T")

TRAIN_JOB = custom_kind(
    "trainer.kubeflow.org",
    "v1alpha1",
    "trainjobs",
    "TrainJob",
    {
        "type": "object",
        "required": ["spec"],
        "properties": {
            "spec": {
                "type": "object",
                "required": ["runtimeRef"],
                "properties": {
                    "suspend": {"type": "boolean"},
                    "runtimeRef": {
                        "type": "object",
                        "required": ["name"],
                        "properties": {"name": {"type": "string", "maxLength": 20}},
                    },
                },
            },
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        },
    },
)


class Session:
    """A fake with clients, and what every test does with them."""

    def __init__(self, fake: KubernetesFake) -> None:
        self.fake = fake
        self.api = client.ApiClient(fake.configuration())
        self.batch, self.core = client.BatchV1Api(self.api), client.CoreV1Api(self.api)
        self.custom = client.CustomObjectsApi(self.api)
        self.train_job = TRAIN_JOB

    def submit(self, name: str, script: str, **spec: Any) -> Any:
        """Create a Job whose one container runs *script* in a shell."""
        return self.batch.create_namespaced_job("default", make_job(name, script, **spec))

    def job(self, name: str) -> Any:
        """Read a Job."""
        return self.batch.read_namespaced_job(name, "default")

    def pods(self, name: str) -> list[Any]:
        """Return the pods of a Job, oldest first."""
        found = self.core.list_namespaced_pod("default", label_selector=f"job-name={name}").items
        return sorted(found, key=lambda pod: int(pod.metadata.resource_version))

    def pod(self, name: str, phase: str = "Running") -> Any:
        """Wait for a pod of this Job in this phase."""
        return wait_until(lambda: next((pod for pod in self.pods(name) if pod.status.phase == phase), None))

    def finished(self, name: str) -> dict[str, str]:
        """Wait for the end of a Job and return its true conditions with their reasons."""

        def conditions() -> dict[str, str]:
            found = {one.type: one.reason for one in self.job(name).status.conditions or [] if one.status == "True"}
            return found if {"Complete", "Failed"} & set(found) else {}

        return wait_until(conditions)

    def log(self, pod: str, **options: Any) -> str:
        """Return what a pod printed, byte for byte: the client would read ``1`` as a number."""
        found = self.core.read_namespaced_pod_log(pod, "default", _preload_content=False, **options)
        return found.data.decode()

    def reasons(self, name: str) -> list[str]:
        """Return the reasons of the events about one object."""
        found = self.core.list_namespaced_event("default", field_selector=f"involvedObject.name={name}").items
        return [event.reason for event in found]


def make_job(name: str, script: str, **spec: Any) -> dict[str, Any]:
    """Return a Job that runs *script* once; *spec* is merged into its spec, *env* into its container."""
    container = {"name": "main", "image": "busybox:1", "command": ["sh", "-c", script], "env": spec.pop("env", [])}
    pod = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [container]}
    template = {"spec": pod}
    return {"metadata": {"name": name}, "spec": {"backoffLimit": 0, "template": template, **spec}}


def wait_until(look: Callable[[], T | None], seconds: float = 10) -> T:
    """Look until there is something."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.03)
    return found


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    """Give a fake with its clients."""
    with kubernetes_fake(TRAIN_JOB) as fake:
        yield Session(fake)


@pytest.fixture
def job() -> Callable[..., dict[str, Any]]:
    """Give the maker of Jobs."""
    return make_job


@pytest.fixture
def until() -> Callable[..., Any]:
    """Give the patience."""
    return wait_until
