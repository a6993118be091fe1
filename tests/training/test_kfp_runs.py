"""Kubeflow Pipelines as a backend, against a server that throttles, fails, forgets, lags and dies."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import ConflictError, InvalidSpecError, NotFoundError, PlatformUnavailableError
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.testing.kfp import KfpFake, kfp_fake
from airflow_mlops.testing.kfp.pipelines import shell_pipeline
from airflow_mlops.training.contract import JobHandle, JobState
from airflow_mlops.training.pipelines import kubeflow
from airflow_mlops.training.pipelines.contract import PipelineSpec
from airflow_mlops.training.pipelines.kubeflow import KubeflowPipelines
from airflow_mlops.training.pipelines.marks import run_id

OWNER = TaskIdentity("dag", "run", "task")


@pytest.fixture
def server() -> Iterator[KfpFake]:
    """Give a server of its own to each test."""
    with kfp_fake() as fake:
        yield fake


@pytest.fixture
def backend(server: KfpFake) -> KubeflowPipelines:
    """Give the backend."""
    return KubeflowPipelines.from_connection(server.connection())


def spec(script: str = "true", **fields: Any) -> PipelineSpec:
    """Return a pipeline of one task."""
    return PipelineSpec(shell_pipeline({"only": script}), **fields)


def submit(backend: KubeflowPipelines, name: str = "aml-a", script: str = "sleep 60") -> JobHandle:
    """Start a run or find it."""
    return backend.submit(spec(script), name=name, owner=OWNER)


def status(backend: KubeflowPipelines, handle: JobHandle, state: JobState) -> Any:
    """Wait until a run is in a state and return its status."""
    end = time.monotonic() + 10
    while (found := backend.observe([handle])[handle]).state is not state:
        assert time.monotonic() < end, found
        time.sleep(0.02)
    return found


@pytest.mark.parametrize("late", [None, 0.4])
def test_a_lost_answer_is_one_run(server: KfpFake, backend: KubeflowPipelines, late: float | None) -> None:
    """The order is not sent again: the run is looked for until it appears, also when the server took its time."""
    server.faults.lose_answers(1, late=late)
    handle = submit(backend)
    assert handle.job_id == f"-/{run_id('aml-a')}"
    assert (server.calls.count("CreateRun"), server.workflows()) == (1, 1)


def test_an_order_that_was_never_carried_out_is_left_to_a_later_try(
    server: KfpFake, backend: KubeflowPipelines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the server failed and the run does not appear, the try fails as one to repeat; the next starts one run."""
    monkeypatch.setattr(kubeflow, "LOST_ANSWER_PAUSES", (0.05, 0.05))
    server.faults.fail(1, code=503, verb="CreateRun")
    with pytest.raises(PlatformUnavailableError, match="503"):
        submit(backend)
    assert (server.calls.count("CreateRun"), server.workflows()) == (1, 0)
    submit(backend)
    assert server.workflows() == 1


def test_throttled_requests_wait_as_long_as_they_are_told(server: KfpFake, backend: KubeflowPipelines) -> None:
    """429 was refused before it had an effect, so even the order to start is sent again, after Retry-After."""
    server.faults.throttle(1, verb="CreateRun", retry_after=1)
    before = time.monotonic()
    submit(backend)
    assert time.monotonic() - before >= 1
    assert (server.calls.count("CreateRun"), server.workflows()) == (2, 1)


def test_reading_survives_short_failures_and_a_restart(server: KfpFake, backend: KubeflowPipelines) -> None:
    """A GET is repeated; a server that is away for good is an error that a later look may cure."""
    handle = submit(backend)
    server.faults.fail(2, code=500, verb="GetRun")
    server.faults.fail(1, code=503, verb="GetRun")
    assert handle in backend.observe([handle])
    server.crash()
    with pytest.raises(PlatformUnavailableError, match=server.address):
        backend.observe([handle])
    server.restart()
    assert submit(backend) == handle
    assert server.workflows() == 1


def test_a_list_that_lags_never_makes_a_second_run(server: KfpFake, backend: KubeflowPipelines) -> None:
    """Runs are looked for by their id, not in lists; one that a list misses is absent there and found alone."""
    first = submit(backend, "aml-a")
    list(backend.managed())
    server.faults.stale_lists = True
    second = submit(backend, "aml-b")
    assert submit(backend, "aml-b") == second
    assert server.workflows() == 2
    assert set(backend.observe([first, second])) == {first}
    assert set(backend.observe([second])) == {second}


def test_two_workers_share_one_run(server: KfpFake) -> None:
    """Whoever comes second finds the run of the first, over connections of its own."""
    backends = [KubeflowPipelines.from_connection(server.connection()) for _ in range(2)]
    handles = [submit(backend) for backend in backends]
    assert handles[0] == handles[1]
    assert server.workflows() == 1


def test_a_server_that_makes_its_own_ids_is_refused() -> None:
    """Nothing goes on running that a retry could not find, and the message says why."""
    with kfp_fake(takes_run_ids=False) as server:
        backend = KubeflowPipelines.from_connection(server.connection())
        with pytest.raises(InvalidSpecError, match="does not take the id"):
            submit(backend)
        end = time.monotonic() + 10
        while server.going():
            assert time.monotonic() < end
            time.sleep(0.02)
        assert [run["state"] for run in server.runs()] == ["FAILED"]


def test_a_run_of_somebody_else_with_that_id_is_not_ours(server: KfpFake, backend: KubeflowPipelines) -> None:
    """A run without our mark, or whose description was changed, is neither adopted nor found by name."""
    handle = submit(backend)
    server.set_run(run_id("aml-a"), description="mine now")
    with pytest.raises(ConflictError, match="aml-a"):
        submit(backend)
    assert backend.locate("aml-a") is None
    assert list(backend.managed()) == []
    assert handle in backend.observe([handle])


def test_a_deleted_run_is_gone_and_an_archived_one_is_not(server: KfpFake, backend: KubeflowPipelines) -> None:
    """Archiving hides a run from people only; a deleted one is absent, and stopping it is no error."""
    handle = submit(backend)
    server.set_run(run_id("aml-a"), storage_state="ARCHIVED")
    assert backend.locate("aml-a") == handle
    server.delete_run(run_id("aml-a"))
    assert backend.observe([handle]) == {}
    assert backend.locate("aml-a") is None
    backend.cancel(handle)


def test_a_paused_run_is_waited_for_and_can_be_stopped(server: KfpFake, backend: KubeflowPipelines) -> None:
    """It is neither over nor a success, and it can still be cancelled."""
    handle = submit(backend)
    status(backend, handle, JobState.RUNNING)
    server.set_run(run_id("aml-a"), state="PAUSED")
    assert backend.observe([handle])[handle].state is JobState.PENDING
    with pytest.raises(InvalidSpecError, match="PAUSED"):
        backend.collect(handle)
    backend.cancel(handle)
    status(backend, handle, JobState.CANCELLED)


def test_a_run_that_ended_between_look_and_order_is_no_error(
    server: KfpFake, backend: KubeflowPipelines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server refuses to end what is over: that is looked at again, not reported. What goes on is."""
    handle = submit(backend)
    status(backend, handle, JobState.RUNNING)
    client = backend._client
    order = client.terminate

    def late(run: str) -> None:
        server.set_run(run, state="SUCCEEDED")
        order(run)

    monkeypatch.setattr(client, "terminate", late)
    backend.cancel(handle)
    assert backend.observe([handle])[handle].state is JobState.SUCCEEDED


def test_an_end_that_the_server_refuses_is_told(server: KfpFake, backend: KubeflowPipelines) -> None:
    """Without the right to terminate a run, it goes on, and nobody is told that it was stopped."""
    handle = submit(backend)
    status(backend, handle, JobState.RUNNING)
    server.faults.fail(1, code=403, verb="TerminateRun")
    with pytest.raises(InvalidSpecError, match="403"):
        backend.cancel(handle)
    assert backend.observe([handle])[handle].state is JobState.RUNNING


def test_a_failure_names_the_task_even_when_the_server_keeps_its_message() -> None:
    """Released servers do not fill in what a task said; its name is told all the same."""
    with kfp_fake(tells_errors=False) as server:
        backend = KubeflowPipelines.from_connection(server.connection())
        handle = submit(backend, script="exit 3")
        assert status(backend, handle, JobState.FAILED).detail == "Task 'only' failed: see its log."


def test_many_runs_are_one_list(server: KfpFake, backend: KubeflowPipelines) -> None:
    """Sixty runs cost two requests, one alone costs one; every run is in the answer."""
    handles = [submit(backend, f"aml-{number}", "true") for number in range(60)]
    server.calls.reset()
    assert set(backend.observe(handles)) == set(handles)
    assert (server.calls.count("ListRuns"), server.calls.count()) == (2, 2)
    backend.observe(handles[:1])
    assert (server.calls.count("GetRun"), server.calls.count()) == (1, 3)
    assert {handle for handle, _ in backend.managed()} == set(handles)


def test_what_the_server_hides_in_an_internal_error_is_not_tried_again(
    server: KfpFake, backend: KubeflowPipelines
) -> None:
    """It answers HTTP 500 to a pipeline that it cannot read; its own words tell that the request is wrong."""
    version = server.upload("old", "v1", {**shell_pipeline({"a": "true"}), "schemaVersion": "2.0.0"})
    assert version["name"] == "v1"
    with pytest.raises(InvalidSpecError, match=r"2\.1\.0"):
        backend.submit(PipelineSpec("old"), name="aml-a", owner=OWNER)
    assert server.calls.count("CreateRun") == 1


def test_parameters_of_an_uploaded_pipeline_are_checked_too(server: KfpFake, backend: KubeflowPipelines) -> None:
    """The server tells what its pipeline wants; caching is the pipeline's own; an unknown version is named."""
    server.upload("p", "v1", shell_pipeline({"a": "true"}, inputs={"x": {"parameterType": "STRING"}}))
    for parameters, told in (({}, "'x'"), ({"x": 1}, "STRING"), ({"x": "", "y": ""}, "'y'")):
        with pytest.raises(InvalidSpecError, match=told):
            backend.submit(PipelineSpec("p", parameters), name="aml-a", owner=OWNER)
    with pytest.raises(InvalidSpecError, match="cache"):
        backend.submit(PipelineSpec("p", {"x": ""}, options={"cache": True}), name="aml-a", owner=OWNER)
    with pytest.raises(NotFoundError, match="'v2'"):
        backend.submit(PipelineSpec("p@v2", {"x": ""}), name="aml-a", owner=OWNER)
    assert server.calls.count("CreateRun") == 0


def test_a_newer_version_does_not_change_the_run_that_is_there(server: KfpFake, backend: KubeflowPipelines) -> None:
    """A retry after an upload adopts the run of the try before it."""
    server.upload("p", "v1", shell_pipeline({"a": "sleep 60"}))
    handle = backend.submit(PipelineSpec("p"), name="aml-a", owner=OWNER)
    server.upload("p", "v2", shell_pipeline({"a": "true"}))
    assert backend.submit(PipelineSpec("p"), name="aml-a", owner=OWNER) == handle


def test_the_namespace_of_a_spec_is_in_the_handle() -> None:
    """Runs of several namespaces are looked at with one list each, and located without their spec."""
    with kfp_fake(multi_user=True) as server:
        backend = KubeflowPipelines.from_connection(server.connection(namespace="a"))
        mine = submit(backend)
        other = backend.submit(spec("sleep 60", options={"namespace": "b"}), name="aml-b", owner=OWNER)
        assert [handle.job_id.split("/")[0] for handle in (mine, other)] == ["a", "b"]
        assert backend.locate("aml-b") == other
        assert set(backend.observe([mine, other])) == {mine, other}


def test_a_pipeline_of_the_namespace_comes_before_a_shared_one() -> None:
    """Both are found by their name; one of another namespace is not."""
    with kfp_fake(multi_user=True) as server:
        backend = KubeflowPipelines.from_connection(server.connection(namespace="a"))
        pipeline = shell_pipeline({"only": "true"})
        shared, own = server.upload("p", "v1", pipeline), server.upload("own", "v1", pipeline, "a")
        server.upload("p", "v2", pipeline, "b")
        for name, version in (("p", shared), ("own", own)):
            backend.submit(PipelineSpec(name), name=f"aml-{name}", owner=OWNER)
            sent = server.runs()[-1]["pipeline_version_reference"]
            assert sent["pipeline_version_id"] == version["pipeline_version_id"]
        server.upload("theirs", "v1", pipeline, "b")
        with pytest.raises(NotFoundError, match="theirs"):
            backend.submit(PipelineSpec("theirs"), name="aml-theirs", owner=OWNER)


def test_a_token_file_is_read_anew(server: KfpFake, tmp_path: Path) -> None:
    """The kubelet renews it while we run; a file that is not there is named."""
    file = tmp_path / "token"
    info = replace(server.connection(token_path=str(file)), password="")
    backend = KubeflowPipelines.from_connection(info)
    with pytest.raises(InvalidSpecError, match="token"):
        backend.locate("aml-a")
    for token, works in ((server.token, True), ("old", False), (server.token, True)):
        file.write_text(f"{token}\n")
        if works:
            assert backend.locate("aml-a") is None
        else:
            with pytest.raises(InvalidSpecError, match="401") as caught:
                backend.locate("aml-a")
            assert "old" not in str(caught.value)


@pytest.mark.parametrize(("code", "told"), [(302, "credentials"), (200, "login page"), (403, "credentials")])
def test_a_login_page_is_not_an_answer(code: int, told: str) -> None:
    """A proxy that wants a browser to log in is told apart from the API: nothing is tried again."""

    class Proxy(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(code)
            self.send_header("Location", "https://login.example/")
            self.end_headers()
            self.wfile.write(b"<html>Log in</html>")

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=(0.02,))
        thread.start()
        try:
            backend = KubeflowPipelines.from_connection(ConnectionInfo("kfp", f"http://127.0.0.1:{proxy.server_port}"))
            with pytest.raises(InvalidSpecError, match=told):
                backend.locate("aml-a")
        finally:
            proxy.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("console", "page"),
    [
        ("https://kubeflow.example/_/pipeline/?ns=team", "https://kubeflow.example/_/pipeline/?ns=team#/runs/details/"),
        ("https://kfp.example/pipeline/", "https://kfp.example/pipeline/#/runs/details/"),
        ("", "/#/runs/details/"),
    ],
)
def test_the_console_page(server: KfpFake, console: str, page: str) -> None:
    """It is made from the connection's console_url, or its host."""
    handle = submit(KubeflowPipelines.from_connection(server.connection(console_url=console)))
    wanted = page if console else server.address + page
    assert handle.console_url == wanted + run_id("aml-a")
