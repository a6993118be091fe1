"""RunPipelineOperator with Airflow's real task runner against the strict Kubeflow Pipelines server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from airflow_mlops.core.errors import InvalidSpecError, JobFailedError, NotFoundError
from airflow_mlops.hooks.pipelines import PipelineHook
from airflow_mlops.operators.pipelines import RunPipelineOperator
from airflow_mlops.testing.kfp import KfpFake, kfp_fake
from airflow_mlops.testing.kfp.pipelines import shell_pipeline
from airflow_mlops.testing.task_runner import DagRunMemory, run_task
from airflow_mlops.training.contract import JobHandle, JobState
from airflow_mlops.triggers.pipelines import PipelineRunTrigger

TEXT = {"parameterType": "STRING"}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[KfpFake]:
    """Give a server and the connection that leads to it."""
    with kfp_fake() as fake:
        connect(monkeypatch, fake, console_url="https://console.example/_/pipeline/?ns=team")
        yield fake


def connect(monkeypatch: pytest.MonkeyPatch, fake: KfpFake, **extras: Any) -> None:
    """Make the default connection lead to *fake*."""
    info = fake.connection(**extras)
    found = {"conn_type": "kubeflow_pipelines", "host": info.host, "password": info.password, "extra": info.extra}
    monkeypatch.setenv("AIRFLOW_CONN_KUBEFLOW_PIPELINES_DEFAULT", json.dumps(found))


def task(script: str, **kwargs: Any) -> RunPipelineOperator:
    """Return an operator that runs a pipeline of one task."""
    return pipeline(shell_pipeline({"only": script}), **kwargs)


def pipeline(found: Any, **kwargs: Any) -> RunPipelineOperator:
    """Return an operator that runs a pipeline."""
    return RunPipelineOperator(pipeline=found, **{"task_id": "pipe", "poll_interval": 0.1, **kwargs})


def states(server: KfpFake) -> list[str]:
    """Return the states of all runs, oldest first."""
    return [run["state"] for run in server.runs()]


def until(server: KfpFake, state: str, limit: float = 10) -> None:
    """Wait until the newest run is in a state, at most *limit* seconds."""
    end = time.monotonic() + limit
    while not states(server) or states(server)[-1] != state:
        assert time.monotonic() < end, states(server)
        time.sleep(0.02)


def only(server: KfpFake) -> dict[str, Any]:
    """Return the one run that there is; its workflow was started once."""
    (run,) = server.runs()
    assert server.workflows(run["run_id"]) == server.workflows() == 1
    return run


def test_a_short_pipeline_never_defers(server: KfpFake) -> None:
    """Its result is the XCom: handle and tasks. The link leads to the run's page on the console."""
    run = run_task(task("true"))
    assert (run.state, run.deferrals) == ("success", 0), run.error
    run_id = only(server)["run_id"]
    assert run.result["job"]["job_id"] == f"-/{run_id}"
    assert run.result["tasks"] == {"only": "SUCCEEDED"}
    assert run.xcoms["pipeline_run_url"] == f"https://console.example/_/pipeline/?ns=team#/runs/details/{run_id}"


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_long_pipeline_is_waited_for(server: KfpFake, deferrable: bool) -> None:
    """Deferred or blocking, the result is the same."""
    run = run_task(task("sleep 1.5", deferrable=deferrable))
    assert (run.state, run.deferrals) == ("success", int(deferrable)), run.error
    assert run.result["tasks"] == {"only": "SUCCEEDED"}
    assert only(server)["state"] == "SUCCEEDED"


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_failing_task_fails_the_airflow_task_for_good(server: KfpFake, deferrable: bool) -> None:
    """The error names the task of the pipeline and what it said; it is not tried again."""
    scripts = {"load": "sleep 1.3", "train": "echo no such column >&2; exit 7", "push": "true"}
    found = shell_pipeline(scripts, after={"train": ["load"], "push": ["train"]})
    run = run_task(pipeline(found, deferrable=deferrable, retries=3))
    assert run.state == "failed"
    assert isinstance(run.error, JobFailedError)
    assert all(part in str(run.error) for part in ("'train' failed", "exit code 7", "no such column"))
    assert "push" not in str(run.error)


def test_a_retry_adopts_the_run_of_the_try_before(server: KfpFake) -> None:
    """A worker that is gone without a trace is followed by one that finds its run: one run, one result."""
    memory = DagRunMemory()
    assert run_task(task("sleep 1.5", retries=2), memory=memory, follow=False).state == "deferred"
    again = run_task(task("sleep 1.5", retries=2), memory=memory, try_number=2)
    assert again.state == "success"
    only(server)


def test_a_clear_stops_the_run_and_starts_a_new_one(server: KfpFake) -> None:
    """A cleared task (its max_tries grew) ends the running run before a new one starts."""
    memory = DagRunMemory()
    assert run_task(task("sleep 30"), memory=memory, follow=False).state == "deferred"
    assert run_task(task("true"), memory=memory, try_number=2, max_tries=1).state == "success"
    assert states(server) == ["FAILED", "SUCCEEDED"]
    assert server.going() == 0


KILLED = """
import json, os, sys
from airflow_mlops.operators.pipelines import RunPipelineOperator
from airflow_mlops.testing.kfp.pipelines import shell_pipeline
from airflow_mlops.testing.task_runner import run_task
task = RunPipelineOperator(task_id="pipe", pipeline=shell_pipeline({"only": "sleep 30"}), deferrable=False)
run = run_task(task)
print(json.dumps([run.state, str(run.error), run.state_store]), flush=True)
"""


@pytest.mark.slow
def test_a_killed_worker_stops_the_run(server: KfpFake) -> None:
    """A worker that is told to end (SIGTERM) ends the run, and leaves a mark for the next try."""
    worker = subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True)
    try:
        until(server, "RUNNING", limit=60)
        time.sleep(0.3)
        worker.send_signal(signal.SIGTERM)
        state, error, store = json.loads(worker.communicate(timeout=30)[0].splitlines()[-1])
    finally:
        worker.kill()
        worker.wait()
    assert (state, "cancelled" in error) == ("failed", True)
    assert store["mlops_training_cancelled"] == store["mlops_training_job"]["name"]
    assert states(server) == ["FAILED"]
    assert server.going() == 0


def test_a_run_that_takes_too_long_is_stopped(server: KfpFake) -> None:
    """After max_runtime the run is terminated from here, also while the task waits in the triggerer."""
    run = run_task(task("sleep 60", max_runtime=1.5))
    assert run.state == "failed"
    assert "max_runtime" in str(run.error)
    assert states(server) == ["FAILED"]


def test_a_person_who_clears_a_waiting_task_stops_its_run(server: KfpFake, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trigger ends the run when its task no longer waits, and leaves it when another triggerer takes over."""
    held = run_task(task("sleep 30"), follow=False)
    trigger = PipelineRunTrigger(**held.trigger.serialize()[1])
    assert held.trigger.serialize()[0] == "airflow_mlops.triggers.pipelines.PipelineRunTrigger"
    trigger.task_instance = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1)
    found = {"state": "deferred"}
    monkeypatch.setattr(PipelineRunTrigger, "_states", lambda self: {found["state"]})
    asyncio.run(trigger.on_kill())
    assert states(server) == ["RUNNING"]
    found["state"] = "failed"
    asyncio.run(trigger.on_kill())
    until(server, "FAILED")


def test_a_pipeline_comes_from_a_file(server: KfpFake, tmp_path: Path) -> None:
    """A compiled file is read by the worker; its own braces are no template, its platform part goes along."""
    found = shell_pipeline({"only": 'test "$1" = blue'}, inputs={"colour": TEXT})
    platform = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": {}}}}}
    file = tmp_path / "pipeline.yaml"
    file.write_text("# PIPELINE DEFINITION\n" + yaml.safe_dump_all([found, platform]))
    run = run_task(pipeline(f"{tmp_path}/{{{{ 'pipeline' }}}}.yaml", parameters={"colour": "{{ 'bl' }}ue"}))
    assert run.state == "success", run.error
    sent = only(server)
    assert sent["pipeline_spec"] == {"pipeline_spec": found, "platform_spec": platform}
    assert sent["runtime_config"] == {"parameters": {"colour": "blue"}}


def test_a_pipeline_comes_from_an_earlier_task(server: KfpFake) -> None:
    """What a task returned is the pipeline as it is, whatever braces are in it."""
    found = shell_pipeline({"only": 'test "$1" = blue'}, inputs={"colour": TEXT})
    memory = DagRunMemory(xcoms={("compile", "return_value"): found})
    operator = pipeline("{{ ti.xcom_pull('compile') }}", parameters={"colour": "blue"})
    from airflow.sdk import DAG

    DAG("test_dag", schedule=None, render_template_as_native_obj=True).add_task(operator)
    assert run_task(operator, memory=memory).state == "success"
    assert only(server)["pipeline_spec"] == found


def test_an_uploaded_pipeline_is_run_by_its_name(server: KfpFake) -> None:
    """``name@version`` is that version, ``name`` the newest; the run refers to it."""
    old = server.upload("churn", "v1", shell_pipeline({"only": "true"}))
    new = server.upload("churn", "v2", shell_pipeline({"only": "true"}))
    for name, version in (("churn@v1", old), ("churn", new)):
        assert run_task(pipeline(name), memory=DagRunMemory(run_id=name)).state == "success"
        reference = {key: version[key] for key in ("pipeline_id", "pipeline_version_id")}
        assert server.runs()[-1]["pipeline_version_reference"] == reference


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"parameters": {"colour": "blue", "size": 1}}, "'size'"),
        ({"parameters": {}}, "'colour'"),
        ({"parameters": {"colour": 3}}, "STRING"),
        ({"parameters": {"colour": "x"}, "options": {"colour": "x"}}, "'colour'"),
        ({"parameters": {"colour": "x"}, "cache": "yes"}, "'cache'"),
        ({"parameters": {"colour": "x"}, "on_clear": "resume"}, "checkpoints"),
        ({"pipeline": "/no/such/file.yaml"}, "file.yaml"),
        ({"pipeline": "nobody"}, "nobody"),
    ],
)
def test_what_is_wrong_is_told_before_anything_runs(server: KfpFake, change: dict[str, Any], told: str) -> None:
    """A wrong argument fails the task at once, by its name, and nothing was started."""
    found = shell_pipeline({"only": "true"}, inputs={"colour": TEXT})
    run = run_task(RunPipelineOperator(task_id="pipe", retries=3, **{"pipeline": found, **change}))
    assert run.state == "failed"
    assert isinstance(run.error, (InvalidSpecError, NotFoundError))
    assert told in str(run.error)
    assert (server.workflows(), server.calls.count("CreateRun")) == (0, 0)


def test_options_reach_the_run(server: KfpFake) -> None:
    """Experiment, root, account and caching are what the server gets; an experiment is made once."""
    fields = {"experiment": "nightly +1%", "pipeline_root": "s3://bucket/root", "service_account": "runner"}
    for number in range(2):
        assert run_task(task("true", cache=False, **fields), memory=DagRunMemory(run_id=str(number))).state == "success"
    runs = server.runs()
    assert [run["service_account"] for run in runs] == ["runner", "runner"]
    assert runs[0]["runtime_config"]["pipeline_root"] == "s3://bucket/root"
    assert runs[0]["pipeline_spec"]["root"]["dag"]["tasks"]["only"]["cachingOptions"] == {"enableCache": False}
    assert runs[0]["experiment_id"] == runs[1]["experiment_id"] != ""
    assert server.calls.count("CreateExperiment") == 1


def test_the_connection_is_tried(server: KfpFake, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test button says that the server answers, or that it refuses the token, which it does not show."""
    assert PipelineHook().test_connection() == (True, "The backend 'kubeflow' answers.")
    wrong = {"conn_type": "kubeflow_pipelines", "host": server.address, "password": "s3cr3t-t0ken"}
    wrong["extra"] = {"verify": str(server.ca_file)}
    monkeypatch.setenv("AIRFLOW_CONN_KUBEFLOW_PIPELINES_DEFAULT", json.dumps(wrong))
    works, told = PipelineHook().test_connection()
    assert not works
    assert "401" in told
    assert "s3cr3t" not in told


WORKER = """
import os, sys
os.environ["AIRFLOW__CORE__UNIT_TEST_MODE"] = "True"
from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.training.pipelines.contract import PipelineSpec
from airflow_mlops.training.pipelines.kubeflow import KubeflowPipelines
from airflow_mlops.testing.kfp.pipelines import shell_pipeline
info = ConnectionInfo("kfp", sys.argv[1], password=sys.argv[2], extra={"verify": sys.argv[3]})
spec = PipelineSpec(shell_pipeline({"only": "sleep 1"}))
KubeflowPipelines.from_connection(info).submit(spec, name="aml-kill", owner=TaskIdentity("d", "r", "t"))
print("submitted", flush=True)
"""


def test_kill_9_while_the_answer_is_on_its_way(server: KfpFake) -> None:
    """A worker that dies by SIGKILL after it ordered a run and before it heard of it leaves one run, which is found."""
    server.faults.lose_answers(1, late=0.5)
    arguments = [sys.executable, "-c", WORKER, server.address, server.token, str(server.ca_file)]
    worker = subprocess.Popen(arguments, stdout=subprocess.PIPE)
    end = time.monotonic() + 30
    while not server.calls.count("CreateRun"):
        assert time.monotonic() < end
        time.sleep(0.01)
    os.kill(worker.pid, signal.SIGKILL)
    worker.communicate()
    until(server, "RUNNING")
    again = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=True)
    assert again.stdout == "submitted\n"
    run = only(server)
    backend = PipelineHook().get_backend()
    handle = backend.locate("aml-kill")
    assert isinstance(handle, JobHandle)
    assert handle.job_id == f"-/{run['run_id']}"
    assert backend.observe([handle])[handle].state in (JobState.RUNNING, JobState.SUCCEEDED)
