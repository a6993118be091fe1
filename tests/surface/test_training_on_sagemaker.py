"""TrainModelOperator, ``@task.train`` and RunPipelineOperator on SageMaker, with Airflow's real task runner."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, task

from airflow_mlops.core.errors import (
    InvalidSpecError,
    JobFailedError,
    JobTimeoutError,
    PlatformUnavailableError,
    QuotaExceededError,
)
from airflow_mlops.hooks.training import TrainingHook
from airflow_mlops.operators.pipelines import RunPipelineOperator
from airflow_mlops.operators.training import TrainModelOperator
from airflow_mlops.operators.tuning import TuneModelOperator
from airflow_mlops.testing.sagemaker import SageMakerFake, sagemaker_fake
from airflow_mlops.testing.task_runner import DagRunMemory, run_task, run_trigger
from airflow_mlops.training.contract import JobHandle, JobState

REPORT = 'echo "{\\"metrics\\": {\\"auc\\": 0.9}, \\"model_uri\\": \\"models:/m-1\\"}" > $MLOPS_OUTPUT'


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[SageMakerFake]:
    """Run an account, with a connection of the type ``aws``."""
    with sagemaker_fake() as found:
        monkeypatch.setenv("AIRFLOW_CONN_AWS", json.dumps(found.airflow_connection()))
        yield found


def train(script: str, **kwargs: Any) -> TrainModelOperator:
    """Return an operator that runs a shell script in an image."""
    where = {"backend": "sagemaker", "conn_id": "aws", "image": "train:1", "poll_interval": 0.2}
    return TrainModelOperator(task_id="train", command=["sh", "-c", script, "train"], **{**where, **kwargs})


def words(fake: SageMakerFake) -> list[str]:
    """Return the status of every job, oldest first."""
    return [job["TrainingJobStatus"] for job in fake.jobs().values()]


def until(look: Callable[[], Any]) -> Any:
    """Look until there is something, and return it."""
    end = time.monotonic() + 30
    while not (found := look()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_job_is_run_and_its_result_returned(fake: SageMakerFake, deferrable: bool) -> None:
    """Deferred and blocking, the task returns what the program reported, shows its log and the page of the job."""
    run = run_task(train(f"echo hello; sleep 2; {REPORT}", deferrable=deferrable))
    assert run.state == "success", run.log
    assert (run.result["metrics"], run.result["model_uri"]) == ({"auc": 0.9}, "models:/m-1")
    job = JobHandle.from_dict(run.result["job"])
    assert job.console_url.endswith(f"#/jobs/{job.job_id.partition('/')[2]}")
    assert "hello" in run.log
    assert run.result["billed_seconds"] >= 2
    assert run.deferrals == (1 if deferrable else 0)
    assert words(fake) == ["Completed"]


def test_waiting_in_the_triggerer_costs_one_request_a_look(fake: SageMakerFake) -> None:
    """A job that waits alone is described; no list, log or archive is read for it."""
    run = run_task(train("sleep 8"), follow=False)
    assert run.state == "deferred"
    fake.calls.reset()
    assert run_trigger(run.trigger)["payload"] == {"why": "succeeded"}
    assert {call.verb for call in fake.calls.seen()} == {"DescribeTrainingJob"}


def test_a_failing_program_fails_the_task_with_its_last_lines(fake: SageMakerFake) -> None:
    """The task's error has the exit code and the end of the log, and is not tried again."""
    run = run_task(train("echo ValueError: no rows; exit 41", retries=2))
    assert (run.state, type(run.error)) == ("failed", JobFailedError)
    assert "exit code: 41" in str(run.error)
    assert "ValueError: no rows" in str(run.error)


def test_too_long_and_too_much_are_errors_of_their_own(fake: SageMakerFake) -> None:
    """A job that ran out of time and an account out of quota are told apart from a program's own fault."""
    assert isinstance(run_task(train("sleep 60", max_runtime=1)).error, JobTimeoutError)
    fake.faults.refuse(9, "ResourceLimitExceeded", "0 instances of ml.p4d", operation="CreateTrainingJob")
    run = run_task(train("true", retries=1), memory=DagRunMemory(run_id="other"))
    assert (run.state, type(run.error)) == ("up_for_retry", QuotaExceededError)


def test_a_retry_adopts_the_job_that_the_lost_worker_started(fake: SageMakerFake) -> None:
    """A try whose submission got no answer leaves a job that the next try finds: one training job in all."""
    fake.faults.lose_answers(4)
    memory = DagRunMemory()
    first = run_task(train("sleep 1", retries=1), memory=memory)
    assert (first.state, type(first.error)) == ("up_for_retry", PlatformUnavailableError)
    assert run_task(train("sleep 1", retries=1), memory=memory, try_number=2, max_tries=1).state == "success"
    assert words(fake) == ["Completed"]


def test_a_clear_stops_the_job_and_starts_a_new_one(fake: SageMakerFake) -> None:
    """The job of the cleared run is CANCELLED before the new one runs."""
    memory = DagRunMemory()
    assert run_task(train("sleep 60"), memory=memory, follow=False).state == "deferred"
    again = run_task(train("sleep 60"), memory=memory, max_tries=1, follow=False)
    assert again.state == "deferred", again.log
    assert until(lambda: words(fake) == ["Stopped", "InProgress"])
    backend = TrainingHook("sagemaker", "aws").get_backend()
    states = backend.observe([handle for handle, _ in backend.managed()]).values()
    assert sorted(status.state for status in states)[0] is JobState.CANCELLED


def test_a_job_that_got_no_spot_machine_starts_the_next_attempt(fake: SageMakerFake) -> None:
    """After the limit of waiting the driver starts another job, which goes on from the same checkpoints."""
    script = f'test -e "$MLOPS_CHECKPOINT_DIR/seen" || {{ touch "$MLOPS_CHECKPOINT_DIR/seen"; sleep 60; }}; {REPORT}'
    kwargs = {"spot": True, "checkpoint": "s3://kept", "max_runtime": 2, "options": {"max_wait": 1}}
    memory = DagRunMemory()
    held = run_task(train(script, **kwargs), memory=memory, follow=False)
    (name,) = fake.jobs()
    until(lambda: fake.jobs()[name]["SecondaryStatus"] == "Training")
    fake.world.has_spot = False
    fake.interrupt(name)
    until(lambda: fake.jobs()[name]["SecondaryStatus"] == "MaxWaitTimeExceeded")
    fake.world.has_spot = True
    run = run_task(train(script, **kwargs), memory=memory, resume=held, event={"why": "preempted"})
    assert (run.state, run.result["metrics"]) == ("success", {"auc": 0.9}), run.error
    assert words(fake) == ["Stopped", "Completed"]
    assert run.state_store["mlops_training_job"]["preemptions"] == 1


def test_no_secret_is_in_what_the_platform_or_airflow_keeps(fake: SageMakerFake) -> None:
    """The value that the job read is in its own process alone: no description, tag, log or XCom has it."""
    fake.world.vault["prod/api"] = json.dumps({"key": "planted-secret"})
    secret = {"TOKEN": "secretsmanager:prod/api#key"}
    run = run_task(train('test "$(printf %s "$TOKEN" | wc -c)" = 14', secret_env=secret))
    assert run.state == "success", run.log
    kept = json.dumps([fake.jobs(), run.result, run.xcoms, run.state_store], default=str) + run.log
    assert "planted-secret" not in kept
    assert fake.secret_key not in kept


def test_a_variable_of_the_worker_is_refused_by_name(fake: SageMakerFake) -> None:
    """The message says what to write; nothing was started, and it is not tried again."""
    run = run_task(train("true", secret_env={"TOKEN": "WORKER_VARIABLE"}, retries=3))
    assert (run.state, type(run.error)) == ("failed", InvalidSpecError)
    assert "secretsmanager:<name>" in str(run.error)
    assert fake.jobs() == {}


def test_the_connection_can_be_tested(fake: SageMakerFake) -> None:
    """The button asks the account; a refusal is told with the right that is missing."""
    assert TrainingHook("sagemaker", "aws").test_connection()[0]
    fake.faults.refuse(9, "AccessDeniedException", "not authorized to perform: sagemaker:Search")
    found, message = TrainingHook("sagemaker", "aws").test_connection()
    assert (found, "sagemaker:Search" in message) == (False, True)


@task.train(backend="sagemaker", conn_id="aws", image="python:3.12-slim", python=sys.executable, poll_interval=0.2)
def fit(name: str, table: dict[str, Any]) -> dict[str, Any]:
    """Report what came through, dollars and braces too."""
    import os

    price = "$(MLOPS_JOB_NAME) $$(HOME) $$ {{ x }} 'quoted'"
    return {"metrics": {"nodes": int(os.environ["MLOPS_NODES"])}, "model_uri": "|".join([name, table["text"], price])}


@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize("size", [10, 90_000])
def test_a_function_arrives_as_it_is(fake: SageMakerFake, nodes: int, size: int) -> None:
    """Source and arguments, short or 90 KB long, reach one node and two; node 0 reports."""
    with DAG("functions", schedule=None) as dag:
        fit.override(nodes=nodes)("$(MLOPS_JOB_NAME) $$", {"text": "$(x)\n" + "é" * (size // 6)})
    run = run_task(dag.get_task("fit"))
    assert run.state == "success", run.error
    name, text, price = run.result["model_uri"].split("|")
    assert (name, text, price) == (
        *("$(MLOPS_JOB_NAME) $$", "$(x)\n" + "é" * (size // 6)),
        "$(MLOPS_JOB_NAME) $$(HOME) $$ {{ x }} 'quoted'",
    )
    assert run.result["metrics"] == {"nodes": nodes}


def pipe(name: str, **kwargs: Any) -> RunPipelineOperator:
    """Return an operator that runs a pipeline of the account."""
    where = {"backend": "sagemaker", "conn_id": "aws", "poll_interval": 0.2, "task_id": "pipe"}
    return RunPipelineOperator(pipeline=name, **{**where, **kwargs})


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_pipeline_is_run_with_its_parameters(fake: SageMakerFake, deferrable: bool) -> None:
    """Deferred and blocking, the result has the states of its steps and what they made."""
    declared = [{"Name": "Epochs", "Type": "Integer", "DefaultValue": 1}]
    fake.add_pipeline("churn", {"load": "sleep 1", "fit": 'test "$Epochs" = 3'}, declared)
    run = run_task(pipe("churn", parameters={"Epochs": 3}, deferrable=deferrable))
    assert run.state == "success", run.error
    assert run.result["tasks"] == {"load": "Succeeded", "fit": "Succeeded"}
    assert run.result["outputs"]["fit.TrainingJob"].startswith("arn:aws:sagemaker:")
    assert len(fake.executions()) == 1


def test_a_pipeline_that_was_started_once_is_found_by_the_next_try(fake: SageMakerFake) -> None:
    """Also when SageMaker has forgotten the token of the request: its name is looked for first."""
    fake.add_pipeline("churn", {"fit": "sleep 2"})
    fake.faults.lose_answers(4, operation="StartPipelineExecution")
    memory = DagRunMemory()
    first = run_task(pipe("churn", retries=1), memory=memory)
    assert (first.state, type(first.error)) == ("up_for_retry", PlatformUnavailableError)
    fake.forget_tokens()
    second = run_task(pipe("churn", retries=1), memory=memory, try_number=2, max_tries=1)
    assert second.state == "success", second.error
    assert len(fake.executions()) == 1


def test_a_pipeline_that_fails_says_where(fake: SageMakerFake) -> None:
    """The error names the step and its reason; a step after it never ran."""
    fake.add_pipeline("churn", {"fit": "exit 7", "push": "true"})
    run = run_task(pipe("churn", retries=2))
    assert (run.state, type(run.error)) == ("failed", JobFailedError)
    assert "'fit'" in str(run.error)
    assert "exit code: 7" in str(run.error)
    assert len(fake.jobs()) == 1


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("none", {}, "does not exist"),
        ("churn", {"parameters": {"Epoch": 1}}, "Epochs"),
        ("churn", {}, "'Epochs'"),
        ("churn@first", {"parameters": {"Epochs": 1}}, "first"),
    ],
)
def test_a_pipeline_that_cannot_run_is_refused_before(
    fake: SageMakerFake, name: str, kwargs: dict[str, Any], message: str
) -> None:
    """An unknown pipeline, parameter or version starts nothing."""
    fake.add_pipeline("churn", {"fit": "true"}, [{"Name": "Epochs", "Type": "Integer"}])
    run = run_task(pipe(name, **kwargs))
    assert run.state == "failed"
    assert message in str(run.error)
    assert fake.executions() == []


def test_the_how_to_stands_as_it_is(fake: SageMakerFake) -> None:
    """Its tasks are taken by the service, field by field; only the image of the example is not here."""
    text = (Path(__file__).parents[2] / "docs/howto/sagemaker.md").read_text()
    blocks = [block.partition("```")[0] for block in text.split("```python\n")[1:]]
    operators = (TrainModelOperator, RunPipelineOperator, TuneModelOperator)
    names: dict[str, Any] = {operator.__name__: operator for operator in operators}
    exec("\n".join(blocks), names)
    fake.add_pipeline("churn", {"fit": "true"}, [{"Name": "Epochs", "Type": "Integer"}])
    trained = run_task(names["train"])
    assert "can't open file" in str(trained.error), trained.error
    (job,) = fake.jobs().values()
    assert job["ResourceConfig"]["InstanceType"] == "ml.m5.xlarge"
    assert job["CheckpointConfig"]["S3Uri"].startswith("s3://ml-bucket/checkpoints/churn/aml-")
    assert run_task(names["run"]).state == "success"
