"""Searches on SageMaker: what they promise beyond the contract of all tuning services, with the official client."""

from __future__ import annotations

import json
import shlex
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from airflow_mlops.core.errors import InvalidSpecError, JobFailedError, PlatformUnavailableError
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.core.refs import DataVersion
from airflow_mlops.testing.sagemaker import SageMakerFake, sagemaker_fake
from airflow_mlops.testing.sagemaker.schema import service_model
from airflow_mlops.training.backends.sagemaker import SageMakerBackend
from airflow_mlops.training.contract import FailureReason, JobHandle, JobState, JobStatus, TrainingSpec
from airflow_mlops.training.search_space import Choices, read_space
from airflow_mlops.training.tuning.contract import TunedTrial, TuningSpec
from airflow_mlops.training.tuning.sagemaker import SageMakerTuning
from airflow_mlops.training.tuning.sagemaker_options import read_search_options
from airflow_mlops.training.tuning.sagemaker_space import ranges_of, values_of
from airflow_mlops.training.tuning.sagemaker_start import MOST_VARIABLES, REGEX, VARIABLES, trial_lines
from airflow_mlops.training.tuning.sagemaker_status import STATES, search_status
from airflow_mlops.training.tuning.sagemaker_trials import best_of

OWNER = TaskIdentity("dag", "run", "tune")
TRAIN = '#!/bin/sh\neval "$MLOPS_START"\n'
SPACE = {"x": {"low": 1, "high": 90, "type": "int"}}
REPORT = 'echo "{\\"metrics\\": {\\"auc\\": 0.$2}}" > "$MLOPS_OUTPUT"'
VERSION = DataVersion("data/train", "v1", "c" * 40, "md5:0123", 3, repo="https://example.com/data.git")


class Account:
    """A fake with a backend, and what every test does with them."""

    def __init__(self, fake: SageMakerFake) -> None:
        self.fake = fake
        self.backend = SageMakerTuning.from_connection(fake.connection())

    def submit(self, script: str, name: str = "", **fields: Any) -> JobHandle:
        """Submit a search."""
        name = name or f"aml-{uuid.uuid4().hex[:12]}"
        return self.backend.submit(spec(script, **fields), name=name, owner=OWNER)

    def ended(self, script: str, **fields: Any) -> tuple[JobHandle, JobStatus]:
        """Run a search to its end."""
        job = self.submit(script, **fields)
        return job, until(lambda: (found := self.backend.observe([job])[job]).state.terminal and found)

    def logs(self) -> str:
        """Return what all trials printed."""
        return "\n".join(self.fake.world.log_of("eu-test-1").lines("/aws/sagemaker/TrainingJobs", ""))


def spec(script: str, **fields: Any) -> TuningSpec:
    """Return a spec of one trial; fields that a search does not have are those of its trials."""
    own = {key: fields.pop(key) for key in list(fields) if key in TuningSpec.__dataclass_fields__}
    training = fields.pop("trial_options", {})
    job = TrainingSpec(("sh", "-c", script, "job"), **{"image": "train:1", "options": training, **fields})
    return TuningSpec(job, **{"space": SPACE, "metric": "auc", "max_trials": 1, "parallel_trials": 1, **own})


def until(look: Callable[[], Any], limit: float = 30.0) -> Any:
    """Look until there is something, and return it."""
    end = time.monotonic() + limit
    while not (found := look()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


@pytest.fixture
def account() -> Iterator[Account]:
    """Run an account for one test, whose images have the program ``train``."""
    with sagemaker_fake() as fake:
        fake.add_program("train", TRAIN)
        yield Account(fake)


# Exactly one


def test_a_lost_answer_leaves_one_search(account: Account) -> None:
    """The client asks again, meets its own search and takes it."""
    account.fake.faults.lose_answers(1, operation="CreateHyperParameterTuningJob")
    job, status = account.ended(REPORT, name="aml-lost")
    assert (status.state, job) == (JobState.SUCCEEDED, account.backend.locate("aml-lost"))
    assert account.fake.calls.count("CreateHyperParameterTuningJob") == 2
    assert (len(account.fake.searches()), len(account.fake.jobs())) == (1, 1)


def test_when_every_answer_is_lost_the_next_try_finds_the_search(account: Account) -> None:
    """The error says that the platform is away, which is tried again; then the search is found by its name."""
    account.fake.faults.lose_answers(4, operation="CreateHyperParameterTuningJob")
    with pytest.raises(PlatformUnavailableError):
        account.submit("sleep 1", "aml-lost")
    assert account.submit("sleep 1", "aml-lost") == account.backend.locate("aml-lost")
    assert list(account.fake.searches()) == ["aml-lost"]


def test_a_name_that_is_too_long_is_refused_and_never_asked_for(account: Account) -> None:
    """A tuning job's name has 32 characters; a longer one is located nowhere, without a request."""
    name = "a" * 33
    with pytest.raises(InvalidSpecError, match="32 characters"):
        account.submit("true", name)
    assert account.backend.locate(name) is None
    assert account.fake.calls.seen() == []


# What a trial is


def test_a_trial_is_what_a_training_job_would_be(account: Account) -> None:
    """Report, data versions, own name and bill come back as of a training job; two nodes report once."""
    script = f'sleep 1.1; echo "$MLOPS_JOB_NAME is $MLOPS_NODE_RANK"; [ "$MLOPS_NODE_RANK" = 1 ] || {REPORT}'
    job, status = account.ended(script, nodes=2, inputs={"train": VERSION}, max_trials=2)
    assert status.state is JobState.SUCCEEDED, status
    found = account.backend.collect(job)
    assert found.best == SageMakerBackend.from_connection(account.fake.connection()).collect(found.best.job)
    assert found.best.data == {"train": VERSION}
    assert {f"{trial.trial_id} is 0" for trial in found.trials} <= set(account.logs().split("\n"))
    trials = account.fake.jobs()
    assert found.billed_seconds == sum(2 * trial["BillableTimeInSeconds"] for trial in trials.values()) >= 8
    assert account.logs().count("mlops objective") == 2


def test_a_long_command_and_many_variables_reach_a_trial(account: Account) -> None:
    """What a tuning job has no fields for is packed: a script of many lines, and more variables than it takes."""
    many = {f"WORD_{number}": f"it's\n{number}" for number in range(60)}
    script = f'echo "$WORD_0 $WORD_59"\n# {"x" * 5000}\n{REPORT}'
    _, status = account.ended(script, env=many)
    assert status.state is JobState.SUCCEEDED, status
    assert "it's\n0 it's\n59" in account.logs()
    (search,) = account.fake.searches().values()
    assert set(VARIABLES) <= set(search["TrainingJobDefinition"]["Environment"])
    assert len(search["TrainingJobDefinition"]["Environment"]) <= MOST_VARIABLES


def test_secrets_reach_the_program_and_nothing_else(account: Account) -> None:
    """A trial reads the value at its start; no description of the search or of a trial, and no log, has it."""
    account.fake.world.vault["token"] = "hunter2-value"
    script = f'[ "$TOKEN" = "$(printf "hunter2-%s" value)" ] || exit 9; {REPORT}'
    _, status = account.ended(script, secret_env={"TOKEN": "secretsmanager:token"})
    assert status.state is JobState.SUCCEEDED, status
    told = f"{account.fake.searches()} {account.fake.jobs()} {account.logs()}"
    assert "secretsmanager" not in account.logs()
    assert "hunter2-value" not in told


def test_an_image_without_train_fails_and_says_what_is_missing(account: Account) -> None:
    """SageMaker starts the image as ``train``: without such a program all trials fail."""
    (account.fake.world.folder / "image" / "train").unlink()
    _, status = account.ended(REPORT)
    assert (status.state, status.reason) == (JobState.FAILED, FailureReason.USER_CODE)
    assert "'train'" in status.detail


def test_an_image_with_another_train_is_told_about_the_metric(account: Account) -> None:
    """A program that ends well and does not know of ``MLOPS_START`` reports nothing: the status says what is needed."""
    account.fake.add_program("train", "#!/bin/sh\ntrue\n")
    _, status = account.ended(REPORT)
    assert status.state is JobState.FAILED
    assert "MLOPS_START" in status.detail


def test_trials_are_no_training_jobs_of_ours(account: Account) -> None:
    """The search is found with its owner; its trials carry its tags for the bill, and are not taken for jobs."""
    job = account.submit("sleep 60")
    until(account.fake.jobs)
    assert dict(account.backend.managed()) == {job: OWNER}
    assert list(SageMakerBackend.from_connection(account.fake.connection()).managed()) == []
    (trial,) = account.fake.jobs().values()
    assert {"Key": "airflow-mlops:dag_id", "Value": "dag"} in trial["Tags"]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"checkpoint": "s3://b/c"}, "checkpoint"),
        ({"trial_options": {"keep_alive": 60}}, "keep_alive"),
        ({"trial_options": {"no_such": 60}}, "no_such"),
        ({"max_trials": 0}, "max_trials"),
        ({"parallel_trials": 0}, "parallel_trials"),
        ({"max_runtime": 60.0}, "max_runtime"),
        ({"metric": 'a"b'}, "metric"),
        ({"metric": "größe"}, "metric"),
        ({"space": {f"x{number}": SPACE["x"] for number in range(31)}}, "30 parameters"),
        ({"options": {"strategy": "bayesian"}}, "'Bayesian'"),
        ({"options": {"strategy": "Hyperband"}}, "min_resource"),
        ({"options": {"min_resource": 1, "max_resource": 2}}, "Hyperband"),
        (
            {"options": {"strategy": "Hyperband", "min_resource": 1, "max_resource": 2, "early_stopping": True}},
            "early_stopping",
        ),
        ({"options": {"seed": "1"}}, "seed"),
        ({"options": {"strategy": "Grid"}}, "'x'"),
        ({"options": {"strategy": "Grid"}, "space": {"loss": {"choices": ["a", "b"]}}}, "2 combinations"),
        ({"trial_options": {"metric_definitions": {f"m{n}": "m" for n in range(40)}}}, "metric definitions"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(
    account: Account, fields: dict[str, Any], named: str
) -> None:
    """The message names what is wrong, and nothing was sent."""
    with pytest.raises(InvalidSpecError, match=named):
        account.submit(REPORT, **fields)
    assert account.fake.calls.seen() == []


# What is asked for


def test_a_grid_tries_every_combination_once(account: Account) -> None:
    """The strategy Grid takes choices alone, numbers among them, which come back as numbers."""
    space = {"depth": {"choices": [1, 2.5]}, "loss": {"choices": ["a", "b"]}}
    script = 'echo "{\\"metrics\\": {\\"auc\\": $2}}" > "$MLOPS_OUTPUT"'
    job, status = account.ended(script, space=space, options={"strategy": "Grid"}, max_trials=9, parallel_trials=9)
    assert status.state is JobState.SUCCEEDED, status
    found = account.backend.collect(job)
    tried = [(trial.parameters["depth"], trial.parameters["loss"]) for trial in found.trials]
    assert sorted(tried) == [(1, "a"), (1, "b"), (2.5, "a"), (2.5, "b")]
    assert found.parameters["depth"] == 2.5


@pytest.mark.parametrize(
    "options",
    [
        {"strategy": "Random", "seed": 7, "early_stopping": True, "retries": 2},
        {"strategy": "Hyperband", "min_resource": 1, "max_resource": 9},
    ],
)
def test_every_option_reaches_the_service(account: Account, options: dict[str, Any]) -> None:
    """The service takes what the options say, and tells it in the description."""
    account.ended(REPORT, options=options, max_runtime=120.5)
    (search,) = account.fake.searches().values()
    config, retries = search["HyperParameterTuningJobConfig"], search["TrainingJobDefinition"].get("RetryStrategy")
    bounds = config.get("StrategyConfig", {}).get("HyperbandStrategyConfig", {})
    told = {
        "strategy": config["Strategy"],
        "seed": config.get("RandomSeed", -1),
        "early_stopping": config["TrainingJobEarlyStoppingType"] == "Auto",
        "min_resource": bounds.get("MinResource", 0),
        "max_resource": bounds.get("MaxResource", 0),
        "retries": (retries or {}).get("MaximumRetryAttempts", 0),
    }
    assert told == read_search_options(options).to_dict()
    assert config["ResourceLimits"]["MaxRuntimeInSeconds"] == 121


def test_ranges_are_written_as_plain_numbers() -> None:
    """No exponent, and the scaling that the space asks for."""
    found = ranges_of(read_space({"lr": {"low": 0.00001, "high": 1, "log": True}, "n": {**SPACE["x"], "log": True}}))
    assert found["ContinuousParameterRanges"] == [
        {"Name": "lr", "MinValue": "0.00001", "MaxValue": "1.0", "ScalingType": "Logarithmic"}
    ]
    assert found["IntegerParameterRanges"][0]["ScalingType"] == "Logarithmic"


# What is told


def test_every_status_of_the_service_has_a_state() -> None:
    """The table covers the vendor's enumeration exactly; what is in no table is UNKNOWN."""
    assert set(STATES) == set(service_model("sagemaker").shape_for("HyperParameterTuningJobStatus").enum)
    assert search_status({"HyperParameterTuningJobStatus": "Resting"}).state is JobState.UNKNOWN


@pytest.mark.parametrize(
    ("fields", "state", "reason"),
    [
        ({"HyperParameterTuningJobStatus": "Completed"}, JobState.SUCCEEDED, FailureReason.NONE),
        (
            {"HyperParameterTuningJobStatus": "Completed", "ObjectiveStatusCounters": {"Succeeded": 0}},
            JobState.FAILED,
            FailureReason.NONE,
        ),
        ({"HyperParameterTuningJobStatus": "Stopped"}, JobState.CANCELLED, FailureReason.NONE),
        ({"HyperParameterTuningJobStatus": "Stopping"}, JobState.RUNNING, FailureReason.NONE),
        ({"HyperParameterTuningJobStatus": "DeleteFailed"}, JobState.UNKNOWN, FailureReason.NONE),
        (
            {"HyperParameterTuningJobStatus": "Failed", "FailureReason": "InternalServerError: sorry"},
            JobState.FAILED,
            FailureReason.PLATFORM,
        ),
    ],
)
def test_a_status_is_told_alike_by_a_look_and_by_a_list(
    account: Account, fields: dict[str, Any], state: JobState, reason: FailureReason
) -> None:
    """Also when nobody but the list was asked, which tells no reasons."""
    jobs = [account.ended(REPORT)[0] for _ in range(2)]
    for job in jobs:
        account.fake.set_search(job.job_id.partition("/")[2], **fields)
    fresh = SageMakerTuning.from_connection(account.fake.connection())
    assert {status.state for status in fresh.observe(jobs).values()} == {state}
    assert account.fake.calls.count("ListHyperParameterTuningJobs") == 1
    alone = fresh.observe(jobs[:1])[jobs[0]]
    assert (alone.state, alone.reason) == (state, reason)


def test_a_search_that_ran_out_of_time_failed_by_it(account: Account) -> None:
    """SageMaker says of it that it was stopped; the time tells it from one that somebody stopped."""
    job, _ = account.ended(REPORT, max_runtime=120)
    began = account.fake.searches()[job.job_id.partition("/")[2]]["CreationTime"]
    late = {"HyperParameterTuningJobStatus": "Stopped", "HyperParameterTuningEndTime": began + timedelta(seconds=121)}
    account.fake.set_search(job.job_id.partition("/")[2], **late)
    status = account.backend.observe([job])[job]
    assert (status.state, status.reason) == (JobState.FAILED, FailureReason.TIMEOUT)
    assert "120 s" in status.detail


def test_a_look_tells_how_many_trials_are_over(account: Account, tmp_path: Path) -> None:
    """Progress is the share of the trials that have ended."""
    script = f'mkdir "{tmp_path}/first" 2>/dev/null || sleep 60; {REPORT}'
    job = account.submit(script, max_trials=4)
    until(lambda: account.backend.observe([job])[job].progress == 0.25)
    assert account.backend.observe([job])[job].state is JobState.RUNNING


def test_when_trials_disagree_on_why_they_failed_no_kind_is_told(account: Account) -> None:
    """A search is worth another try only if every trial failed by the platform's fault."""
    job = account.submit("sleep 60", max_trials=2, parallel_trials=2)
    until(lambda: len(account.fake.jobs()) == 2)
    for name, why in zip(account.fake.jobs(), ("InternalServerError: sorry", "AlgorithmError: bug"), strict=True):
        account.fake.fail(name, why)
    status = until(lambda: (found := account.backend.observe([job])[job]).state.terminal and found)
    assert (status.state, status.reason) == (JobState.FAILED, FailureReason.NONE)
    assert "InternalServerError: sorry" in status.detail


def test_a_failed_trial_is_quoted_with_its_last_lines(account: Account) -> None:
    """The detail has the exit code and what the program printed last."""
    _, status = account.ended("echo ValueError: no rows; exit 41", max_trials=2)
    assert (status.state, status.reason) == (JobState.FAILED, FailureReason.USER_CODE)
    assert "exit code: 41" in status.detail
    assert "ValueError: no rows" in status.detail


# The best trial


def trial(name: str, value: float | None) -> TunedTrial:
    """Return a trial."""
    return TunedTrial(name, "Completed", {}, value)


def told(chosen: str, kind: str = "Maximize") -> dict[str, Any]:
    """Return the description of a search whose best trial is *chosen*."""
    config = {"HyperParameterTuningJobObjective": {"Type": kind, "MetricName": "auc"}}
    return {
        "HyperParameterTuningJobName": "aml-1",
        "HyperParameterTuningJobConfig": config,
        "BestTrainingJob": {"TrainingJobName": chosen},
    }


def test_of_equal_trials_the_service_s_choice_is_taken() -> None:
    """Also in a search for the least; trials without a value do not count."""
    trials = [trial("a", 1.0), trial("b", 1.0), trial("c", None), trial("d", 2.0)]
    assert [best_of(told(name, "Minimize"), trials).trial_id for name in ("a", "b")] == ["a", "b"]


def test_a_choice_that_is_not_the_best_is_an_error() -> None:
    """The service and its own values disagree: both trials are named, and nothing is returned."""
    with pytest.raises(JobFailedError, match=r"'a'.*'d' has 2\.0"):
        best_of(told("a"), [trial("a", 1.0), trial("d", 2.0)])


def test_a_stopped_choice_gives_way_to_the_best_that_ended() -> None:
    """A trial that was stopped has no report: the best of the others is taken."""
    assert best_of(told("c"), [trial("a", 1.0), trial("c", None)]).trial_id == "a"
    with pytest.raises(JobFailedError, match="none of its 1 trials"):
        best_of(told("c"), [trial("c", None)])


# The shell of a trial


def shell(lines: list[str], root: Path, report: str = "") -> str:
    """Run lines as the start of a trial does, then print the words; the program ended well."""
    output = root / "report.json"
    output.write_text(report)
    script = "\n".join(["set -e", "set -- packed -- train", *lines, 'printf "%s\\n" "$@"', "c=0"])
    done = subprocess.run(
        ["sh", "-c", script], capture_output=True, check=True, text=True,
        env={"MLOPS_ROOT": str(root), "MLOPS_OUTPUT": str(output), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    return done.stdout


WORDS = some.text("abzAZ09 _.,:;+-/=@%()", min_size=1, max_size=30)
QUICK = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@QUICK
@given(words=some.lists(WORDS, min_size=1, max_size=4, unique=True), escaped=some.booleans(), spaced=some.booleans())
def test_every_choice_that_is_taken_reaches_the_program(words: list[str], escaped: bool, spaced: bool) -> None:
    """Whatever a writer of JSON escapes, among other hyperparameters that hold the same name."""
    space = {"loss": Choices(tuple(words)), "lo.s": Choices(("x",))}
    values = ranges_of(space)["CategoricalParameterRanges"][0]["Values"]
    for value in values:
        known = {"mlops_search_00": json.dumps({"loss": "wrong", "lo.s": 1}), "loss": value, "lo.s": "y", "loxs": "z"}
        text = json.dumps(known, indent=2 if spaced else None)
        text = text.replace("/", "\\/").replace("=", "\\u003d").replace("+", "\\u002B") if escaped else text
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "input" / "config" / "hyperparameters.json"
            file.parent.mkdir(parents=True)
            file.write_text(text)
            flags = shell(trial_lines("auc", space), Path(folder)).split("\n")[3:]
        assert flags[:4] == ["--loss", value, "--lo.s", "y"]
        assert values_of(space, {"loss": value}) == {"loss": value}


@QUICK
@given(
    value=some.floats(allow_nan=False, allow_infinity=False) | some.integers(-(10**9), 10**9),
    metric=some.text("ab_./*[]^$:- @", min_size=1, max_size=12),
    indent=some.sampled_from([None, 2]),
)
def test_the_metric_of_any_report_is_printed(value: float, metric: str, indent: int | None) -> None:
    """However the report is written, and with metrics of similar names around; SageMaker's expression finds it."""
    import re

    others = {f"{metric}x": 7.0, f"x{metric}": 8.0}
    report = {"model_uri": f'a "{metric}": 5', "metrics": {**others, metric: value, f"{metric}2": 9}, "run_id": "r"}
    with tempfile.TemporaryDirectory() as folder:
        lines = shell(trial_lines(metric, []), Path(folder), json.dumps(report, indent=indent)).split("\n")
    (found,) = [match for line in lines if (match := re.search(REGEX, line))]
    assert float(found[1]) == value


@pytest.mark.parametrize("report", ["", "{}", '{"metrics": {"auc": NaN}}', '{"metrics": {"auc": "0.5"}}', "no json"])
def test_without_a_metric_nothing_is_printed(report: str, tmp_path: Path) -> None:
    """A report that says nothing, or no number, is no value."""
    assert "objective" not in shell(trial_lines("auc", []), tmp_path, report)


def test_a_program_that_failed_has_no_value(account: Account) -> None:
    """What it reported before does not count."""
    _, status = account.ended(f"{REPORT}; exit 3")
    assert status.state is JobState.FAILED
    assert "mlops objective" not in account.logs()


def test_the_how_to_shows_the_program_that_an_image_needs(tmp_path: Path) -> None:
    """The line of the Dockerfile writes exactly the program that these tests use."""
    text = (Path(__file__).parents[2] / "docs/howto/sagemaker.md").read_text()
    line = text.partition("```dockerfile\nRUN ")[2].partition("\n")[0]
    command = line.replace("/usr/local/bin", shlex.quote(str(tmp_path)))
    subprocess.run(["sh", "-c", command], check=True)
    assert (tmp_path / "train").read_text() == TRAIN
