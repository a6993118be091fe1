"""The two request formats: MLflow's scoring protocol and the Open Inference Protocol V2. Pure: JSON values in and out.

Formats: https://mlflow.org/docs/latest/ml/deployment/deploy-model-locally/ and
https://github.com/kserve/open-inference-protocol
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import chain
from math import prod
from typing import Any

from airflow_mlops.core.errors import InvalidSpecError, close_match
from airflow_mlops.serving.schema import Schema, Table

INVOCATION_KEYS = ("dataframe_split", "dataframe_records", "instances", "inputs")
"""The words of which an invocation holds exactly one."""

DATATYPES = {"double": "FP64", "float": "FP32", "long": "INT64", "integer": "INT32", "boolean": "BOOL"}
"""MLflow's column types in V2's words; everything else is BYTES."""


def parse_json(body: bytes) -> dict[str, Any]:
    """Return the JSON object in *body*.

    :raises InvalidSpecError: it is no JSON, or no object
    """
    try:
        value = json.loads(body)
        if b"\\u" in body:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise InvalidSpecError(
            "The body holds half of a surrogate pair, which is no text. Send whole characters."
        ) from None
    except (ValueError, RecursionError) as error:
        where = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise InvalidSpecError(f"The body is not JSON{where}. Send a JSON object.") from None
    if not isinstance(value, dict):
        raise InvalidSpecError(f"The body must be a JSON object, got {type(value).__name__}.")
    return value


def parse_invocation(body: Mapping[str, Any]) -> Table:
    """Return the table in an MLflow scoring request.

    :raises InvalidSpecError: none or several of the known keys are there, or rows differ in their columns
    """
    found = [key for key in INVOCATION_KEYS if key in body]
    if len(found) != 1:
        hint = "" if found or not body else close_match(str(next(iter(body))), INVOCATION_KEYS)
        raise InvalidSpecError(
            f"The body must have exactly one of {', '.join(INVOCATION_KEYS)}, got {sorted(body)!r}. {hint}"
        )
    if body.get("params"):
        raise InvalidSpecError("'params' is not supported by this gateway. Leave it out.")
    value = body[found[0]]
    if found[0] == "dataframe_split":
        return _split(value)
    if isinstance(value, dict):
        return _columns(value)
    return _records(value, found[0])


def _split(value: Any) -> Table:
    if not isinstance(value, dict) or "data" not in value:
        raise InvalidSpecError("'dataframe_split' must be an object with 'columns' and 'data'.")
    names = value.get("columns")
    if names is not None and not (isinstance(names, list) and len({str(name) for name in names}) == len(names)):
        raise InvalidSpecError("'columns' of 'dataframe_split' must be a list of different names.")
    table = _rows(value["data"], "dataframe_split")
    if names is not None and len(names) != len(table.columns) and table.rows:
        raise InvalidSpecError(f"'dataframe_split' names {len(names)} columns, its rows have {len(table.columns)}.")
    return Table(tuple(str(name) for name in names or ()), table.columns)


def _records(value: Any, key: str) -> Table:
    if not isinstance(value, list):
        raise InvalidSpecError(f"{key!r} must be a list of rows, got {type(value).__name__}.")
    if not value or not isinstance(value[0], dict):
        return _rows(value, key)
    names = value[0].keys()
    for row, record in enumerate(value):
        if not isinstance(record, dict):
            raise InvalidSpecError(f"Row {row} of {key!r} must be an object like row 0, got {type(record).__name__}.")
        if record.keys() != names:
            raise InvalidSpecError(
                f"Row {row} of {key!r} has other columns than row 0: {sorted(names ^ record.keys())!r}."
            )
    return Table(tuple(names), tuple([record[name] for record in value] for name in names))


def _rows(value: Any, key: str) -> Table:
    if not isinstance(value, list):
        raise InvalidSpecError(f"{key!r} must be a list of rows, got {type(value).__name__}.")
    rows = [row if isinstance(row, list) else [row] for row in value]
    for number, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise InvalidSpecError(f"Row {number} of {key!r} has {len(row)} values, row 0 has {len(rows[0])}.")
    return Table((), tuple([row[index] for row in rows] for index in range(len(rows[0]) if rows else 0)))


def _columns(value: Mapping[str, Any]) -> Table:
    columns = [column if isinstance(column, list) else [column] for column in value.values()]
    flat = [[v[0] if isinstance(v, list) and len(v) == 1 else v for v in column] for column in columns]
    if len({len(column) for column in flat}) > 1:
        lengths = {name: len(column) for name, column in zip(value, flat, strict=True)}
        raise InvalidSpecError(f"All columns must have the same number of rows, got {lengths!r}.")
    return Table(tuple(value), tuple(flat))


def parse_inference(body: Mapping[str, Any]) -> Table:
    """Return the table in a V2 inference request: one input a column, or one two-dimensional input for all.

    :raises InvalidSpecError: an input has no name, or its data does not have its shape
    """
    inputs = body.get("inputs")
    if not isinstance(inputs, list) or not inputs or not all(isinstance(item, dict) for item in inputs):
        raise InvalidSpecError("'inputs' must be a list of tensors with 'name', 'shape', 'datatype' and 'data'.")
    tensors = {str(item.get("name", "")): _tensor(item) for item in inputs}
    if "" in tensors or len(tensors) != len(inputs):
        raise InvalidSpecError(f"Every input needs a name of its own, got {[item.get('name') for item in inputs]!r}.")
    (_, (shape, data)), *others = tensors.items()
    if not others and len(shape) == 2 and shape[1] > 1:
        return Table((), tuple(data[index :: shape[1]] for index in range(shape[1])))
    for name, (shape, _) in tensors.items():
        if prod(shape[1:]) != 1:
            raise InvalidSpecError(f"Input {name!r} has shape {shape!r}. Give each column an input of shape [rows].")
    return _columns({name: data for name, (_, data) in tensors.items()})


def _tensor(item: Mapping[str, Any]) -> tuple[list[int], list[Any]]:
    name, shape, data = item.get("name"), item.get("shape"), item.get("data")
    if not isinstance(shape, list) or not shape or not all(type(size) is int and size >= 0 for size in shape):
        raise InvalidSpecError(f"Input {name!r} needs a 'shape' such as [1], got {shape!r}.")
    if not isinstance(data, list):
        raise InvalidSpecError(f"Input {name!r} needs 'data', a list. Binary tensors are not supported.")
    while data and isinstance(data[0], list) and all(isinstance(part, list) for part in data):
        data = list(chain.from_iterable(data))
    if len(data) != prod(shape):
        raise InvalidSpecError(f"Input {name!r} has {len(data)} values, its shape {shape!r} asks for {prod(shape)}.")
    return shape, data


def inference_answer(endpoint: str, revision: str, request_id: str, predictions: Sequence[Any]) -> dict[str, Any]:
    """Return the V2 answer: one output called ``predictions``; anything but numbers and booleans is BYTES."""
    kinds = set(map(type, predictions))
    datatype = "BOOL" if kinds == {bool} else "INT64" if kinds == {int} else "FP64"
    if not kinds <= {bool, int, float, type(None)}:
        datatype, predictions = "BYTES", [v if isinstance(v, str) else json.dumps(v) for v in predictions]
    output = {"name": "predictions", "shape": [len(predictions)], "datatype": datatype, "data": list(predictions)}
    return {"model_name": endpoint, "model_version": revision, "id": request_id, "outputs": [output]}


def model_metadata(endpoint: str, revisions: Sequence[str], schema: Schema) -> dict[str, Any]:
    """Return V2's description of a model. The inputs are those of the revision with most of the traffic."""
    inputs = [
        {"name": field.name, "datatype": DATATYPES.get(field.type, "BYTES"), "shape": [-1]} for field in schema.fields
    ]
    outputs = [{"name": "predictions", "datatype": "FP64", "shape": [-1]}]
    return {
        "name": endpoint,
        "versions": list(revisions),
        "platform": "mlflow",
        "inputs": inputs,
        "outputs": outputs,
    }
