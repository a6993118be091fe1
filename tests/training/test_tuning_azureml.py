"""What is special about searches on Azure Machine Learning, over TLS, with trials that really run."""

from __future__ import annotations

import ast
import json
import logging
import math
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.core.errors import InvalidSpecError, JobFailedError, UnsupportedFeatureError
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.core.refs import DataVersion
from airflow_mlops.testing.azureml import AzureMLFake, azureml_fake
from airflow_mlops.testing.azureml.problems import Problem
from airflow_mlops.testing.azureml.sweep_schema import check
from airflow_mlops.training.backends.azureml import AzureMLBackend
from airflow_mlops.training.contract import FailureReason, JobHandle, JobState, JobStatus, TrainingSpec
from airflow_mlops.training.search_space import fits, read_space
from airflow_mlops.training.tuning.azureml import AzureMLTuning
from airflow_mlops.training.tuning.azureml_space import BAYESIAN, GRID, RANDOM, dimensions, expressions
from airflow_mlops.training.tuning.azureml_sweep import TRIAL
from airflow_mlops.training.tuning.azureml_trial import parts, value_of, word_of
from airflow_mlops.training.tuning.contract import TuningResult, TuningSpec

OWNER = TaskIdentity("dag", "run", "tune")
VERSION = DataVersion("data/train", "v1", "c" * 40, "md5:0123", 3, repo="https://example.com/data.git")
X = {"low": 1, "high": 90, "type": "int"}
REPORT = 'printf \'{"metrics": {"auc": %s}, "model_uri": "%s"}\' "$2" "$MLOPS_JOB_NAME" > "$MLOPS_OUTPUT"'
"""The metric is the value of the only parameter; the name of the model is that of the trial."""


class Workspace:
    """A fake with a backend, and what every test does with them."""

    def __init__(self, fake: AzureMLFake) -> None:
        self.fake, self.backend = fake, AzureMLTuning.from_connection(fake.connection())

    def submit(self, spec: TuningSpec, name: str = "") -> JobHandle:
        """Start a search."""
        return self.backend.submit(spec, name=name or f"aml-{uuid.uuid4().hex[:12]}", owner=OWNER)

    def look(self, job: JobHandle) -> JobStatus:
        """Look once."""
        return self.backend.observe([job])[job]

    def ended(self, spec: TuningSpec, name: str = "") -> tuple[JobHandle, JobStatus]:
        """Run a search to its end."""
        job, end = self.submit(spec, name), time.monotonic() + 30
        while not (status := self.look(job)).state.terminal:
            assert time.monotonic() < end
            time.sleep(0.03)
        return job, status

    def searched(self, spec: TuningSpec) -> TuningResult:
        """Run a search to its good end."""
        job, status = self.ended(spec)
        assert status.state is JobState.SUCCEEDED, status
        return self.backend.collect(job)


@pytest.fixture(scope="module")
def shared() -> Iterator[AzureMLFake]:
    """Run one workspace for the tests that leave it as it was."""
    with azureml_fake() as fake:
        yield fake


@pytest.fixture
def workspace(shared: AzureMLFake) -> Workspace:
    """Give the shared workspace."""
    return Workspace(shared)


@pytest.fixture
def own() -> Iterator[Workspace]:
    """Give a workspace of the test's own."""
    with azureml_fake() as fake:
        yield Workspace(fake)


def search(
    script: str = "true",
    *,
    training: Mapping[str, Any] | None = None,
    space: Mapping[str, Any] | None = None,
    **fields: Any,
) -> TuningSpec:
    """Return a search of one parameter by a shell script."""
    command = ("sh", "-c", f"{script}\n{REPORT}", "job")
    trial = TrainingSpec(command, **{"image": "train:1", **(training or {})})
    return TuningSpec(trial, space or {"x": X}, "auc", **{"max_trials": 2, **fields})


# The space


@pytest.mark.parametrize(
    ("entry", "sampling", "wanted"),
    [
        ({"choices": ["rbf", 3, 0.5, True, None]}, RANDOM, ["choice", [["rbf", "3", "0.5", "true", "null"]]]),
        ({"choices": ["a b", "$(x)", "~", "'"]}, RANDOM, ["choice", [["a%20b", "%24%28x%29", "%7E", "%27"]]]),
        ({"low": 2, "high": 4, "type": "int"}, RANDOM, ["choice", [["2", "3", "4"]]]),
        ({"low": 2, "high": 4, "type": "int"}, BAYESIAN, ["quniform", [2, 4, 1]]),
        ({"low": 16, "high": 64, "step": 16, "type": "int"}, BAYESIAN, ["quniform", [16, 64, 16]]),
        ({"low": 1, "high": 5, "step": 2, "type": "int"}, BAYESIAN, ["choice", [["1", "3", "5"]]]),
        ({"low": 0, "high": 5000, "type": "int"}, RANDOM, ["quniform", [0, 5000, 1]]),
        ({"low": 0.1, "high": 0.3, "step": 0.1}, GRID, ["choice", [["0.1", "0.2", "0.3"]]]),
        ({"low": 0.5, "high": 0.5}, GRID, ["choice", [["0.5"]]]),
        ({"low": 0.1, "high": 0.3}, RANDOM, ["uniform", [0.1, 0.3]]),
        ({"low": 0.1, "high": 1.0, "log": True}, RANDOM, ["loguniform", [math.log(0.1), 0.0]]),
        ({"low": 1, "high": 64, "log": True, "type": "int"}, RANDOM, ["qloguniform", [0.0, math.log(64), 1]]),
    ],
)
def test_every_range_has_its_expression(entry: Mapping[str, Any], sampling: str, wanted: list[Any]) -> None:
    """Steps between whole multiples and choices are words, a logarithm's bounds are its exponents."""
    assert expressions(read_space({"p": entry}), sampling) == {"p": wanted}


@pytest.mark.parametrize(
    ("entry", "sampling", "why"),
    [
        ({"low": 0.0, "high": 1.0}, GRID, "Grid sampling has only choice"),
        ({"low": 0.1, "high": 1.0, "log": True}, BAYESIAN, "Bayesian sampling has only choice, uniform, quniform"),
        ({"low": 0.0, "high": 1.0, "step": 0.0001}, RANDOM, "10001 values"),
        ({"low": 0, "high": 5000, "type": "int"}, GRID, "Grid"),
        ({"choices": [1, "1"]}, RANDOM, "no two the same"),
        ({"choices": [""]}, RANDOM, "none can be empty"),
    ],
)
def test_what_azure_cannot_honour_is_refused_by_name(entry: Mapping[str, Any], sampling: str, why: str) -> None:
    """The message names the parameter and says why."""
    with pytest.raises(InvalidSpecError, match=r"'my\.rate'") as caught:
        expressions(read_space({"my.rate": entry}), sampling)
    assert why in str(caught.value)


def test_two_names_that_are_one_to_azure_are_refused() -> None:
    """Azure takes letters, digits and underscores in a name; two parameters may not become one."""
    with pytest.raises(InvalidSpecError, match=r"'a\.b'"):
        expressions(read_space({"a-b": X, "a.b": X}), RANDOM)


_ENTRIES = st.one_of(
    st.builds(lambda values: {"choices": values}, st.lists(st.text(min_size=1), min_size=1, unique=True)),
    st.builds(
        lambda low, size: {"low": low, "high": low + size, "type": "int"}, st.integers(-50, 50), st.integers(1, 50)
    ),
    st.builds(lambda low, size: {"low": low, "high": low + size}, st.floats(-1e6, 1e6), st.floats(0.1, 1e6)),
)


@given(entry=_ENTRIES, share=st.floats(0, 1))
def test_a_value_that_azure_sends_is_one_of_the_space(entry: dict[str, Any], share: float) -> None:
    """Whatever is sampled from an expression, the program gets a value of the space; a choice comes back as it was."""
    space = read_space({"p": entry})
    kind, sent = expressions(space, RANDOM)["p"]
    known = dimensions(space)[0]
    if kind == "choice":
        values = [value_of(known, word) for word in sent[0]]
        assert values == list(space["p"].values())
        assert [word_of(value) for value in values] == sent[0]
    else:
        assert fits(space, {"p": value_of(known, repr(sent[0] + share * (sent[1] - sent[0])))})


@given(words=st.lists(st.text(min_size=1), min_size=1, unique=True))
def test_no_shell_reads_a_choice_otherwise(words: list[str]) -> None:
    """A word of a choice is letters, digits and a few harmless signs."""
    assert all(
        set(word_of(word)) <= set("%-._" + "".join(map(chr, range(48, 123)))) - set("`^[]\\;<=>?@:") for word in words
    )


def test_a_value_of_no_choice_ends_the_trial() -> None:
    """A word that was never sent is an error that names the parameter."""
    with pytest.raises(SystemExit, match="'p'"):
        value_of({"name": "p", "choices": ["a"]}, "b")


def test_long_parameters_go_into_several_tags() -> None:
    """A tag has at most 1,000 characters; nothing is cut."""
    found = parts("x" * 2500)
    assert [len(text) for text in found.values()] == [1000, 1000, 500]


def test_values_reach_the_program_through_the_shell(workspace: Workspace) -> None:
    """Texts with quotes, spaces and dollars, and names with dots and dashes, arrive as they are."""
    texts = ["it's $HOME", '"a b"', "${{x}}", "*"]
    space = {"my.loss-fn": {"choices": texts}}
    script = "printf '%s\\n' \"$@\" > outputs/flags"
    spec = TuningSpec(
        TrainingSpec(
            ("sh", "-c", f'{script}; printf \'{{"metrics": {{"auc": 1}}}}\' > "$MLOPS_OUTPUT"', "job"), image="train:1"
        ),
        space,
        "auc",
        max_trials=4,
        options={"sampling": "grid"},
    )
    found = workspace.searched(spec)
    assert [trial.parameters["my.loss-fn"] for trial in found.trials] == texts
    assert {trial.state for trial in found.trials} == {"Completed"}


# The sweep


def test_a_grid_is_tried_as_a_whole(workspace: Workspace) -> None:
    """There are no more trials than the grid has sets, however many are allowed; results come in pages."""
    space = {"x": {"low": 1, "high": 6, "type": "int"}, "kind": {"choices": ["a", "b"]}}
    found = workspace.searched(search(space=space, max_trials=50, parallel_trials=6, options={"sampling": "grid"}))
    assert len(found.trials) == 12
    assert [trial.trial_id.rpartition("_")[2] for trial in found.trials] == [str(number) for number in range(12)]
    assert found.parameters["x"] == 6


def test_the_best_trial_is_a_result_of_its_own(workspace: Workspace) -> None:
    """Its program saw its own name; data and seconds are told; the training backend does not take trials for jobs."""
    found = workspace.searched(
        search(training={"inputs": {"train": VERSION}, "parameters": {"seed": 1}}, space={"x": X})
    )
    assert found.best.model_uri == found.best.job.job_id.rpartition("/")[2]
    assert found.best.job.job_id in {f"{workspace.backend._client.scope}/{trial.trial_id}" for trial in found.trials}
    assert found.best.data == {"train": VERSION}
    assert found.parameters["seed"] == 1
    assert found.billed_seconds is not None
    assert found.billed_seconds >= (found.best.billed_seconds or 0) > 0
    training = AzureMLBackend(workspace.backend._client)
    assert found.job not in dict(training.managed())
    assert not {handle.job_id for handle, _ in training.managed()} & {found.best.job.job_id}


def test_azure_s_own_choice_is_checked(workspace: Workspace, caplog: pytest.LogCaptureFixture) -> None:
    """The trial with the best reported value is the result, also when Azure names another one; that is said."""
    job, _ = workspace.ended(search(max_trials=3, options={"seed": 3}))
    right = workspace.backend.collect(job)
    wrong = min(right.trials, key=lambda trial: trial.value or 0)
    name = job.job_id.rpartition("/")[2]
    kept = next(one for one in workspace.fake.jobs() if one["name"] == name)["properties"]["properties"]
    assert kept["best_child_run_id"] == right.best.job.job_id.rpartition("/")[2]
    workspace.fake.set_job(name, properties={**kept, "best_child_run_id": wrong.trial_id})
    with caplog.at_level(logging.WARNING):
        assert workspace.backend.collect(job).best == right.best
    assert wrong.trial_id in caplog.text


def test_a_sweep_that_completes_without_a_value_is_no_result(workspace: Workspace) -> None:
    """The platform's word alone is not enough."""
    job, status = workspace.ended(search("exit 3"))
    assert status.state is JobState.FAILED
    workspace.fake.set_job(job.job_id.rpartition("/")[2], status="Completed")
    with pytest.raises(JobFailedError, match="'auc'"):
        workspace.backend.collect(job)


def test_a_lost_answer_makes_no_second_sweep(own: Workspace) -> None:
    """The order to start is sent again under the same name."""
    own.fake.faults.lose_answers(2)
    job, status = own.ended(search(), "aml-lost")
    assert (status.state, own.fake.calls.count("PutJob"), own.fake.started()) == (JobState.SUCCEEDED, 3, 1)
    assert len(own.fake.runs("aml-lost")) == 2
    assert own.backend.submit(search(), name="aml-lost", owner=OWNER) == job


def test_a_search_out_of_time_says_so(workspace: Workspace) -> None:
    """The service cancels the sweep with all its trials."""
    job, status = workspace.ended(search("sleep 60", max_runtime=1))
    assert (status.state, status.reason) == (JobState.FAILED, FailureReason.TIMEOUT)
    assert {run["status"] for run in workspace.fake.runs(job.job_id.rpartition("/")[2])} == {"Canceled"}


def test_a_trial_out_of_time_has_no_value(workspace: Workspace) -> None:
    """``max_runtime`` of the training is that of a trial; the others go on."""
    space = {"x": {"choices": [1, 2]}}
    script = 'test "$2" = 1 || exec sleep 60'
    found = workspace.searched(search(script, training={"max_runtime": 1}, space=space, options={"sampling": "grid"}))
    assert [(trial.state, trial.value) for trial in found.trials] == [("Completed", 1.0), ("Canceled", None)]


def test_trials_that_all_lost_their_nodes_are_preempted(own: Workspace) -> None:
    """The next attempt of the search begins anew; the program is not to blame."""
    job = own.submit(search("sleep 60", training={"spot": True}), "aml-spot")
    names = ["aml-spot_0", "aml-spot_1"]
    while [run["status"] for run in own.fake.runs("aml-spot")] != ["Running", "Running"]:
        time.sleep(0.05)
    time.sleep(0.3)
    for name in names:
        own.fake.preempt(name)
    while not own.look(job).state.terminal:
        time.sleep(0.05)
    assert own.look(job).state is JobState.PREEMPTED


@pytest.mark.parametrize("distribution", ["pytorch", "mpi", "tensorflow"])
def test_node_0_reports_for_a_trial_of_two(workspace: Workspace, distribution: str) -> None:
    """Both nodes run with the same values; one metric is logged."""
    training = {"nodes": 2, "options": {"distribution": distribution}}
    job, status = workspace.ended(search("true", training=training))
    assert status.state is JobState.SUCCEEDED, status
    assert all(trial.value == trial.parameters["x"] for trial in workspace.backend.collect(job).trials)


def test_many_sweeps_are_read_from_the_list(own: Workspace) -> None:
    """More than three are looked at with pages of sweeps alone, without their trials."""
    jobs = [own.submit(search("sleep 60", max_trials=1)) for _ in range(5)]
    own.fake.calls.reset()
    assert set(own.backend.observe(jobs)) == set(jobs)
    assert [call.verb for call in own.fake.calls.seen()] == ["ListJobs"]
    for job in jobs:
        own.backend.cancel(job)


# How a metric reaches Azure


def test_the_metric_is_in_the_run_of_the_trial(workspace: Workspace) -> None:
    """Azure's own objective is what the program reported, so its studio and its sampling see it."""
    job, _ = workspace.ended(search())
    runs = workspace.fake.runs(job.job_id.rpartition("/")[2])
    values = {trial.trial_id: trial.value for trial in workspace.backend.collect(job).trials}
    assert {run["runId"]: run["metrics"]["auc"] for run in runs} == values


def test_a_tracking_server_of_one_s_own_changes_nothing(workspace: Workspace) -> None:
    """The program logs to the team's server; Azure is told with Azure's own token, which the program does not see."""
    script = 'test "$MLFLOW_TRACKING_URI" = https://mlflow.example && test -z "$MLFLOW_TRACKING_TOKEN" || exit 4'
    found = workspace.searched(search(script, training={"env": {"MLFLOW_TRACKING_URI": "https://mlflow.example"}}))
    assert all(trial.value is not None for trial in found.trials)


def test_faults_of_the_tracking_run_are_borne(own: Workspace) -> None:
    """Lost answers, throttling and errors of the service cost no trial."""
    own.fake.faults.fail(1, code=503, verb="LogBatch")
    own.fake.faults.throttle(1, verb="LogBatch")
    own.fake.faults.lose_answers(1, verb="LogBatch")
    found = own.searched(search())
    assert all(trial.value is not None for trial in found.trials)
    assert own.fake.calls.count("LogBatch") == 2 * 2 + 3


def test_a_metric_that_cannot_be_logged_fails_the_trial(own: Workspace) -> None:
    """A value that Azure never got is no value: the trial fails and says which answer it got."""
    own.fake.faults.fail(20, code=403, verb="LogBatch")
    _, status = own.ended(search())
    assert status.state is JobState.FAILED
    assert "HTTP 403" in status.detail


def test_a_short_lived_token_is_exchanged_in_time(own: Workspace) -> None:
    """A trial that runs longer than its token lives logs with a later one."""
    own.fake.shorten_run_tokens(2)
    fast = {"env": {"MLFLOW_TOKEN_REFRESH_INTERVAL_SECONDS": "0.5"}}
    found = own.searched(search("sleep 3", training=fast, max_trials=1))
    assert found.trials[0].value is not None
    assert own.fake.calls.count("GetRunToken") >= 4


def test_a_token_that_was_never_exchanged_is_refused(own: Workspace) -> None:
    """The fake really lets tokens end: without exchange the trial fails."""
    own.fake.shorten_run_tokens(2)
    slow = {"env": {"MLFLOW_TOKEN_REFRESH_INTERVAL_SECONDS": "60"}}
    _, status = own.ended(search("sleep 3", training=slow, max_trials=1))
    assert "HTTP 401" in status.detail


def test_no_secret_is_in_what_the_platform_keeps(own: Workspace) -> None:
    """The value that a trial read is in its own process alone."""
    own.fake.vault["api-key"] = "planted-secret"
    secret = {"TOKEN": f"{own.fake.address}/secrets/api-key"}
    script = 'test "$(printf %s "$TOKEN" | wc -c)" = 14 || exit 4'
    job, status = own.ended(search(script, training={"secret_env": secret}))
    assert status.state is JobState.SUCCEEDED, status
    kept = json.dumps([own.fake.jobs(), own.fake.runs(job.job_id.rpartition("/")[2])])
    assert "planted-secret" not in kept


def test_the_order_to_end_reaches_the_program() -> None:
    """Our program passes SIGTERM on, and tells the code of a program that a signal ended."""
    call = f"sys.exit(ran(['sh', '-c', {_SLEEP!r}], None))"
    program = TRIAL.rpartition("if __name__")[0] + call
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    assert process.stdout.readline() == "told\n"
    assert process.wait(10) == 7


_SLEEP = "trap 'echo told; exit 7' TERM; echo ready; while true; do sleep 0.1; done"


def test_it_is_understood_by_mlflow_itself(mlflow_server: str, tmp_path: Path) -> None:
    """What a trial sends is a batch of MLflow's own REST API: a real server keeps the metric and the tags."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(mlflow_server)
    run = client.create_run(client.create_experiment(f"sweep-{uuid.uuid4().hex}")).info.run_id
    where = {"MLFLOW_TRACKING_URI": mlflow_server, "MLFLOW_TRACKING_TOKEN": "t", "MLFLOW_RUN_ID": run}
    report = (
        """mkdir outputs && printf '{"metrics": {"auc": 0.5}}' > outputs/mlops_output.json && test "$*" = "--p a b" """
    )
    arguments = ["auc", report, json.dumps([{"name": "p", "choices": ["a b"]}]), word_of("a b")]
    subprocess.run([sys.executable, "-c", TRIAL, *arguments], cwd=tmp_path, env={**os.environ, **where}, check=True)
    data = client.get_run(run).data
    assert data.metrics == {"auc": 0.5}
    assert json.loads(data.tags["mlops.parameters"]) == {"p": "a b"}
    assert data.tags["mlops.value"] == "0.5"


def test_the_program_of_a_trial_is_one_for_python_3_9() -> None:
    """The image's Python may be older than ours."""
    assert ast.parse(TRIAL, feature_version=(3, 9))


# What is refused


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"options": {"sampling": "bayes"}}, "bayesian"),
        ({"options": {"sampling": "grid", "seed": 1}}, "'seed'"),
        ({"options": {"smapling": "grid"}}, "smapling"),
        ({"options": {"rule": "Sobl"}}, "rule"),
        ({"options": {"early_termination": {"policyType": "Bandid"}}}, "policyType"),
        ({"max_trials": 1001}, "max_trials"),
        ({"parallel_trials": 0}, "parallel_trials"),
        ({"training": {"args": ("x" * 140_000,)}}, "131071"),
        ({"training": {"options": {"no_such": "a"}}}, "no_such"),
    ],
)
def test_what_azure_does_not_have_is_refused(workspace: Workspace, fields: dict[str, Any], says: str) -> None:
    """The message names it, and nothing is left behind."""
    with pytest.raises(InvalidSpecError, match=says):
        workspace.submit(search(**fields), "aml-refused")
    assert workspace.backend.locate("aml-refused") is None


@pytest.mark.parametrize(
    ("fields", "feature"),
    [({"checkpoint": "azureml://datastores/d/paths/p"}, "checkpoint")],
)
def test_a_common_checkpoint_is_refused(workspace: Workspace, fields: dict[str, Any], feature: str) -> None:
    """Trials that go on from each other's checkpoints would be no search."""
    with pytest.raises(UnsupportedFeatureError, match=feature):
        workspace.submit(search(training=fields))


def test_a_metric_that_mlflow_has_no_name_for_is_refused(workspace: Workspace) -> None:
    """Azure takes the names that MLflow takes."""
    with pytest.raises(InvalidSpecError, match="a=b"):
        workspace.submit(TuningSpec(TrainingSpec(("true",), image="train:1"), {"x": X}, "a=b"))


def test_policies_and_seeds_are_passed_on(workspace: Workspace) -> None:
    """What the API calls them, it gets; the same seed samples the same values."""
    options = {"seed": 7, "rule": "Sobol", "early_termination": {"policyType": "MedianStopping", "delayEvaluation": 5}}
    both = [workspace.searched(search(max_trials=3, options=options)) for _ in range(2)]
    sampled = [[trial.parameters for trial in found.trials] for found in both]
    assert sampled[0] == sampled[1]


# The strict fake


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"objective": {"primaryMetric": "auc"}}, "goal"),
        ({"objective": {"primaryMetric": "auc", "goal": "maximize"}}, "goal"),
        ({"limits": {"jobLimitsType": "Command"}}, "jobLimitsType"),
        ({"limits": {"jobLimitsType": "Sweep", "maxTotalTrials": 0}}, "maxTotalTrials"),
        ({"samplingAlgorithm": {"samplingAlgorithmType": "Tpe"}}, "samplingAlgorithmType"),
        ({"searchSpace": {"a-b": ["uniform", [0, 1]]}}, "a-b"),
        ({"searchSpace": {"a": ["uniform", [1, 0]]}}, "'a'"),
        ({"searchSpace": {"a": ["quniform", [0, 1, 0.5]]}}, "smoothing"),
        ({"searchSpace": {"a": ["choice", [1, 2]]}}, "'a'"),
        ({"searchSpace": {"b": ["uniform", [0, 1]]}}, "search_space.a"),
        ({"command": "true"}, "command"),
    ],
)
def test_the_fake_refuses_what_the_schema_does_not_have(change: dict[str, Any], says: str) -> None:
    """Unknown fields, words and expressions of a sweep are refused with their path."""
    good = {
        "jobType": "Sweep",
        "trial": {"command": "true ${{search_space.a}}", "environmentId": "azureml://registries/r/environments/x"},
        "searchSpace": {"a": ["uniform", [0, 1]]},
        "samplingAlgorithm": {"samplingAlgorithmType": "Random"},
        "objective": {"primaryMetric": "auc", "goal": "Maximize"},
    }
    check(good)
    with pytest.raises(Problem, match=says):
        check({**good, **change})
