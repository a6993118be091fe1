"""The stream of the Kubernetes backend: the same states as a look, from memory, and honest when it broke."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import PlatformUnavailableError
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.platforms.kubernetes import JOBS, KubernetesApi
from airflow_mlops.testing.kubernetes import PODS, KubernetesFake, kubernetes_fake
from airflow_mlops.training.backends import kubernetes_stream
from airflow_mlops.training.backends.kubernetes import KubernetesBackend
from airflow_mlops.training.contract import JobHandle, JobState, TrainingSpec
from airflow_mlops.training.look import look
from airflow_mlops.training.watch import Place, watch
from airflow_mlops.training.watch_rules import Pace

OWNER = TaskIdentity("dag", "run", "train")
MANY = 1000


@pytest.fixture
def fake() -> Iterator[KubernetesFake]:
    """Run a cluster."""
    with kubernetes_fake() as found:
        yield found


@pytest.fixture
def backend(fake: KubernetesFake) -> KubernetesBackend:
    """Get into the cluster."""
    return KubernetesBackend.from_connection(ConnectionInfo("c", extra={"kube_config_path": str(fake.kubeconfig)}))


def submit(backend: KubernetesBackend, name: str, script: str) -> JobHandle:
    """Submit a shell script."""
    return backend.submit(TrainingSpec(("sh", "-c", script), image="x:1"), name=name, owner=OWNER)


def until(look: Callable[[], Any], seconds: float = 20) -> Any:
    """Look until there is something."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
    return found


def test_a_thousand_jobs_cost_one_list_and_one_watch(fake: KubernetesFake, backend: KubernetesBackend) -> None:
    """However many jobs wait and however often they are looked at, nothing is asked, and a look takes milliseconds."""
    fake.limit(PODS, 0)
    jobs = [submit(backend, f"aml-{number}", "true") for number in range(MANY)]
    fake.calls.reset()
    with backend.stream() as stream:
        assert len(stream.observe(jobs)) == MANY
        began = time.process_time()
        for _ in range(20):
            stream.observe(jobs)
        spent = (time.process_time() - began) / 20
    calls = fake.calls
    assert calls.count("list", "jobs") == 2  # two pages of 500
    assert (calls.count("watch", "jobs"), calls.count("get"), calls.count("list", "pods")) == (1, 0, 0)
    assert spent < 0.1


def test_every_change_arrives_with_the_state_that_a_look_sees(fake: KubernetesFake, backend: KubernetesBackend) -> None:
    """Pending, running, succeeded, failed, cancelled, preempted and deleted are the same in both."""
    fake.fill_node()
    waiting = submit(backend, "aml-waiting", "true")
    with backend.stream() as stream:

        def state(job: JobHandle) -> JobState | None:
            found = stream.observe([job]).get(job)
            return found and found.state

        assert state(waiting) is JobState.PENDING
        fake.fill_node(False)
        jobs = {
            JobState.SUCCEEDED: waiting,
            JobState.FAILED: submit(backend, "aml-bad", "exit 1"),
            JobState.CANCELLED: submit(backend, "aml-cancelled", "sleep 60"),
            JobState.RUNNING: submit(backend, "aml-running", "sleep 60"),
        }
        until(lambda: state(jobs[JobState.CANCELLED]) is JobState.RUNNING)
        backend.cancel(jobs[JobState.CANCELLED])
        for wanted, job in jobs.items():
            until(lambda job=job, wanted=wanted: state(job) is wanted)
            assert backend.observe([job])[job].state is wanted
        api = KubernetesApi(ConnectionInfo(extra={"kube_config_path": str(fake.kubeconfig)}))
        api.delete(JOBS, "default", "aml-running")
        until(lambda: state(jobs[JobState.RUNNING]) is None)
        assert backend.observe([jobs[JobState.RUNNING]]) == {}


def test_a_watch_that_ended_goes_on_where_it_was(
    fake: KubernetesFake, backend: KubernetesBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server ends each watch after a while: the next one goes on without a list, and misses nothing."""
    monkeypatch.setattr(kubernetes_stream, "WATCH_SECONDS", 1)
    with backend.stream() as stream:
        job = submit(backend, "aml-1", "sleep 2.5")
        stream.observe([job])
        until(lambda: (found := stream.observe([job]).get(job)) and found.state is JobState.SUCCEEDED)
    assert fake.calls.count("watch", "jobs") >= 3
    assert fake.calls.count("list", "jobs") == 1


def test_a_watch_from_too_old_a_version_lists_again(
    fake: KubernetesFake, backend: KubernetesBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the server has forgotten the history (410), there is one more list, and nobody hears of it."""
    monkeypatch.setattr(kubernetes_stream, "WATCH_SECONDS", 1)
    with backend.stream() as stream:
        job = submit(backend, "aml-1", "sleep 60")
        stream.observe([job])
        until(lambda: fake.calls.count("watch", "jobs") == 1)
        fake.faults.fail(1, code=410, verb="watch", resource="jobs")
        until(lambda: fake.calls.count("list", "jobs") == 2)
        fake.compact_history()
        until(lambda: (found := stream.observe([job]).get(job)) and found.state is JobState.RUNNING)
        backend.cancel(job)
        until(lambda: stream.observe([job])[job].state is JobState.CANCELLED)


def test_a_broken_stream_says_so_and_another_goes_on(fake: KubernetesFake, backend: KubernetesBackend) -> None:
    """A connection that is cut is an error at the next look, never an old answer for ever; a new stream is whole."""
    job = submit(backend, "aml-1", "sleep 60")
    with backend.stream() as stream:
        stream.observe([job])
        fake.crash()

        def broke() -> bool:
            try:
                stream.observe([job])
            except PlatformUnavailableError:
                return True
            return False

        until(broke)
        with pytest.raises(PlatformUnavailableError), backend.stream() as other:
            other.observe([job])
        fake.restart()
    with backend.stream() as again:
        assert again.observe([job])[job].state is JobState.RUNNING


def test_leaving_a_stream_leaves_no_thread(fake: KubernetesFake, backend: KubernetesBackend) -> None:
    """The threads of a stream end with it, also while the server says nothing."""
    before = set(threading.enumerate())
    job = submit(backend, "aml-1", "true")
    with backend.stream() as stream:
        stream.observe([job])
        assert [thread for thread in set(threading.enumerate()) - before if "kubernetes-jobs" in thread.name]
    assert not [thread for thread in threading.enumerate() if "kubernetes-jobs" in thread.name]


def test_waiting_tasks_share_one_watch_and_bear_what_breaks(fake: KubernetesFake, backend: KubernetesBackend) -> None:
    """The shared watcher sees fifty jobs through a cut of all watches, with a handful of requests."""
    jobs = [submit(backend, f"aml-{number}", "sleep 2") for number in range(50)]
    fake.calls.reset()

    async def connect() -> KubernetesBackend:
        return backend

    async def wait_for_all() -> list[str]:
        pace = Pace(first_look=0.0, shortest=0.1, linger=0.0)
        place = Place.of("kubernetes", "c", jobs[0])
        waits = [watch(job, place, connect, interval=0.2, pace=pace) for job in jobs]
        cut = asyncio.get_running_loop().call_later(1, fake.drop_watches)
        found = [outcome.word for outcome in await asyncio.gather(*waits)]
        cut.cancel()
        return found

    assert asyncio.run(wait_for_all()) == ["succeeded"] * 50
    assert fake.calls.count("list", "jobs") + fake.calls.count("get", "jobs") <= 8


def test_a_missing_right_is_told_to_everybody_and_asked_once(fake: KubernetesFake, backend: KubernetesBackend) -> None:
    """A hundred who wait are told that the account may not list, at the price of one request."""
    jobs = [JobHandle("kubernetes", f"default/aml-{number}") for number in range(100)]
    fake.faults.fail(1, code=403, verb="list", resource="jobs")
    with backend.stream() as stream:
        sight = look(backend, stream, jobs)
    assert set(sight.broken) == set(jobs)
    assert fake.calls.count("list", "jobs") == 1


def test_a_server_that_ends_every_watch_is_not_flooded(fake: KubernetesFake, backend: KubernetesBackend) -> None:
    """Whatever is between us and the cluster, a watch that ends at once is opened again a second later."""
    fake.faults.fail(1000, code=410, verb="watch", resource="jobs")
    with backend.stream() as stream:
        stream.observe([JobHandle("kubernetes", "default/aml-1")])
        time.sleep(1.5)
    assert fake.calls.count("watch", "jobs") == 2
