"""What a job's program sees, and what an operator's inputs mean."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.core.refs import DataVersion
from airflow_mlops.training.contract import TrainingSpec
from airflow_mlops.training.launch import command_line, read_inputs

VERSION = DataVersion("data/x", "v1", "c" * 40, "md5:01", 3, repo="https://example.com/r.git")


def test_a_command_line_is_command_then_arguments_then_parameters() -> None:
    """The order is fixed; text goes as it is, anything else as JSON."""
    spec = TrainingSpec(
        ("python", "t.py"), ("--fast",), parameters={"lr": 0.1, "name": "a b", "on": True, "layers": [1, 2]}
    )
    expected = "python|t.py|--fast|--lr|0.1|--name|a b|--on|true|--layers|[1, 2]"
    assert "|".join(command_line(spec)) == expected


@pytest.mark.parametrize("spec", [TrainingSpec(()), TrainingSpec(("x",), parameters={"a b": 1})])
def test_what_cannot_be_a_command_line_is_refused(spec: TrainingSpec) -> None:
    """No command, or a parameter whose name is no word."""
    with pytest.raises(InvalidSpecError):
        command_line(spec)


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), st.one_of(st.floats(), st.booleans())))
def test_every_parameter_comes_back_from_the_command_line(parameters: dict[str, Any]) -> None:
    """A program can read each value again: as JSON, by its flag."""
    words = command_line(TrainingSpec(("x",), parameters=parameters))[1:]
    flags = dict(zip(words[::2], words[1::2], strict=True))
    assert {key: json.dumps(value) for key, value in parameters.items()} == {k[2:]: v for k, v in flags.items()}


@pytest.mark.parametrize(
    ("value", "version", "seen"),
    [
        ({"version": VERSION.to_dict(), "path": "/data/x"}, VERSION, "/data/x"),
        ({"version": VERSION.to_dict()}, VERSION, VERSION.uri),
        (VERSION.to_dict(), VERSION, VERSION.uri),
        (VERSION, VERSION, VERSION.uri),
        ("/data/x", None, "/data/x"),
    ],
)
def test_an_input_is_a_version_and_a_place(value: Any, version: DataVersion | None, seen: str) -> None:
    """The version is what is recorded, the place is what the job sees."""
    versions, variables = read_inputs({"train-set": value})
    assert versions == ({"train-set": version} if version else {})
    assert variables == {"MLOPS_INPUT_TRAIN_SET": seen}


@pytest.mark.parametrize("inputs", [{"x": 3}, {"x": ""}, {"x": {"a": 1}}, {"a-b": "/x", "a_b": "/y"}])
def test_an_input_that_means_nothing_is_refused(inputs: dict[str, Any]) -> None:
    """A typo is not taken for data, and two names never share a variable."""
    with pytest.raises(InvalidSpecError):
        read_inputs(inputs)
