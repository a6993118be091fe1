"""The same table comes out of every way to write it, and anything else is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.serving.protocol import (
    inference_answer,
    model_metadata,
    parse_inference,
    parse_invocation,
    parse_json,
)
from airflow_mlops.serving.schema import Field, Schema, Table

NAMED = Table(("a", "b"), ([1, 3], [2.5, None]))
BARE = Table((), ([1, 3], [2.5, None]))


@pytest.mark.parametrize(
    ("body", "table"),
    [
        ({"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2.5], [3, None]]}}, NAMED),
        ({"dataframe_records": [{"a": 1, "b": 2.5}, {"a": 3, "b": None}]}, NAMED),
        ({"instances": [{"a": 1, "b": 2.5}, {"a": 3, "b": None}]}, NAMED),
        ({"inputs": {"a": [1, 3], "b": [[2.5], [None]]}}, NAMED),
        ({"instances": [[1, 2.5], [3, None]]}, BARE),
        ({"inputs": [[1, 2.5], [3, None]]}, BARE),
        ({"dataframe_split": {"data": [[1, 2.5], [3, None]]}}, BARE),
        ({"inputs": [1, 3]}, Table((), ([1, 3],))),
    ],
)
def test_every_form_of_an_invocation_gives_the_same_table(body: dict[str, Any], table: Table) -> None:
    """MLflow's four words mean the same data."""
    assert parse_invocation(body) == table


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "exactly one of"),
        ({"instances": [], "inputs": []}, "exactly one of"),
        ({"dataframe_record": []}, "did you mean 'dataframe_records'"),
        ({"inputs": [[1, 2], [3]]}, "Row 1 of 'inputs' has 1 values, row 0 has 2"),
        (
            {"dataframe_records": [{"a": 1}, {"b": 1}]},
            r"Row 1 of 'dataframe_records' has other columns .* \['a', 'b'\]",
        ),
        ({"dataframe_records": [{"a": 1}, 5]}, "Row 1 .* must be an object like row 0, got int"),
        ({"dataframe_records": "a"}, "must be a list of rows, got str"),
        ({"dataframe_split": []}, "an object with 'columns' and 'data'"),
        ({"dataframe_split": {"columns": ["a", "a"], "data": [[1, 2]]}}, "different names"),
        ({"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}}, "names 1 columns, its rows have 2"),
        ({"inputs": {"a": [1], "b": [1, 2]}}, "same number of rows"),
        ({"inputs": [[1]], "params": {"k": 1}}, "'params' is not supported"),
    ],
)
def test_an_invocation_that_makes_no_table_is_refused(body: dict[str, Any], message: str) -> None:
    """The message says what is wrong, so that the client can repair it."""
    with pytest.raises(InvalidSpecError, match=message):
        parse_invocation(body)


def _tensor(name: str, shape: list[int], data: Any) -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": "FP64", "data": data}


def test_v2_inputs_are_columns() -> None:
    """Each named input is a column, flat or as a single column of a matrix."""
    body = {"inputs": [_tensor("a", [2], [1, 3]), _tensor("b", [2, 1], [[2.5], [None]])]}
    assert parse_inference(body) == NAMED


@pytest.mark.parametrize("data", [[1, 2.5, 3, None], [[1, 2.5], [3, None]]])
def test_one_v2_matrix_is_the_whole_table(data: list[Any]) -> None:
    """A single two-dimensional input, flat or nested, is taken row by row."""
    assert parse_inference({"inputs": [_tensor("x", [2, 2], data)]}) == BARE


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (None, "'inputs' must be a list"),
        ([_tensor("a", [2], [1])], r"Input 'a' has 1 values, its shape \[2\] asks for 2"),
        ([_tensor("a", [-1], [1])], "needs a 'shape'"),
        ([_tensor("a", [1], "1")], "needs 'data'"),
        ([_tensor("a", [1], [1]), _tensor("a", [1], [1])], "a name of its own"),
        ([_tensor("a", [1, 2], [1, 2]), _tensor("b", [1], [1])], r"Input 'a' has shape \[1, 2\]"),
    ],
)
def test_v2_inputs_that_make_no_table_are_refused(inputs: Any, message: str) -> None:
    """The message names the input."""
    with pytest.raises(InvalidSpecError, match=message):
        parse_inference({"inputs": inputs})


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[1]", b"3", b"[" * 100_000, b'{"a": "\\ud800"}'])
def test_a_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    """Broken, foreign or hostile bytes give our own error."""
    with pytest.raises(InvalidSpecError):
        parse_json(body)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
_shaped = st.fixed_dictionaries({"name": _json, "shape": st.lists(st.integers(0, 3), max_size=3), "data": _json})


@given(
    st.one_of(
        st.dictionaries(st.sampled_from(["inputs", "instances", "dataframe_split", "dataframe_records"]), _json),
        st.fixed_dictionaries({"inputs": st.lists(_shaped, max_size=2)}),
        st.fixed_dictionaries({"dataframe_split": st.fixed_dictionaries({"columns": _json, "data": _json})}),
    )
)
def test_any_json_is_a_table_or_refused(body: dict[str, Any]) -> None:
    """No JSON at all makes the parsers fail in another way, and a table is never ragged."""
    for parse in (parse_invocation, parse_inference):
        try:
            table = parse(body)
        except InvalidSpecError:
            continue
        assert len({len(column) for column in table.columns}) <= 1
        assert not table.names or len(table.names) == len(table.columns) or not table.rows


@pytest.mark.parametrize(
    ("predictions", "datatype", "data"),
    [
        ([0.5, None], "FP64", [0.5, None]),
        ([1, 2], "INT64", [1, 2]),
        ([True], "BOOL", [True]),
        (["a", {}], "BYTES", ["a", "{}"]),
    ],
)
def test_v2_answers_name_their_type(predictions: list[Any], datatype: str, data: list[Any]) -> None:
    """The one output has the protocol's word for what the model said."""
    answer = inference_answer("e", "v1", "id", predictions)
    assert answer["outputs"] == [{"name": "predictions", "shape": [len(data)], "datatype": datatype, "data": data}]
    assert json.loads(json.dumps(answer)) == answer


def test_v2_metadata_lists_the_inputs() -> None:
    """A client can learn the columns and their types."""
    found = model_metadata("e", ["v1"], Schema((Field("x", "double"), Field("city", "string"))))
    assert [(item["name"], item["datatype"]) for item in found["inputs"]] == [("x", "FP64"), ("city", "BYTES")]
