"""The shape of what is sent and answered: botocore's own service model, strictly.

An unknown member, a missing one, a wrong type, a value outside of its bounds, pattern or enumeration is refused with
its path. A real service drops unknown members silently; here that is an error, so that a misspelt field is found.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any

from airflow_mlops.testing.sagemaker.problems import Json, Problem, invalid

TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "long": int,
    "float": (int, float),
    "double": (int, float),
    "boolean": bool,
    "timestamp": (int, float),
    "structure": dict,
    "map": dict,
    "list": list,
}
UNICODE = {r"\p{L}": r"\w", r"\p{Z}": r"\s", r"\p{N}": r"\d"}
"""Classes of Java's expressions in Python's spelling."""


@cache
def service_model(service: str) -> Any:
    """Return botocore's model of a service."""
    return importlib.import_module("botocore.session").get_session().get_service_model(service)


def check_request(service: str, operation: str, body: Json) -> None:
    """Check the body of a request.

    :raises Problem: it is not as the model has it
    """
    _check(service_model(service).operation_model(operation).input_shape, body, "")


def answer_body(service: str, operation: str, answer: Json) -> Json:
    """Return an answer as it goes over the wire; one that is not as the model has it is a fault of the fake."""
    shape = service_model(service).operation_model(operation).output_shape
    body: Json = _plain(answer)
    if shape is not None:
        try:
            _check(shape, body, operation)
        except Problem as problem:
            raise AssertionError(problem.message) from None
    return body


def _plain(value: Any) -> Any:
    """Return *value* with moments as seconds since 1970, as JSON 1.1 has them."""
    if isinstance(value, datetime):
        return round(value.timestamp(), 3)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _check(shape: Any, value: Any, path: str) -> None:
    kind = shape.type_name
    if not _is_a(kind, value):
        raise invalid(f"{path or shape.name}: {value!r} is no {kind}")
    _check_bounds(shape, value, path)
    if kind == "structure":
        _check_structure(shape, value, path)
    elif kind == "list":
        for number, item in enumerate(value):
            _check(shape.member, item, f"{path}[{number}]")
    elif kind == "map":
        for key, item in value.items():
            _check(shape.key, key, f"{path}.{key}")
            _check(shape.value, item, f"{path}.{key}")


def _is_a(kind: str, value: object) -> bool:
    return isinstance(value, TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _check_structure(shape: Any, value: Json, path: str) -> None:
    for key, item in value.items():
        if key not in shape.members:
            raise invalid(f"{path or shape.name} has no member {key!r}")
        _check(shape.members[key], item, f"{path}.{key}".lstrip("."))
    if missing := [key for key in shape.required_members if key not in value]:
        raise invalid(f"Value null at '{path}.{missing[0]}' failed to satisfy constraint: Member must not be null")


def _check_bounds(shape: Any, value: Any, path: str) -> None:
    bounds = shape.metadata
    size = value if isinstance(value, (int, float)) else len(value)
    if not bounds.get("min", size) <= size <= bounds.get("max", size):
        limits = f"{bounds.get('min', '')} to {bounds.get('max', '')}"
        raise invalid(f"Value at '{path}' failed to satisfy constraint: Member must have length or value of {limits}")
    if "enum" in bounds and value not in bounds["enum"]:
        raise invalid(f"Value {value!r} at '{path}' failed to satisfy constraint: Member must satisfy enum value set")
    if "pattern" in bounds and not re.fullmatch(_pattern(bounds["pattern"]), value):
        raise invalid(f"Value at '{path}' failed to satisfy regular expression pattern: {bounds['pattern']}")


@cache
def _pattern(text: str) -> str:
    for java, python in UNICODE.items():
        text = text.replace(java, python)
    return text
