"""TrainModelOperator with Airflow's real task runner and real local jobs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from airflow_mlops.core.errors import (
    ConflictError,
    InvalidSpecError,
    JobFailedError,
    JobTimeoutError,
    UnknownPluginError,
)
from airflow_mlops.hooks.training import TrainingHook
from airflow_mlops.operators.training import TrainModelOperator
from airflow_mlops.testing.task_runner import DagRunMemory, run_task
from airflow_mlops.training.contract import JobHandle, JobState
from airflow_mlops.triggers.training import TrainingJobTrigger

REPORT = 'echo "{\\"metrics\\": {\\"auc\\": 0.9}, \\"model_uri\\": \\"models:/m-1\\"}" > $MLOPS_OUTPUT'
VERSION = {
    "path": "data/train",
    "rev": "v1",
    "commit": "c" * 40,
    "digest": "md5:0123",
    "size": 3,
    "repo": "https://example.com/data.git",
}


@pytest.fixture(autouse=True)
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a connection of its own, and with it a folder of jobs."""
    connection = {"conn_type": "mlops_local", "extra": {"workdir": str(tmp_path / "jobs"), "grace": 0.5}}
    monkeypatch.setenv("AIRFLOW_CONN_LOCAL_JOBS", json.dumps(connection))
    return tmp_path / "jobs"


def train(script: str, **kwargs: Any) -> TrainModelOperator:
    """Return an operator that runs a shell script."""
    kwargs = {"task_id": "train", "conn_id": "local_jobs", "poll_interval": 0.1, **kwargs}
    return TrainModelOperator(command=["sh", "-c", script, "train"], **kwargs)


def states(jobs: Path) -> list[JobState]:
    """Return the states of all jobs."""
    backend = TrainingHook("local", "local_jobs").get_backend()
    found = backend.observe([handle for handle, _ in backend.managed()])
    return sorted(status.state for status in found.values())


def until_running(jobs: Path) -> None:
    """Wait until a job runs."""
    end = time.monotonic() + 10
    while JobState.RUNNING not in states(jobs):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_job_that_ends_at_once_never_defers() -> None:
    """Its result is the XCom: handle, model, metrics. The link to its log is there, and its lines are in the log."""
    run = run_task(train(f"echo trained; {REPORT}"))
    assert (run.state, run.deferrals) == ("success", 0)
    assert run.result["metrics"] == {"auc": 0.9}
    assert run.result["model_uri"] == "models:/m-1"
    assert run.xcoms["training_job_url"] == run.result["job"]["console_url"]
    assert "trained" in run.log


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_long_job_is_waited_for(deferrable: bool) -> None:
    """Deferred or blocking, the result is the same, and every line of the job is in the task's log once."""
    run = run_task(train(f"echo first; sleep 1.5; echo second; {REPORT}", deferrable=deferrable))
    assert (run.state, run.deferrals, run.result["metrics"]) == ("success", int(deferrable), {"auc": 0.9})
    lines = run.log.splitlines()
    assert [sum(line.startswith(word) for line in lines) for word in ("first", "second")] == [1, 1]


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_failing_script_fails_the_task_for_good(deferrable: bool) -> None:
    """The error has the exit code, the last lines and the place of the log, and user code is never tried again."""
    run = run_task(train("sleep 1.3; echo oh no >&2; exit 7", deferrable=deferrable, retries=3))
    assert run.state == "failed"
    assert isinstance(run.error, JobFailedError)
    assert all(part in str(run.error) for part in ("exit code 7", "oh no", "log.txt"))


def test_arguments_are_templated_and_reach_the_job() -> None:
    """Parameters, variables and inputs of an earlier task are rendered; the job sees paths, the result has versions."""
    memory = DagRunMemory(xcoms={("fetch", "return_value"): {"version": VERSION, "path": "/data/train"}})
    task = train(
        'echo "saw $MLOPS_INPUT_TRAIN $WHO $MLOPS_ATTEMPT $*"',
        inputs={"train": "{{ ti.xcom_pull('fetch') }}"},
        env={"WHO": "{{ run_id }}"},
        parameters={"rate": "{{ 1 / 4 }}"},
        node_resources={"cpus": 1},
    )
    from airflow.sdk import DAG

    DAG("test_dag", schedule=None, render_template_as_native_obj=True).add_task(task)
    run = run_task(task, memory=memory)
    assert run.state == "success", run.error
    assert "saw /data/train manual__1 0 --rate 0.25" in run.log
    assert run.result["data"]["train"]["digest"] == "md5:0123"


def test_a_retry_adopts_the_job_of_the_try_before(jobs: Path, tmp_path: Path) -> None:
    """A worker that is gone without a trace is followed by one that finds its job: one process, one result."""
    memory, marks = DagRunMemory(), tmp_path / "marks"
    task = train(f"echo x >> {marks}; sleep 1.5; {REPORT}", retries=2)
    assert run_task(task, memory=memory, follow=False).state == "deferred"
    again = run_task(task, memory=memory, try_number=2)
    assert (again.state, again.result["metrics"]) == ("success", {"auc": 0.9})
    assert marks.read_text() == "x\n"
    assert states(jobs) == [JobState.SUCCEEDED]


def test_a_clear_stops_the_job_and_starts_a_new_one(jobs: Path) -> None:
    """A cleared task (its max_tries grew) ends the running job before a new one starts."""
    memory = DagRunMemory()
    assert run_task(train("sleep 30"), memory=memory, follow=False).state == "deferred"
    run = run_task(train("true"), memory=memory, try_number=2, max_tries=1)
    assert run.state == "success"
    assert states(jobs) == [JobState.CANCELLED, JobState.SUCCEEDED]


def test_a_failed_job_is_not_adopted_by_another_try(jobs: Path) -> None:
    """A try after a reported failure starts a new job under the next attempt."""
    memory = DagRunMemory()
    assert run_task(train("exit 1", retries=1), memory=memory).state == "failed"
    run = run_task(train("echo attempt $MLOPS_ATTEMPT", retries=1), memory=memory, try_number=2)
    assert run.state == "success"
    assert "attempt 1" in run.log


def test_a_broken_trigger_does_not_lose_the_job() -> None:
    """When waiting broke although the job goes on, the task waits again instead of failing."""
    memory = DagRunMemory()
    task = train(f"sleep 1.5; {REPORT}")
    held = run_task(task, memory=memory, follow=False)
    held.api.final["next_method"] = "__fail__"
    again = run_task(task, memory=memory, resume=held, event={})
    assert (again.state, again.result["metrics"]) == ("success", {"auc": 0.9})
    assert again.state_store["mlops_training_job"]["trigger_failures"] == 1


WORKER = """
import json, sys
from airflow_mlops.operators.training import TrainModelOperator
from airflow_mlops.testing.task_runner import DagRunMemory, run_task
memory = DagRunMemory()
task = TrainModelOperator(task_id="train", conn_id="local_jobs", command="sleep 30", deferrable=False,
                          poll_interval=0.1, retries=1)
run = run_task(task, memory=memory)
record = run.state_store
print(json.dumps({"state": run.state, "error": str(run.error), "record": run.state_store}), flush=True)
"""


def test_a_stopped_worker_stops_its_job(jobs: Path) -> None:
    """On SIGTERM a blocking worker writes the cancel mark, then cancels the job; it never reads as success."""
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        end = time.monotonic() + 60
        while JobState.RUNNING not in states(jobs):
            assert time.monotonic() < end
            assert worker.poll() is None
            time.sleep(0.1)
        time.sleep(0.3)
        worker.send_signal(signal.SIGTERM)
        said = json.loads(worker.communicate(timeout=30)[0].splitlines()[-1])
    finally:
        worker.kill()
        worker.wait()
    assert said["state"] == "failed"
    assert "cancelled" in said["error"]
    assert said["record"]["mlops_training_cancelled"] == said["record"]["mlops_training_job"]["name"]
    assert states(jobs) == [JobState.CANCELLED]


def test_a_try_after_a_kill_starts_a_new_job(jobs: Path) -> None:
    """The cancel mark tells the next try that the job was stopped on purpose: it makes sure, then starts anew."""
    memory = DagRunMemory()
    held = run_task(train("sleep 30", retries=1), memory=memory, follow=False)
    memory.state_store["train", -1]["mlops_training_cancelled"] = held.state_store["mlops_training_job"]["name"]
    run = run_task(train("true", retries=1), memory=memory, try_number=2)
    assert run.state == "success"
    assert states(jobs) == [JobState.CANCELLED, JobState.SUCCEEDED]


@pytest.mark.parametrize(("state", "expected"), [("failed", JobState.CANCELLED), ("deferred", JobState.RUNNING)])
def test_the_trigger_stops_the_job_only_when_its_task_no_longer_waits(
    state: str, expected: JobState, jobs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that a person ended stops its job; a mere change of triggerer, which looks the same, does not."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    def airflow_says(**query: Any) -> dict[str, Any]:
        assert query == {"dag_id": "test_dag", "run_ids": ["manual__1"], "task_ids": ["train"], "map_index": -1}
        return {"manual__1": {"train": state}}

    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", staticmethod(airflow_says))
    trigger = run_task(train("sleep 30"), follow=False).trigger
    trigger._task_instance = SimpleNamespace(dag_id="test_dag", run_id="manual__1", task_id="train", map_index=-1)
    backend, handle = TrainingHook("local", "local_jobs").get_backend(), JobHandle.from_dict(trigger.job)
    try:
        asyncio.run(trigger.on_kill())
        end = time.monotonic() + 2
        while (found := backend.observe([handle])[handle].state) is not JobState.CANCELLED and time.monotonic() < end:
            time.sleep(0.05)
        assert found is expected
    finally:
        backend.cancel(handle)


def test_the_trigger_fires_at_its_deadline_although_the_job_goes_on(jobs: Path) -> None:
    """A job past its deadline is handed to the worker, which stops it and fails."""
    memory = DagRunMemory()
    task = train("sleep 30", max_runtime=1000)
    held = run_task(task, memory=memory, follow=False)
    assert held.trigger.deadline > time.time() + 1000
    memory.state_store["train", -1]["mlops_training_job"]["deadline"] = time.time() - 1
    run = run_task(task, memory=memory, resume=held, event={"why": "deadline"})
    assert (run.state, "max_runtime" in str(run.error)) == ("failed", True)
    assert states(jobs) == [JobState.CANCELLED]

    async def fires() -> Any:
        trigger = TrainingJobTrigger("local", held.trigger.job, "local_jobs", deadline=time.time())
        return await anext(trigger.run())

    assert asyncio.run(fires()).payload == {"why": "cancelled"}


def test_wrong_requests_fail_before_a_job_starts(jobs: Path) -> None:
    """An unknown backend, an unknown resource and an unsupported field are named, and nothing runs."""
    assert isinstance(run_task(train("true", backend="locl", retries=1)).error, UnknownPluginError)
    assert "cpu" in str(run_task(train("true", node_resources={"cpu": 1}, retries=1)).error)
    run = run_task(train("true", image="python:3.12", retries=1))
    assert (run.state, isinstance(run.error, InvalidSpecError)) == ("failed", True)
    assert "'image'" in str(run.error)
    assert not list(jobs.glob("*/job.json"))


def test_secrets_reach_the_job_and_no_file(jobs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A named secret is in the job's environment, and neither in its folder nor in the record or the log."""
    monkeypatch.setenv("WORKER_TOKEN", "s3cr3t-value")
    run = run_task(train('case "$TOKEN" in s3*value) ;; *) exit 1;; esac', secret_env={"TOKEN": "WORKER_TOKEN"}))
    assert run.state == "success", run.error
    texts = [path.read_text() for path in jobs.rglob("*") if path.is_file()]
    assert not [
        text for text in [*texts, run.log, json.dumps(run.xcoms), json.dumps(run.state_store)] if "s3cr3t-value" in text
    ]


def test_the_hook_tells_whether_its_backend_answers(jobs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection test is true for a good connection and names the fault of a bad one."""
    assert TrainingHook("local", "local_jobs").test_connection() == (True, "The backend 'local' answers.")
    monkeypatch.setenv("AIRFLOW_CONN_LOCAL_JOBS", json.dumps({"conn_type": "mlops_local", "extra": {"work": "x"}}))
    found, message = TrainingHook("local", "local_jobs").test_connection()
    assert (found, "'work'" in message) == (False, True)


def test_the_dag_survives_serialisation() -> None:
    """A DAG with the operator goes through Airflow's serialisation, with its links."""
    from airflow.sdk import DAG
    from airflow.serialization.serialized_objects import DagSerialization

    dag = DAG("serial", schedule=None)
    dag.add_task(train("true", node_resources={"cpus": 1}, secret_env={"A": "B"}))
    again = DagSerialization.deserialize_dag(json.loads(json.dumps(DagSerialization.serialize_dag(dag))))
    assert set(again.get_task("train").operator_extra_link_dict) == {"Training job", "Tracking run"}


def tracked(url: str, run_id: str) -> dict[str, Any]:
    """Return a run as the tracking server has it."""
    return httpx.get(f"{url}/api/2.0/mlflow/runs/get", params={"run_id": run_id}).json()["run"]


@pytest.fixture
def tracking(mlflow_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give the address of the tracking server that the connection ``tracking`` leads to."""
    monkeypatch.setenv("AIRFLOW_CONN_TRACKING", json.dumps({"conn_type": "mlflow", "host": mlflow_server}))
    return mlflow_server


def test_a_tracked_job_has_a_run_of_its_own(tracking: str) -> None:
    """The run is there before the job, with parameters and proof of data and code, and is FINISHED after it."""
    run = run_task(
        train(
            'test -n "$MLFLOW_TRACKING_URI" && echo "run $MLFLOW_RUN_ID"',
            experiment="surface",
            mlflow_conn_id="tracking",
            inputs={"train": {"version": VERSION, "path": "/data"}},
            parameters={"depth": 3},
            code_commit="abc123",
        )
    )
    assert run.state == "success", run.error
    found = tracked(tracking, run.result["run_id"])
    tags = {tag["key"]: tag["value"] for tag in found["data"]["tags"]}
    assert f"run {run.result['run_id']}" in run.log
    assert found["info"]["status"] == "FINISHED"
    assert [(p["key"], p["value"]) for p in found["data"]["params"]] == [("depth", "3")]
    assert tags["mlops.data.train.digest"] == "md5:0123"
    assert tags["mlflow.source.git.commit"] == "abc123"
    assert tags["airflow.task_id"] == "train"
    assert run.xcoms["tracking_run_url"].startswith(tracking)


@pytest.mark.parametrize(("script", "status"), [("exit 3", "FAILED"), ("sleep 30", "KILLED")])
def test_the_run_of_a_job_that_did_not_succeed_is_closed(script: str, status: str, tracking: str) -> None:
    """A failed job's run is FAILED, a cleared job's run is KILLED; none stays RUNNING."""
    memory = DagRunMemory(run_id=f"manual__{status}")
    arguments = {"experiment": "surface", "mlflow_conn_id": "tracking"}
    first = run_task(train(script, **arguments), memory=memory, follow=False)
    run_id = first.state_store["mlops_training_job"]["run_id"]
    assert run_task(train("true", **arguments), memory=memory, try_number=2, max_tries=1).state == "success"
    assert tracked(tracking, run_id)["info"]["status"] == status


def test_tracking_credentials_travel_by_environment_only(
    tracking: str, jobs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job can log in to the tracking server; the password is in no file, and not left in the worker either."""
    connection = {"conn_type": "mlflow", "host": tracking, "login": "ann", "password": "pa55word"}
    monkeypatch.setenv("AIRFLOW_CONN_TRACKING", json.dumps(connection))
    script = 'case "$MLFLOW_TRACKING_USERNAME:$MLFLOW_TRACKING_PASSWORD" in ann:pa*word) ;; *) exit 1;; esac'
    run = run_task(train(script, experiment="surface", mlflow_conn_id="tracking"), memory=DagRunMemory(run_id="secret"))
    assert run.state == "success", run.error
    assert not [path for path in jobs.rglob("*") if path.is_file() and "pa55word" in path.read_text()]
    assert "MLFLOW_TRACKING_PASSWORD" not in os.environ


def preempt(jobs: Path) -> None:
    """Take the machine away from the job that runs: its runner is told to end, as on a shutdown."""
    until_running(jobs)
    backend = TrainingHook("local", "local_jobs").get_backend()
    for handle, _ in backend.managed():
        if backend.observe([handle])[handle].state is JobState.RUNNING:
            begun = json.loads((jobs / handle.job_id / "started.json").read_text())
            os.kill(begun["runner"]["pid"], signal.SIGTERM)


COUNTING = 'cd "$MLOPS_CHECKPOINT_DIR"; echo "$MLOPS_ATTEMPT" >> tries; test -e half && exit 0; touch half; sleep 30'


def test_a_preempted_job_goes_on_from_its_checkpoint(jobs: Path) -> None:
    """The next attempt sees the folder of the one before; the task neither fails nor uses up a retry."""
    memory, task = DagRunMemory(), train(COUNTING, checkpoint="here", retries=0)
    held = run_task(task, memory=memory, follow=False)
    preempt(jobs)
    run = run_task(task, memory=memory, resume=held, event={"why": "preempted"})
    assert run.state == "success", run.error
    assert [path.read_text() for path in jobs.rglob("tries")] == ["0\n1\n"]
    assert states(jobs) == [JobState.PREEMPTED, JobState.SUCCEEDED]


@pytest.mark.parametrize(("on_clear", "tries"), [("restart", ["0\n", "0\n"]), ("resume", ["0\n0\n"])])
def test_a_clear_goes_on_from_the_checkpoint_only_if_told(on_clear: str, tries: list[str], jobs: Path) -> None:
    """By default a cleared task starts from nothing; with resume its new job sees the checkpoints of the old one."""
    memory = DagRunMemory()
    task = train(COUNTING, checkpoint="here", on_clear=on_clear, deferrable=True)
    assert run_task(task, memory=memory, follow=False).state == "deferred"
    run = run_task(task, memory=memory, try_number=2, max_tries=1, follow=False)
    assert [path.read_text() for path in jobs.rglob("tries")] == tries
    assert run.state == ("success" if on_clear == "resume" else "deferred")
    for handle, _ in (backend := TrainingHook("local", "local_jobs").get_backend()).managed():
        backend.cancel(handle)


def test_a_clear_keeps_the_job_if_told(jobs: Path, tmp_path: Path) -> None:
    """With reattach a cleared task takes the result of the job it had, also when its spec has changed since."""
    memory, marks = DagRunMemory(), tmp_path / "marks"
    first = run_task(train(f"echo x >> {marks}; {REPORT}", on_clear="reattach"), memory=memory)
    again = run_task(train(f"echo y >> {marks}", on_clear="reattach"), memory=memory, try_number=2, max_tries=1)
    assert (first.state, again.state, again.result) == ("success", "success", first.result)
    assert marks.read_text() == "x\n"


def test_a_wrong_rule_for_clears_is_named() -> None:
    """The message has the value and the ones that exist."""
    run = run_task(train("true", on_clear="resume_", retries=1))
    assert (run.state, "did you mean 'resume'" in str(run.error)) == ("failed", True)


def test_what_the_job_does_is_shown_while_it_runs(jobs: Path) -> None:
    """The state store tells a person the state, the progress that the program printed and where to look."""
    memory = DagRunMemory()
    task = train("echo mlops progress 0.25; sleep 1.5; echo mlops progress 0.5; sleep 30", logging_interval=2)
    held = run_task(task, memory=memory, follow=False)
    assert held.state_store["mlops_training_status"]["state"] == "running"
    assert held.trigger.deadline < time.time() + 3
    time.sleep(1)
    again = run_task(task, memory=memory, resume=held, event={"why": "deadline"}, follow=False)
    assert again.state == "deferred"
    assert again.state_store["mlops_training_job"]["progress"] == 0.5
    again = run_task(task, memory=memory, resume=again, event={"why": "deadline"}, follow=False)
    shown = again.state_store["mlops_training_status"]
    assert (shown["progress"], shown["attempt"]) == (0.5, 0)
    assert shown["console_url"].endswith("log.txt")
    for handle, _ in (backend := TrainingHook("local", "local_jobs").get_backend()).managed():
        backend.cancel(handle)


def test_an_execution_timeout_counts_while_deferred(jobs: Path) -> None:
    """Airflow does not count it there, so the job's own deadline does; Airflow's deferral timeout stands behind it."""
    memory = DagRunMemory()
    task = train("sleep 30", execution_timeout=timedelta(seconds=2), deadline_margin=3)
    held = run_task(task, memory=memory, follow=False)
    assert held.trigger.deadline < time.time() + 2
    assert 2 < pendulum_seconds(held.api.final["trigger_timeout"]) < 5
    run = run_task(task, memory=memory, resume=held, event={"why": "deadline"}, follow=False)
    while run.state == "deferred":
        run = run_task(task, memory=memory, resume=run, event={"why": "deadline"}, follow=False)
    assert (run.state, isinstance(run.error, JobTimeoutError)) == ("failed", True)
    assert states(jobs) == [JobState.CANCELLED]


def pendulum_seconds(duration: str) -> float:
    """Return the seconds of an ISO 8601 duration such as ``PT4.9S``."""
    return float(duration.removeprefix("PT").removesuffix("S"))


def test_a_job_of_another_spec_is_ended_before_the_new_one(jobs: Path) -> None:
    """A worker died between submission and record, and the DAG was changed since: never two jobs, never a stray one."""
    memory = DagRunMemory()
    assert run_task(train("sleep 30", retries=2), memory=memory, follow=False).state == "deferred"
    record = memory.state_store["train", -1]["mlops_training_job"]
    memory.state_store["train", -1]["mlops_training_job"] = {**record, "phase": "intent", "job": None}
    changed = train("true", retries=2)
    run = run_task(changed, memory=memory, try_number=2)
    assert (run.state, isinstance(run.error, ConflictError)) == ("up_for_retry", True)
    assert states(jobs) == [JobState.CANCELLED]
    assert run_task(changed, memory=memory, try_number=3).state == "success"


@pytest.mark.parametrize(("word", "spot"), [("False", False), ("true", True), (None, False), (True, True)])
def test_a_switch_may_come_from_a_template(word: Any, spot: bool) -> None:
    """A DAG without native rendering gives text: ``False`` is not true. Any other word is refused."""
    assert train("true", spot=word).rules().spot is spot
    with pytest.raises(InvalidSpecError, match="'maybe'"):
        train("true", spot="maybe").rules()
