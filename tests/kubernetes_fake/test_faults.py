"""Faults on demand, and what they cost."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import urllib3
from kubernetes import client, watch

from airflow_mlops.testing.kubernetes import kubernetes_fake


def impatient(session: Any) -> client.ApiClient:
    """Return a client that repeats nothing by itself."""
    configuration = session.fake.configuration()
    configuration.retries = False
    return client.ApiClient(configuration)


def test_throttled_requests_say_when_to_come_back(session: Any) -> None:
    """The next requests of a kind are 429 with Retry-After, all are counted, others are left alone."""
    session.fake.calls.reset()
    session.fake.faults.throttle(2, retry_after=7, verb="list", resource="pods")
    core = client.CoreV1Api(impatient(session))
    for _ in range(2):
        with pytest.raises(client.ApiException) as caught:
            core.list_namespaced_pod("default")
        assert (caught.value.status, caught.value.headers["Retry-After"]) == (429, "7")
    core.list_namespaced_secret("default")
    core.list_namespaced_pod("default")
    calls = session.fake.calls
    assert (calls.count("list", "pods"), calls.count("list", "pods", 429), calls.count("list")) == (3, 2, 4)


def test_the_client_waits_by_itself_when_throttled(session: Any) -> None:
    """With its own settings the client repeats a throttled list after the time it was told."""
    session.fake.calls.reset()
    session.fake.faults.throttle(1, retry_after=1)
    start = time.monotonic()
    session.core.list_namespaced_pod("default")
    assert time.monotonic() - start >= 1
    assert session.fake.calls.count("list", "pods") == 2


def test_a_refused_request_has_no_effect_and_a_lost_answer_has(session: Any, job: Any) -> None:
    """After a 500 the object is not there; after a broken connection it is, and creating it again is 409."""
    session.fake.faults.fail(1, code=500, verb="create")
    with pytest.raises(client.ApiException) as caught:
        session.submit("unlucky", "true", suspend=True)
    assert caught.value.status == 500
    api = client.BatchV1Api(impatient(session))
    session.fake.faults.lose_answers(1, resource="jobs")
    with pytest.raises(urllib3.exceptions.HTTPError):
        api.create_namespaced_job("default", job("unlucky", "true", suspend=True))
    with pytest.raises(client.ApiException) as caught:
        session.submit("unlucky", "true")
    assert caught.value.status == 409


def test_the_server_dies_and_comes_back(session: Any, until: Callable[..., Any]) -> None:
    """An open watch breaks, nobody answers, the Job goes on, and after the restart everything is still there."""
    session.submit("survivor", "sleep 0.3")
    session.pod("survivor")
    version = session.batch.list_namespaced_job("default").metadata.resource_version
    session.fake.crash()
    api = client.BatchV1Api(impatient(session))
    with pytest.raises(urllib3.exceptions.HTTPError):
        api.list_namespaced_job("default")
    session.fake.restart()
    assert "Complete" in session.finished("survivor")
    stream = watch.Watch().stream(api.list_namespaced_job, "default", timeout_seconds=1, resource_version=version)
    assert "survivor" in {event["object"].metadata.name for event in stream}


def test_open_watches_are_cut_off(session: Any, until: Callable[..., Any]) -> None:
    """A watch that waits ends with a transport error, not with a proper end."""
    caught: list[BaseException] = []
    version = session.batch.list_namespaced_job("default").metadata.resource_version

    def follow() -> None:
        stream = session.batch.list_namespaced_job(
            "default", watch=True, resource_version=version, timeout_seconds=20, _preload_content=False
        )
        try:
            list(stream.stream())
        except urllib3.exceptions.HTTPError as error:
            caught.append(error)

    session.fake.calls.reset()
    thread = threading.Thread(target=follow)
    thread.start()
    until(lambda: session.fake.calls.count("watch", "jobs"))
    session.fake.drop_watches()
    thread.join(5)
    assert not thread.is_alive()
    assert [type(error) for error in caught] == [urllib3.exceptions.ProtocolError]


def test_answers_lag(session: Any) -> None:
    """A list is delayed, a read is not."""
    session.fake.faults.lag(0.3)
    start = time.monotonic()
    session.core.list_namespaced_pod("default")
    assert time.monotonic() - start >= 0.3
    session.fake.faults.lag(0)


def test_a_full_node_takes_no_pod(session: Any, until: Callable[..., Any]) -> None:
    """A pod without room stays Pending with an event, and runs when there is room."""
    session.fake.fill_node()
    session.submit("waits", "true")
    name = session.pod("waits", "Pending").metadata.name
    until(lambda: "FailedScheduling" in session.reasons(name))
    (condition,) = session.pods("waits")[0].status.conditions
    assert (condition.type, condition.reason) == ("PodScheduled", "Unschedulable")
    session.fake.fill_node(False)
    assert "Complete" in session.finished("waits")


def test_nothing_outlives_the_fake(job: Any, until: Callable[..., Any]) -> None:
    """At the end of the block the pods' processes are gone, and nobody listens."""
    with kubernetes_fake() as fake:
        api = client.ApiClient(fake.configuration())
        client.BatchV1Api(api).create_namespaced_job("default", job("left", "trap '' TERM; sleep 60"))
        pods = client.CoreV1Api(api)
        until(lambda: any(pod.status.phase == "Running" for pod in pods.list_namespaced_pod("default").items))
        process = fake.process_id(pods.list_namespaced_pod("default").items[0].metadata.name)
        os.kill(process, 0)
        port = int(fake.address.rpartition(":")[2])
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 1)
