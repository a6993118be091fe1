"""Requests held against Google's own messages: unknown fields, unknown enum values and missing required fields.

Types come from the proto descriptors; what is required or output only from the generated classes' own descriptions,
because the generator leaves the annotations of fields out.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
from functools import cache
from typing import Any

from airflow_mlops.testing.vertex.problems import Json, Problem, bad

_FIELD = re.compile(r"^    (\w+) \([^\n]*\):\n\s+([^\n]*)", re.MULTILINE)


def protobuf_json() -> Any:
    """Return the module that turns messages into JSON and back."""
    return importlib.import_module("google.protobuf.json_format")


@cache
def message_class(name: str) -> Any:
    """Return a generated class, such as ``CustomJob``."""
    return getattr(importlib.import_module("google.cloud.aiplatform_v1.types"), name)


def parse(name: str, body: Any) -> Any:
    """Return the message that *body* says, without what only the server writes.

    :raises Problem: it is none
    """
    wrapper, json_format = message_class(name), protobuf_json()
    message = wrapper.pb()()
    if not isinstance(body, dict):
        raise bad(f"Invalid JSON payload received. The body must be a {name}.")
    try:
        json_format.ParseDict(body, message)
    except json_format.ParseError as error:
        raise bad(f"Invalid JSON payload received. {error}") from None
    _check(wrapper, message, name)
    return message


def plain(message: Any, fields: tuple[str, ...] = ()) -> Json:
    """Return a message as the API sends it: camel case, enums as numbers, of some top fields or of all."""
    text = protobuf_json().MessageToJson(message, use_integers_for_enums=True)
    found: Json = json.loads(text)
    return {key: value for key, value in found.items() if not fields or key in fields}


def read_mask(name: str, mask: str) -> tuple[str, ...]:
    """Return the JSON names of the fields that a read mask names.

    :raises Problem: one is none
    """
    known = {field.name: field.json_name for field in message_class(name).pb().DESCRIPTOR.fields}
    paths = [re.sub(r"([A-Z])", lambda found: f"_{found[1].lower()}", path) for path in mask.split(",") if path]
    for path in paths:
        if path.partition(".")[0] not in known:
            raise bad(f"Invalid field mask: {path} is no field of {name}.")
        if "." in path:
            raise Problem("UNIMPLEMENTED", f"The Vertex AI fake does not model masks below the top: {path}.")
    return tuple(known[path] for path in paths)


@cache
def _said(wrapper: Any) -> dict[str, str]:
    """Return what the description of each field begins with."""
    return dict(_FIELD.findall(inspect.getdoc(wrapper) or ""))


def _check(wrapper: Any, message: Any, path: str) -> None:
    said = _said(wrapper)
    for descriptor in message.DESCRIPTOR.fields:
        name, told = descriptor.name, said.get(descriptor.name, "")
        if told.startswith("Output only."):
            message.ClearField(name)
        elif told.startswith("Required.") and not _is_set(message, descriptor):
            raise bad(f"Required field is not set: {path}.{name}")
        else:
            _check_enum(message, descriptor, f"{path}.{name}")
            _check_below(wrapper, message, descriptor, f"{path}.{name}")


def _check_below(wrapper: Any, message: Any, descriptor: Any, path: str) -> None:
    field = wrapper.meta.fields.get(descriptor.name)
    below = getattr(field, "message", None)
    if below is None or not hasattr(below, "meta") or not _is_set(message, descriptor):
        return
    value = getattr(message, descriptor.name)
    is_map = descriptor.message_type is not None and descriptor.message_type.GetOptions().map_entry
    if is_map:
        return
    for number, each in enumerate(value if descriptor.is_repeated else [value]):
        _check(below, each, f"{path}[{number}]" if descriptor.is_repeated else path)


def _check_enum(message: Any, descriptor: Any, path: str) -> None:
    if descriptor.enum_type is None or descriptor.is_repeated:
        return
    value = getattr(message, descriptor.name)
    if value not in descriptor.enum_type.values_by_number:
        raise bad(f"Invalid value at {path}: {value}")


def _is_set(message: Any, descriptor: Any) -> bool:
    return any(field.name == descriptor.name for field, _ in message.ListFields())
