"""The shape of objects: built-in kinds by the client's generated models, custom kinds by their CRD's schema.

Every unknown field, wrong type and missing field is found and named by its path, as strict field validation does
(https://kubernetes.io/docs/reference/using-api/api-concepts/#field-validation). Nothing is dropped or converted.
Unknown fields and wrong types are decoding errors (400); missing fields are validation errors (422).
"""

from __future__ import annotations

import base64
import binascii
import functools
import importlib
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from airflow_mlops.core.extras import extra
from airflow_mlops.testing.kubernetes.problems import Json, cause, required

SCALARS: dict[str, type | tuple[type, ...]] = {"str": str, "int": int, "bool": bool, "float": (int, float)}
GO_NAMES = {"str": "string", "int": "int32", "bool": "bool", "float": "float64"}
INT_OR_STRING = {"port", "max_surge", "max_unavailable", "min_available", "target_port"}


@dataclass
class Findings:
    """What is wrong with one object: decoding errors and, if there are none, missing fields."""

    errors: list[str] = field(default_factory=list)
    missing: list[Json] = field(default_factory=list)


def check_model(model: str, body: object) -> Findings:
    """Check *body* against the client's model class, such as ``V1Job``."""
    found = Findings()
    _check(model, body, "", found)
    return found


def check_schema(schema: Json, body: Json) -> Findings:
    """Check *body* against an ``openAPIV3Schema``; metadata is always checked as ``V1ObjectMeta``."""
    found = Findings()
    _check("V1ObjectMeta", body.get("metadata", {}), "metadata", found)
    rest = {key: value for key, value in body.items() if key not in {"metadata", "apiVersion", "kind"}}
    _check_custom(schema, rest, "", found)
    return found


def _check(kind: str, value: Any, path: str, found: Findings) -> None:
    if kind.startswith("list["):
        _check_list(kind[len("list[") : -1], value, path, found)
    elif kind.startswith("dict["):
        _check_dict(kind[len("dict[str, ") : -1], value, path, found)
    elif kind == "object":
        return
    elif kind in SCALARS:
        _check_scalar(kind, value, path, found)
    elif kind in {"datetime", "bytes"}:
        _check_text(kind, value, path, found)
    else:
        _check_fields(kind, value, path, found)


def _check_list(item: str, value: Any, path: str, found: Findings) -> None:
    if not isinstance(value, list):
        found.errors.append(f'json: cannot unmarshal into field "{path}" of type list')
        return
    for index, one in enumerate(value):
        _check(item, one, f"{path}[{index}]", found)


def _check_dict(item: str, value: Any, path: str, found: Findings) -> None:
    if not isinstance(value, dict):
        found.errors.append(f'json: cannot unmarshal into field "{path}" of type map')
        return
    for key, one in value.items():
        _check(item, one, f"{path}.{key}", found)


def _check_scalar(kind: str, value: Any, path: str, found: Findings) -> None:
    if not isinstance(value, SCALARS[kind]) or (kind != "bool" and isinstance(value, bool)):
        told = f"json: cannot unmarshal {type(value).__name__} into Go struct field {path} of type {GO_NAMES[kind]}"
        found.errors.append(told)


def _check_text(kind: str, value: Any, path: str, found: Findings) -> None:
    try:
        if kind == "bytes":
            base64.b64decode(value, validate=True)
        else:
            datetime.fromisoformat(value)
    except (TypeError, ValueError, binascii.Error):
        found.errors.append(f'illegal {"base64 data" if kind == "bytes" else "time"} at "{path}"')


def _check_fields(kind: str, value: Any, path: str, found: Findings) -> None:
    if not isinstance(value, dict):
        found.errors.append(f'json: cannot unmarshal into field "{path}" of type {kind.removeprefix("V1")}')
        return
    model = _model(kind)
    attributes = {key: attribute for attribute, key in model.attribute_map.items()}
    for key, one in value.items():
        if key not in attributes:
            found.errors.append(f'unknown field "{_join(path, key)}"')
        elif one is not None:
            _check(_type_of(model, attributes[key], one), one, _join(path, key), found)
    found.missing += [required(_join(path, key)) for key in _required(kind) if value.get(key) is None]


def _model(kind: str) -> Any:
    with extra("kubernetes"):
        return getattr(importlib.import_module("kubernetes.client.models"), kind)


@functools.cache
def _required(kind: str) -> tuple[str, ...]:
    """Return the fields whose setters in the client's model refuse None."""
    model = _model(kind)
    configuration = importlib.import_module("kubernetes.client").Configuration()
    configuration.client_side_validation = False
    blank = model(local_vars_configuration=configuration)
    configuration.client_side_validation = True
    return tuple(key for attribute, key in model.attribute_map.items() if _refuses_none(blank, attribute))


def _refuses_none(blank: Any, attribute: str) -> bool:
    try:
        setattr(blank, attribute, None)
    except ValueError:
        return True
    return False


def _type_of(model: Any, attribute: str, value: Any) -> str:
    """Return the declared type of a field; an int-or-string field is generated as object or string."""
    declared = str(model.openapi_types[attribute])
    return "object" if attribute in INT_OR_STRING and isinstance(value, int | str) else declared


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
}


def _check_custom(schema: Json, value: Any, path: str, found: Findings) -> None:
    wanted = schema.get("type", "object")
    if "x-model" in schema:
        _check(schema["x-model"], value, path, found)
        return
    if schema.get("x-kubernetes-int-or-string") and isinstance(value, int | str):
        return
    if not isinstance(value, TYPES[wanted]) or (wanted != "boolean" and isinstance(value, bool)):
        found.missing.append(_wrong(path, f"Invalid value: {value!r}: must be of type {wanted}"))
    elif wanted == "object":
        _check_custom_object(schema, value, path, found)
    elif wanted == "array":
        _check_custom_array(schema, value, path, found)
    else:
        _check_custom_value(schema, value, path, found)


def _check_custom_array(schema: Json, value: list[Any], path: str, found: Findings) -> None:
    if len(value) > schema.get("maxItems", len(value)):
        found.missing.append(_wrong(path, f"Too many: must have at most {schema['maxItems']} items"))
    keys, seen = schema.get("x-kubernetes-list-map-keys", []), []
    for index, one in enumerate(value):
        _check_custom(schema.get("items", {}), one, f"{path}[{index}]", found)
        own = {key: one.get(key) for key in keys} if isinstance(one, dict) else {}
        if own and own in seen:
            found.missing.append(cause("FieldValueDuplicate", f"{path}[{index}]", f"Duplicate value: {own}"))
        seen.append(own)


def _check_custom_object(schema: Json, value: Json, path: str, found: Findings) -> None:
    properties, others = schema.get("properties", {}), schema.get("additionalProperties")
    for key, one in value.items():
        if key in properties:
            _check_custom(properties[key], one, _join(path, key), found)
        elif isinstance(others, dict):
            _check_custom(others, one, _join(path, key), found)
        elif not others and not schema.get("x-kubernetes-preserve-unknown-fields"):
            found.errors.append(f'unknown field "{_join(path, key)}"')
    found.missing += [required(_join(path, key)) for key in schema.get("required", []) if key not in value]


def _check_custom_value(schema: Json, value: Any, path: str, found: Findings) -> None:
    if "enum" in schema and value not in schema["enum"]:
        found.missing.append(_wrong(path, f"Unsupported value: {value!r}"))
    if "minimum" in schema and value < schema["minimum"]:
        found.missing.append(_wrong(path, f"Invalid value: {value!r}: should be at least {schema['minimum']}"))
    if "maximum" in schema and value > schema["maximum"]:
        found.missing.append(_wrong(path, f"Invalid value: {value!r}: should be at most {schema['maximum']}"))
    if "pattern" in schema and not re.search(schema["pattern"], value):
        found.missing.append(_wrong(path, f"Invalid value: {value!r}: should match {schema['pattern']!r}"))
    if len(str(value)) > schema.get("maxLength", len(str(value))):
        found.missing.append(_wrong(path, f"Too long: may not be more than {schema['maxLength']} bytes"))
    if len(str(value)) < schema.get("minLength", 0):
        found.missing.append(_wrong(path, f"Invalid value: {value!r}: should be at least {schema['minLength']} long"))


def _wrong(path: str, message: str) -> Json:
    return {"reason": "FieldValueInvalid", "field": path, "message": message}
