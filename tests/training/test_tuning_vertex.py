"""Searches on Vertex AI: what is asked for, how trials run, one search for one name, and what is told of the end."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.core.errors import (
    InvalidSpecError,
    NotFoundError,
    PlatformUnavailableError,
    UnsupportedFeatureError,
)
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.core.refs import DataVersion
from airflow_mlops.testing.vertex import BUCKET, PROJECT, REGION, VertexFake, vertex_fake
from airflow_mlops.testing.vertex.schema import message_class
from airflow_mlops.training.backends.vertex import VertexBackend
from airflow_mlops.training.backends.vertex_job import Place
from airflow_mlops.training.contract import FailureReason, JobHandle, JobState, JobStatus, Resources, TrainingSpec
from airflow_mlops.training.launch import flag_value
from airflow_mlops.training.search_space import read_space
from airflow_mlops.training.tuning import vertex_trial
from airflow_mlops.training.tuning.contract import TuningResult, TuningSpec
from airflow_mlops.training.tuning.vertex import VertexTuning
from airflow_mlops.training.tuning.vertex_study import parameter, tuning_job, value_of
from airflow_mlops.training.tuning.vertex_trials import TRIAL_STATES, search_status

OWNER = TaskIdentity("dag", "manual__2026-01-01T00:00:00+00:00", "tune", 3, "prod")
PLACE = Place("acme-ml", "gs://acme-staging/jobs")
SEARCHES = "hyperparameterTuningJobs"
REPORT = 'echo "{\\"metrics\\": {\\"auc\\": ${2}}}" > "$MLOPS_OUTPUT"'
SPACE = {"x": {"low": 1, "high": 90, "type": "int"}}


@pytest.fixture
def fake() -> Iterator[VertexFake]:
    """Run Vertex AI for one test."""
    with vertex_fake() as found:
        yield found


@pytest.fixture
def backend(fake: VertexFake) -> VertexTuning:
    """Get in."""
    return VertexTuning.from_connection(fake.connection())


def spec(script: str = REPORT, *, training: dict[str, Any] | None = None, **fields: Any) -> TuningSpec:
    """Search with a script in an image."""
    trial = TrainingSpec(("sh", "-c", script, "job"), **{"image": "busybox:1", **(training or {})})
    return TuningSpec(trial, **{"space": SPACE, "metric": "auc", "max_trials": 2, **fields})


def until(backend: VertexTuning, handle: JobHandle, *states: JobState) -> JobStatus:
    """Look until the search is in one of *states*."""
    end = time.monotonic() + 30
    while (status := backend.observe([handle])[handle]).state not in states:
        assert time.monotonic() < end, status
        time.sleep(0.05)
    return status


def ended(backend: VertexTuning, wanted: TuningSpec, name: str = "aml-x") -> tuple[JobHandle, JobStatus]:
    """Run a search to its end."""
    handle = backend.submit(wanted, name=name, owner=OWNER)
    return handle, until(backend, handle, *(state for state in JobState if state.terminal))


def searched(backend: VertexTuning, wanted: TuningSpec) -> TuningResult:
    """Run a search to its good end."""
    handle, status = ended(backend, wanted)
    assert status.state is JobState.SUCCEEDED, status
    return backend.collect(handle)


def body(wanted: TuningSpec) -> dict[str, Any]:
    """Return the job that a spec becomes."""
    return tuning_job("vertex", wanted, "aml-x", OWNER, PLACE)


# What is asked for


@pytest.mark.parametrize(
    ("entry", "wanted"),
    [
        (
            {"low": 0.5, "high": 2},
            {"double_value_spec": {"min_value": 0.5, "max_value": 2.0}, "scale_type": "UNIT_LINEAR_SCALE"},
        ),
        (
            {"low": 0.01, "high": 1, "log": True},
            {"double_value_spec": {"min_value": 0.01, "max_value": 1.0}, "scale_type": "UNIT_LOG_SCALE"},
        ),
        (
            {"low": 1, "high": 9, "type": "int"},
            {"integer_value_spec": {"min_value": 1, "max_value": 9}, "scale_type": "UNIT_LINEAR_SCALE"},
        ),
        (
            {"low": 1, "high": 9, "type": "int", "log": True},
            {"integer_value_spec": {"min_value": 1, "max_value": 9}, "scale_type": "UNIT_LOG_SCALE"},
        ),
        (
            {"low": 8, "high": 24, "type": "int", "step": 8},
            {"discrete_value_spec": {"values": [8, 16, 24]}, "scale_type": "UNIT_LINEAR_SCALE"},
        ),
        (
            {"low": 0.1, "high": 0.3, "step": 0.1},
            {"discrete_value_spec": {"values": [0.1, 0.2, 0.3]}, "scale_type": "UNIT_LINEAR_SCALE"},
        ),
        (
            {"choices": ["a", 2, True, None]},
            {"categorical_value_spec": {"values": ["a", "2", "true", "null"]}},
        ),
    ],
)
def test_ranges_become_parameters(entry: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Each kind of range has its kind of parameter and its scale; choices have none."""
    assert parameter("x", read_space({"x": entry})["x"]) == wanted


ENTRIES = st.one_of(
    st.builds(
        lambda low, size: {"low": low, "high": low + size, "type": "int"}, st.integers(-99, 99), st.integers(0, 9)
    ),
    st.builds(
        lambda low, step, count: {"low": low, "high": low + step * count, "step": step, "type": "int"},
        *(st.integers(1, 99), st.integers(2, 9), st.integers(0, 99)),
    ),
    st.lists(st.text(min_size=1) | st.integers(), min_size=1, unique_by=flag_value).map(
        lambda found: {"choices": found}
    ),
)


@given(ENTRIES, st.data())
def test_values_come_back_as_the_space_has_them(entry: dict[str, Any], data: st.DataObject) -> None:
    """A value that Vertex AI tells, as a text or a number without a type, is again a value of the space."""
    dimension = read_space({"x": entry})["x"]
    chosen = data.draw(st.sampled_from(dimension.values()))
    told = flag_value(chosen) if "choices" in entry else float(chosen)  # type: ignore[arg-type]
    back = value_of(dimension, told)
    assert (back, type(back)) == (chosen, type(chosen))
    assert back in dimension


def test_the_whole_job() -> None:
    """Counts, goal, limit and trial are where Google's message has them; a trial is the CustomJob of training."""
    wanted = spec(
        direction="minimize",
        max_trials=3,
        parallel_trials=9,
        max_runtime=90.5,
        options={"algorithm": "RANDOM_SEARCH", "max_failed_trial_count": 2},
        training={"nodes": 2, "spot": True, "max_runtime": 60.0, "resources": Resources(instance_type="n1-highmem-2")},
    )
    job = body(wanted)
    message = message_class("HyperparameterTuningJob")(job)
    assert (message.max_trial_count, message.parallel_trial_count, message.max_failed_trial_count) == (3, 3, 2)
    study, trial = message.study_spec, message.trial_job_spec
    assert [(metric.metric_id, metric.goal.name) for metric in study.metrics] == [("auc", "MINIMIZE")]
    assert study.algorithm.name == "RANDOM_SEARCH"
    assert study.study_stopping_config.maximum_runtime_constraint.max_duration.total_seconds() == 91
    assert [pool.replica_count for pool in trial.worker_pool_specs] == [1, 1]
    assert (trial.scheduling.strategy.name, trial.scheduling.timeout.total_seconds()) == ("SPOT", 60)
    assert {pool.container_spec.args[-1] for pool in trial.worker_pool_specs} == {vertex_trial.MARK}


def test_all_trials_may_fail_but_one() -> None:
    """Without the option a search goes on until every trial has failed."""
    assert body(spec(max_trials=7))["max_failed_trial_count"] == 7


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"options": {"algoritm": "x"}}, "'algoritm'.*'algorithm'"),
        ({"options": {"algorithm": "TPE"}}, "'TPE'.*GRID_SEARCH"),
        ({"options": {"max_failed_trial_count": -1}}, "max_failed_trial_count.*-1"),
        ({"metric": "my metric"}, "'my metric'"),
        ({"metric": ""}, "metric is ''"),
        ({"max_trials": 0}, "max_trials is 0"),
        ({"parallel_trials": 0}, "parallel_trials is 0"),
        ({"direction": "up"}, "'up'"),
        ({"space": {"x": {"low": 0, "high": 1}}, "options": {"algorithm": "GRID_SEARCH"}}, "'x'.*GRID_SEARCH"),
        ({"space": {"x": {"low": 0, "high": 1, "step": 0.0005}}}, "'x'.*2001 values"),
        ({"space": {"x": {"choices": ["true", True]}}}, "'x'.*read the same"),
    ],
)
def test_what_cannot_be_searched_is_refused(fields: dict[str, Any], words: str) -> None:
    """Nothing is asked of Vertex AI; the message names the field or the parameter."""
    with pytest.raises(InvalidSpecError, match=words):
        body(spec(**fields))


def test_trials_are_no_pipelines() -> None:
    """The mode of a training job that has no trials is refused by name."""
    with pytest.raises(UnsupportedFeatureError, match=r"options\.mode"):
        body(spec(training={"options": {"mode": "pipeline"}}))


# What a trial does


def test_searched_values_become_flags_in_either_form() -> None:
    """Vertex AI's pages show both forms; a whole number stays one, a text stays as it is."""
    told = ["--n=8.0", "--rate", "0.5", "--loss=a=b"]
    space = {"n": {"type": "int"}, "rate": {}, "loss": {"choices": ["a=b"]}}
    assert vertex_trial.flags(told, space) == ["--n", "8", "--rate", "0.5", "--loss", "a=b"]


def test_a_trial_has_folders_of_its_own() -> None:
    """By its id, which is also in the name of its model folder."""
    env = {"MLOPS_REPORT": "/gcs/b/x/report.json", "MLOPS_CHECKPOINT_DIR": "/gcs/b/c/"}
    found = vertex_trial.own({**env, "AIP_MODEL_DIR": "gs://b/x/7/model/"})
    assert (found["MLOPS_REPORT"], found["MLOPS_CHECKPOINT_DIR"]) == ("/gcs/b/x/7/report.json", "/gcs/b/c/7")
    assert vertex_trial.own({**env, "CLOUD_ML_TRIAL_ID": "2"})["MLOPS_REPORT"] == "/gcs/b/x/2/report.json"


def test_the_metric_is_told_as_the_vendor_s_library_does(tmp_path: Path) -> None:
    """One JSON object a line, all texts but the time; it comes after what the program told by itself."""
    file = tmp_path / "hypertune" / "output.metrics"
    vertex_trial.tell(str(file), "auc", 0.5, "3")
    [line] = [json.loads(text) for text in file.read_text().splitlines()]
    assert abs(line.pop("timestamp") - time.time()) < 60
    assert line == {"trial": "3", "auc": "0.5", "global_step": "0"}
    with file.open("a") as more:
        more.write('{"auc": "0.1", "global_step": "1000", "timestamp": 1.0, "trial": "3"}\n')
    vertex_trial.tell(str(file), "auc", 0.75, "3")
    assert json.loads(file.read_text().splitlines()[-1])["global_step"] == "1000"


@pytest.mark.parametrize(
    "text", ["", "{}", '{"metrics": {"loss": 1}}', '{"metrics": {"auc": NaN}}', '{"metrics": {"auc": true}}']
)
def test_a_report_without_the_metric_is_none(tmp_path: Path, text: str) -> None:
    """A metric that is missing or no number is an error that names it."""
    (tmp_path / "report").write_text(text)
    with pytest.raises(ValueError, match="'auc'"):
        vertex_trial.measured(str(tmp_path / "report"), "auc")


def test_only_the_first_node_reports() -> None:
    """A node of another pool tells nothing."""
    assert vertex_trial.is_first_node({})
    assert not vertex_trial.is_first_node({"CLUSTER_SPEC": '{"task": {"type": "workerpool1", "index": 0}}'})


# Trials that run


def test_a_result_is_that_of_the_best_trial(fake: VertexFake, backend: VertexTuning) -> None:
    """Its job, its data, its report and its seconds; the search's seconds are those of all trials."""
    version = DataVersion("data/train", "main", "c0ffee", "md5:1", 10)
    found = searched(backend, spec(training={"inputs": {"train": version}}, max_trials=3))
    best = max(found.trials, key=lambda trial: trial.value or 0)
    assert found.best.metrics == {"auc": best.value}
    assert found.best.data == {"train": version}
    source = next(trial for trial in fake.jobs(SEARCHES)[0]["trials"] if trial["id"] == best.trial_id)
    number = source["customJob"].rpartition("/")[2]
    assert found.best.job.job_id == f"{PROJECT}/{REGION}/{number}"
    assert found.best.job.console_url.endswith(f"{number}?project={PROJECT}")
    assert found.billed_seconds is not None
    assert found.best.billed_seconds is not None
    assert 0 <= found.best.billed_seconds <= found.billed_seconds
    assert TuningResult.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_a_grid_is_searched_once(backend: VertexTuning) -> None:
    """Steps and choices are all tried, and a stepped whole number reaches the program as one."""
    space = {"x": {"low": 8, "high": 24, "step": 8, "type": "int"}, "on": {"choices": [True, False]}}
    script = 'case "$2" in *.*) exit 9;; esac; ' + REPORT
    found = searched(backend, spec(script, space=space, max_trials=10, options={"algorithm": "GRID_SEARCH"}))
    assert sorted((each.parameters["x"], each.parameters["on"]) for each in found.trials) == [
        (x, on) for x in (8, 16, 24) for on in (False, True)
    ]
    assert found.parameters["x"] == 24


def test_secrets_checkpoints_and_nodes_are_as_in_training(fake: VertexFake, backend: VertexTuning) -> None:
    """Each trial gets the secret's value, a checkpoint folder of its own, and all its nodes."""
    fake.services.keep_secret(PROJECT, "token", "s3cr3t")
    script = (
        'if [ "$MLOPS_NODE_RANK" = 1 ]; then sleep 60; fi; '
        f'[ "$TOKEN" = s3cr3t ] || exit 9; touch "$MLOPS_CHECKPOINT_DIR/here"; {REPORT}'
    )
    training = {"nodes": 2, "secret_env": {"TOKEN": "token/latest"}, "checkpoint": f"gs://{BUCKET}/checkpoints"}
    found = searched(backend, spec(script, training=training))
    kept = sorted(path.parent.name for path in (fake.buckets / BUCKET / "checkpoints").glob("*/here"))
    assert kept == sorted(trial.trial_id for trial in found.trials)
    told = json.dumps([fake.jobs(SEARCHES), fake.jobs(), found.to_dict()])
    assert "s3cr3t" not in told.replace("= s3cr3t ]", "")


def test_a_search_that_is_out_of_time_ends_with_what_it_has(backend: VertexTuning) -> None:
    """Trials that go on are stopped and have no value."""
    script = f'[ "$CLOUD_ML_TRIAL_ID" = 1 ] && {{ {REPORT}; exit; }}; sleep 60'
    found = searched(backend, spec(script, max_trials=5, parallel_trials=2, max_runtime=3.0))
    assert [trial.trial_id for trial in found.trials if trial.value is not None] == ["1"]
    assert len(found.trials) == 3


def test_a_failed_search_has_the_first_failed_trial_s_last_lines(backend: VertexTuning) -> None:
    """The reason is that of the trial's own job."""
    _, status = ended(backend, spec("echo ValueError: no rows; exit 41"))
    assert (status.state, status.reason) == (JobState.FAILED, FailureReason.USER_CODE)
    assert "status of 41" in status.detail
    assert status.detail.endswith("ValueError: no rows")


def test_a_search_whose_machines_were_taken_away_may_be_tried_again(fake: VertexFake, backend: VertexTuning) -> None:
    """When no trial on SPOT machines survives, it is the platform's fault and not the program's."""
    handle = backend.submit(spec("sleep 60", training={"spot": True}), name="aml-x", owner=OWNER)
    end = time.monotonic() + 10
    while [job["state"] for job in fake.jobs()] != [3, 3]:
        assert time.monotonic() < end
        time.sleep(0.05)
    for found in fake.jobs():
        fake.preempt(found["name"])
    status = until(backend, handle, JobState.FAILED)
    assert (status.reason, "STOCKOUT" in status.detail) == (FailureReason.PLATFORM, True)


@pytest.mark.parametrize("report", ['{"metrics": {"auc": NaN}}', '{"metrics": {"loss": 1}}', "no json"])
def test_a_trial_without_the_metric_has_failed(backend: VertexTuning, report: str) -> None:
    """It says so in its log, which the search's failure shows."""
    _, status = ended(backend, spec(f"echo '{report}' > $MLOPS_OUTPUT"))
    assert status.state is JobState.FAILED
    assert "mlops: the trial has no result" in status.detail


def test_a_lost_report_is_an_error(fake: VertexFake, backend: VertexTuning) -> None:
    """It is never read as an empty result."""
    handle, _ = ended(backend, spec())
    for report in (fake.buckets / BUCKET).rglob("report.json"):
        report.unlink()
    with pytest.raises(NotFoundError, match=r"aml-x/\d/report\.json"):
        backend.collect(handle)


# One search for one name


def test_a_lost_answer_leaves_one_search(fake: VertexFake, backend: VertexTuning) -> None:
    """It is found by its label; nothing is ordered a second time."""
    fake.faults.lose_answers(1, resource=SEARCHES)
    handle = backend.submit(spec("sleep 60"), name="aml-x", owner=OWNER)
    assert fake.calls.count("create", SEARCHES) == 1
    assert [job["name"].rpartition("/")[2] for job in fake.jobs(SEARCHES)] == [handle.job_id.rpartition("/")[2]]


def test_of_two_searches_the_younger_is_stopped_with_its_trials(fake: VertexFake, backend: VertexTuning) -> None:
    """Whoever sees both stops the younger one, and its handle leads to the older."""
    fake.faults.lose_answers(1, resource=SEARCHES, late=4.5)
    with pytest.raises(PlatformUnavailableError):
        backend.submit(spec("sleep 60"), name="aml-x", owner=OWNER)
    younger = backend.submit(spec("sleep 60"), name="aml-x", owner=OWNER)
    fake.faults.settle()
    handles = [handle for handle, _ in backend.managed()]
    assert len(handles) == 2
    backend.observe(handles)
    end = time.monotonic() + 20
    while len(going := [job for job in fake.jobs(SEARCHES) if job["state"] in (1, 2, 3)]) != 1:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert going[0]["name"].endswith(younger.job_id.rpartition("/")[2])
    assert backend.locate("aml-x") == younger


def test_trials_are_not_taken_for_training_jobs(fake: VertexFake, backend: VertexTuning) -> None:
    """Even if trials inherit the search's labels, the training backend neither lists them nor stops any as a twin."""
    handle = backend.submit(spec("sleep 60"), name="aml-x", owner=OWNER)
    until(backend, handle, JobState.RUNNING)
    end = time.monotonic() + 10
    while [job["state"] for job in fake.jobs()] != [3, 3]:
        assert time.monotonic() < end
        time.sleep(0.05)
    training = VertexBackend.from_connection(fake.connection())
    jobs = [JobHandle("vertex", f"{PROJECT}/{REGION}/{job['name'].rpartition('/')[2]}") for job in fake.jobs()]
    assert {status.state for status in training.observe(jobs).values()} == {JobState.RUNNING}
    assert list(training.managed()) == []
    assert training.locate("aml-x") is None
    assert [job["state"] for job in fake.jobs()] == [3, 3]


def test_many_are_looked_at_with_one_list(fake: VertexFake, backend: VertexTuning) -> None:
    """A look at active searches is one request, whatever their number."""
    handles = [backend.submit(spec("sleep 60"), name=f"aml-{n}", owner=OWNER) for n in range(3)]
    calls = fake.calls
    before = (calls.count("list", SEARCHES), calls.count("get", SEARCHES))
    assert len(backend.observe(handles)) == 3
    assert (calls.count("list", SEARCHES), calls.count("get", SEARCHES)) == (before[0] + 1, before[1])


# What is told


def test_every_state_of_a_trial_is_known() -> None:
    """The table has the words of Google's enumeration, no more and no less."""
    assert set(TRIAL_STATES) == {state.name for state in message_class("Trial").State}


def job(state: str, *trials: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return a search as the API tells it."""
    pools = {"worker_pool_specs": [{"replica_count": 1}, {"replica_count": 2}]}
    study = {"metrics": [{"metric_id": "auc"}]}
    return {"state": state, "trials": list(trials), "study_spec": study, "trial_job_spec": pools, **fields}


def trial(state: str, value: float | None = None, **fields: Any) -> dict[str, Any]:
    """Return a trial as the API tells it."""
    measured = {} if value is None else {"final_measurement": {"metrics": [{"metric_id": "auc", "value": value}]}}
    return {"id": "1", "state": state, **measured, **fields}


@pytest.mark.parametrize(
    "only",
    [(), (trial("SUCCEEDED", math.nan),), (trial("INFEASIBLE", 0.9),), (trial("ACTIVE", 0.9),), (trial("NEW", 0.9),)],
)
def test_a_search_without_a_value_has_not_succeeded(only: tuple[dict[str, Any], ...]) -> None:
    """Whatever Vertex AI calls it; the metric is named."""
    found = search_status(job("JOB_STATE_SUCCEEDED", *only))
    assert (found.state, found.reason) == (JobState.FAILED, FailureReason.USER_CODE)
    assert "'auc'" in found.detail
    assert search_status(job("JOB_STATE_SUCCEEDED", trial("SUCCEEDED", 0.0))).state is JobState.SUCCEEDED


def test_seconds_are_those_of_all_nodes_of_all_trials() -> None:
    """A stopped trial ran until its search ended; one that never started cost nothing."""
    began, ended_, later = "2026-01-01T00:00:00Z", "2026-01-01T00:00:10Z", "2026-01-01T00:00:15Z"
    found = search_status(
        job(
            "JOB_STATE_CANCELLED",
            trial("SUCCEEDED", 0.9, start_time=began, end_time=ended_),
            trial("STOPPING", start_time=began),
            trial("REQUESTED"),
            end_time=later,
        )
    )
    assert found.billed_seconds == (10 + 15) * 3


def test_a_search_that_was_stopped_at_its_limit_is_a_timeout() -> None:
    """Cancelled after as long as it might run is not somebody's cancel."""
    times = {"create_time": "2026-01-01T00:00:00Z", "end_time": "2026-01-01T00:01:05Z"}
    found = job("JOB_STATE_CANCELLED", **times)
    found["study_spec"]["study_stopping_config"] = {"maximum_runtime_constraint": {"max_duration": "60s"}}
    assert search_status(found).reason is FailureReason.TIMEOUT
    found["study_spec"]["study_stopping_config"] = {"maximum_runtime_constraint": {"max_duration": "90s"}}
    assert search_status(found).state is JobState.CANCELLED


def test_a_search_that_cannot_be_read_is_unknown() -> None:
    """It is never a success."""
    assert search_status({"state": "JOB_STATE_SUCCEEDED", "study_spec": {}}).state is JobState.UNKNOWN
