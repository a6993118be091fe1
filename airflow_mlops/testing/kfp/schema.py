"""The shape of what is sent: the official client's generated models, strictly.

An unknown field, a wrong type or an unknown word of an enumeration is refused with its path, as the server's own
decoder does. Nothing is dropped or converted.
"""

from __future__ import annotations

import importlib
import re
from datetime import datetime
from typing import Any

from airflow_mlops.testing.kfp.problems import Problem

SCALARS: dict[str, type | tuple[type, ...]] = {"str": str, "int": int, "bool": bool, "float": (int, float)}


def check(kind: str, value: Any, path: str = "") -> None:
    """Check *value* against a type as the client's models write it, such as ``V2beta1Run`` or ``list[str]``.

    :raises Problem: 400, naming the field
    """
    if found := re.fullmatch(r"list\[(.*)\]", kind):
        for index, one in enumerate(_of(list, value, kind, path)):
            check(found[1], one, f"{path}[{index}]")
    elif found := re.fullmatch(r"dict\(str, (.*)\)", kind):
        for key, one in _of(dict, value, kind, path).items():
            check(found[1], one, f"{path}.{key}")
    elif kind in SCALARS:
        _of(SCALARS[kind], value, kind, path)
    elif kind == "datetime":
        _check_moment(value, path)
    elif kind != "object":
        _check_model(kind, value, path)


def _check_model(kind: str, value: Any, path: str) -> None:
    model = getattr(importlib.import_module("kfp_server_api.models"), kind)
    if words := getattr(model, "allowable_values", None):
        if value not in words:
            raise _refused(f"invalid value for enum field {path}: {value!r}")
        return
    attributes = {key: attribute for attribute, key in model.attribute_map.items()}
    for key, one in _of(dict, value, kind, path).items():
        where = f"{path}.{key}".lstrip(".")
        if key not in attributes:
            raise _refused(f'unknown field "{where}"')
        check(model.openapi_types[attributes[key]], one, where)


def _check_moment(value: Any, path: str) -> None:
    try:
        datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise _refused(f"invalid google.protobuf.Timestamp value {value!r} for field {path}") from None


def _of(wanted: type | tuple[type, ...], value: Any, kind: str, path: str) -> Any:
    if not isinstance(value, wanted) or (kind != "bool" and isinstance(value, bool)):
        raise _refused(f"invalid value for {kind} field {path}: {value!r}")
    return value


def _refused(what: str) -> Problem:
    return Problem("INVALID_ARGUMENT", f"proto: {what}")
