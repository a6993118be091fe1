"""Pipelines, parameters, marks and states: decisions without a server."""

from __future__ import annotations

import json
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.core.errors import InvalidSpecError, NotFoundError
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.testing.kfp.pipelines import shell_pipeline
from airflow_mlops.testing.kfp.plan import plan
from airflow_mlops.testing.kfp.problems import Problem
from airflow_mlops.training.contract import FailureReason, JobState
from airflow_mlops.training.pipelines import marks
from airflow_mlops.training.pipelines.compiled import (
    check_parameters,
    checked,
    read_pipeline,
    task_names,
    with_caching,
)
from airflow_mlops.training.pipelines.marks import LONGEST, LONGEST_NAME, Mark
from airflow_mlops.training.pipelines.states import CAN_END, STATES, status_of, tasks

WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=120)
OWNERS = st.builds(TaskIdentity, WORDS, WORDS, WORDS, st.integers(-1, 1000), st.one_of(st.just(""), WORDS))
HEX = st.text("0123456789abcdef", min_size=64, max_size=64)


@given(HEX, st.text(string.ascii_lowercase, max_size=63), OWNERS)
def test_a_mark_comes_back_whole_or_without_its_owner(digest: str, namespace: str, owner: TaskIdentity) -> None:
    """It always fits in 255 characters and keeps spec and namespace; the owner is there whole or not at all."""
    mark = Mark.of(f"sha256:{digest}", namespace, owner)
    text = mark.write()
    found = Mark.read(text)
    assert len(text) <= LONGEST
    assert found in (mark, Mark(mark.spec, namespace))
    if len(json.dumps(owner.to_dict(), ensure_ascii=False)) < 60:
        assert found == mark


@given(st.text())
def test_a_description_of_somebody_else_is_no_mark(text: str) -> None:
    """Whatever a person writes, the run is not taken for ours, and nothing breaks."""
    assert Mark.read(text) is None
    assert Mark.read(f"airflow-mlops {text}") is None


@given(WORDS, WORDS, OWNERS)
def test_names_make_ids_that_differ(one: str, other: str, owner: TaskIdentity) -> None:
    """The id is a function of the name alone; what people see begins with the name and is short."""
    assert (marks.run_id(one) == marks.run_id(other)) == (one == other)
    name = "aml-abcdefghijklmnop"
    assert marks.display_name(name, owner).startswith(name)
    assert len(marks.display_name(name, owner)) <= LONGEST_NAME


VALUES = {
    "STRING": st.text(),
    "NUMBER_INTEGER": st.integers(-(2**40), 2**40),
    "NUMBER_DOUBLE": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**40), 2**40),
    "BOOLEAN": st.booleans(),
    "LIST": st.lists(st.integers(), max_size=3),
    "STRUCT": st.dictionaries(st.text(), st.integers(), max_size=3),
}
ANY = st.one_of(*VALUES.values(), st.just(float("nan")), st.none())


def accepted_here(pipeline: Any, parameters: dict[str, Any]) -> bool:
    """Return whether the check lets the parameters pass."""
    try:
        check_parameters(pipeline, parameters)
    except InvalidSpecError:
        return False
    return True


def accepted_there(pipeline: Any, parameters: dict[str, Any]) -> bool:
    """Return whether the server would."""
    try:
        plan(pipeline, json.loads(json.dumps(parameters)))
    except Problem:
        return False
    return True


@given(
    st.dictionaries(
        st.sampled_from("abc"),
        st.builds(
            lambda kind, optional: {"parameterType": kind, "isOptional": optional},
            st.sampled_from([*VALUES]),
            st.booleans(),
        ),
    ),
    st.dictionaries(st.sampled_from("abcd"), ANY),
)
def test_what_passes_here_passes_there(inputs: dict[str, Any], parameters: dict[str, Any]) -> None:
    """Whatever the check lets through, the server's own rules accept; it is stricter only about numbers."""
    pipeline = shell_pipeline({"only": "true"}, inputs=inputs)
    here, there = accepted_here(pipeline, parameters), accepted_there(pipeline, parameters)
    assert there or not here
    if there and not any(isinstance(value, float) for value in parameters.values()):
        assert here


@given(st.sampled_from([*VALUES]), st.data())
def test_a_value_of_the_declared_type_is_taken(kind: str, data: Any) -> None:
    """Each of the six types takes its own values."""
    pipeline = shell_pipeline({"only": "true"}, inputs={"p": {"parameterType": kind}})
    check_parameters(pipeline, {"p": data.draw(VALUES[kind])})


@pytest.mark.parametrize(
    ("declared", "given", "told"),
    [
        ({"lr": {"parameterType": "NUMBER_DOUBLE"}}, {"lr": "0.1"}, "'lr'.*'0.1', not a NUMBER_DOUBLE"),
        ({"lr": {"parameterType": "NUMBER_DOUBLE"}}, {}, "needs the parameter 'lr', a NUMBER_DOUBLE"),
        (
            {"rate": {"parameterType": "NUMBER_DOUBLE"}},
            {"rate": 1, "rat": 1},
            "no parameter 'rat': did you mean 'rate'",
        ),
        ({"n": {"parameterType": "NUMBER_INTEGER"}}, {"n": True}, "True, not a NUMBER_INTEGER"),
        ({"n": {"parameterType": "NUMBER_INTEGER"}}, {"n": 1.5}, "1.5, not a NUMBER_INTEGER"),
        ({"n": {"parameterType": "NUMBER_DOUBLE"}}, {"n": float("inf")}, "inf, not a NUMBER_DOUBLE"),
        ({"m": {"parameterType": "STRING", "literals": ["a", "b"]}}, {"m": "c"}, "'c', none of"),
        ({"l": {"parameterType": "LIST"}}, {"l": [float("nan")]}, "'l'.*JSON compliant"),
        ({"s": {"parameterType": "STRUCT"}}, {"s": {"a": {1}}}, "'s'.*not JSON serializable"),
        ({"t": {"parameterType": "TASK_FINAL_STATUS"}}, {"t": "x"}, "not a TASK_FINAL_STATUS"),
    ],
)
def test_a_wrong_parameter_is_named(declared: dict[str, Any], given: dict[str, Any], told: str) -> None:
    """The message has the parameter, its value and what it must be."""
    with pytest.raises(InvalidSpecError, match=told):
        check_parameters(shell_pipeline({"only": "true"}, inputs=declared), given)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"schemaVersion": "2.0.0"}, "2.0.0"),
        ({"pipelineInfo": {}}, "pipelineInfo.name"),
        ({"root": None}, "root"),
        ({"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow"}, "'Workflow' of Argo"),
    ],
)
def test_what_is_no_compiled_pipeline_is_refused(change: dict[str, Any], told: str) -> None:
    """The message says what is missing; the same pipeline with a platform part is checked as well."""
    wrong = {**shell_pipeline({"only": "true"}), **change}
    for pipeline in (wrong, {"pipeline_spec": wrong, "platform_spec": {}}):
        with pytest.raises(InvalidSpecError, match=told):
            checked(pipeline)


@pytest.mark.parametrize(
    ("text", "error"),
    [("a: [", InvalidSpecError), ("", InvalidSpecError), ("a: 1\n---\nb: 2", InvalidSpecError), (None, NotFoundError)],
)
def test_a_file_without_a_pipeline_is_refused(tmp_path: Any, text: str | None, error: type[Exception]) -> None:
    """The message names the file."""
    file = tmp_path / "broken.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(error, match=r"broken\.yaml"):
        read_pipeline(str(file))


def test_a_json_file_and_dates_in_yaml_are_read(tmp_path: Any) -> None:
    """JSON is a pipeline too, and what YAML takes for a date stays the text it was."""
    found = shell_pipeline({"only": "true"}, inputs={"day": {"parameterType": "STRING", "defaultValue": "D"}})
    (tmp_path / "p.json").write_text(json.dumps(found))
    (tmp_path / "p.yml").write_text(json.dumps(found).replace('"D"', "2026-01-02"))
    assert read_pipeline(str(tmp_path / "p.json")) == found
    read: Any = read_pipeline(str(tmp_path / "p.yml"))
    assert read["root"]["inputDefinitions"]["parameters"]["day"]["defaultValue"] == "2026-01-02"


def test_caching_is_set_for_every_task_and_the_pipeline_is_left_alone() -> None:
    """Also within a pipeline in the pipeline; the mapping that was given does not change."""
    inner = shell_pipeline({"a": "true", "b": "true"})
    inner["components"]["comp-c"] = {"dag": {"tasks": {"deep": {"cachingOptions": {"enableCache": True}}}}}
    before = json.dumps(inner)
    changed: Any = with_caching({"pipeline_spec": inner, "platform_spec": {}}, False)["pipeline_spec"]
    deep = changed["components"]["comp-c"]["dag"]["tasks"]["deep"]
    found = [*changed["root"]["dag"]["tasks"].values(), deep]
    assert [task["cachingOptions"] for task in found] == [{"enableCache": False}] * 3
    assert json.dumps(inner) == before
    assert task_names(inner) == {"a", "b", "deep"}


@given(st.text() | st.sampled_from([*STATES]), st.lists(st.fixed_dictionaries({"state": st.sampled_from([*STATES])})))
def test_only_succeeded_is_success(word: str, history: list[dict[str, str]]) -> None:
    """Every word has one of our states, an unknown one is UNKNOWN, and the platform's word is kept."""
    status = status_of({"state": word, "state_history": history})
    assert (status.state is JobState.SUCCEEDED) == (word == "SUCCEEDED")
    assert status.native == word
    assert word in STATES or status.state is JobState.UNKNOWN
    assert not (word in CAN_END and status.state.terminal)


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("PAUSED", JobState.PENDING),
        ("CANCELING", JobState.RUNNING),
        ("SKIPPED", JobState.FAILED),
        ("", JobState.UNKNOWN),
    ],
)
def test_odd_words(word: str, state: JobState) -> None:
    """A paused run waits, one that is being ended has not ended, and one that was skipped has done nothing."""
    assert status_of({"state": word}).state is state


def test_a_run_that_was_told_to_end_is_cancelled() -> None:
    """The server calls it FAILED in the end; that it was CANCELING before is in its history."""
    history = [{"state": word} for word in ("PENDING", "RUNNING", "CANCELING", "FAILED")]
    assert status_of({"state": "FAILED", "state_history": history}).state is JobState.CANCELLED
    assert status_of({"state": "FAILED", "state_history": history[:2]}).state is JobState.FAILED
    assert status_of({"state": "SUCCEEDED", "state_history": history}).state is JobState.SUCCEEDED


NODES = [
    {"display_name": "root", "state": "FAILED"},
    {"display_name": "train-driver", "state": "SUCCEEDED"},
    {"display_name": "train", "state": "FAILED", "error": {"message": "OOMKilled (exit code 137)"}},
    {"display_name": "executor", "state": "FAILED"},
]


def test_a_failure_names_the_task_of_the_pipeline() -> None:
    """Drivers and other nodes of the workflow are left out, and what the task says decides about the reason."""
    run = {"state": "FAILED", "pipeline_spec": shell_pipeline({"train": "x"}), "run_details": {"task_details": NODES}}
    status = status_of(run)
    assert status.detail == "Task 'train' failed: OOMKilled (exit code 137)"
    assert status.reason is FailureReason.OUT_OF_MEMORY
    silent = [{key: value for key, value in node.items() if key != "error"} for node in NODES]
    status = status_of({**run, "run_details": {"task_details": silent}})
    assert (status.detail, status.reason) == ("Task 'train' failed: see its log.", FailureReason.NONE)


def test_a_failed_driver_is_named_when_no_task_failed() -> None:
    """When what failed is not a task of the pipeline, it is told all the same."""
    nodes = [{"display_name": "train-driver", "state": "FAILED"}]
    run = {"state": "FAILED", "pipeline_spec": shell_pipeline({"train": "x"}), "run_details": {"task_details": nodes}}
    assert status_of(run).detail == "Task 'train-driver' failed: see its log."
    assert [task["display_name"] for task in tasks({"run_details": {"task_details": NODES}})] == [
        "train-driver",
        "train",
    ]


def test_a_run_without_details_says_where_to_look() -> None:
    """Its own error is told; without one, the page is."""
    assert "page" in status_of({"state": "FAILED"}).detail
    assert status_of({"state": "FAILED", "error": {"message": "exceeded quota"}}).reason is FailureReason.QUOTA
    assert status_of({"error": {"message": "Failed to parse"}}).detail == "Failed to parse"
