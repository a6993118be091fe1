"""Label and field selectors, as https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/ has them."""

from __future__ import annotations

import re
from collections.abc import Callable

from airflow_mlops.testing.kubernetes.problems import Json, Problem

Test = Callable[[Json], bool]

SET = re.compile(r"(\S+)\s+(in|notin)\s+\(([^)]*)\)")
PAIR = re.compile(r"([^!=\s]+)\s*(==|!=|=)\s*(\S*)")
KEY = re.compile(r"(!?)\s*([A-Za-z0-9][\w./-]*)")
FIELDS = {
    "pods": {"status.phase", "spec.nodeName", "spec.restartPolicy"},
    "jobs": {"status.successful"},
    "secrets": {"type"},
    "namespaces": {"status.phase"},
    "events": {
        "reason",
        "type",
        "involvedObject.kind",
        "involvedObject.name",
        "involvedObject.namespace",
        "involvedObject.uid",
    },
}


def matcher(plural: str, labels: str, fields: str) -> Test:
    """Return the test of both selectors together.

    :raises Problem: 400, a selector cannot be read or asks for a field that this kind does not index
    """
    tests = [_label_test(part) for part in _parts(labels)]
    tests += [_field_test(plural, part) for part in _parts(fields)]
    return lambda item: all(test(item) for test in tests)


def _parts(selector: str) -> list[str]:
    """Split at the commas that are not inside brackets."""
    return [part.strip() for part in re.split(r",(?![^(]*\))", selector) if part.strip()]


def _label_test(part: str) -> Test:
    if found := SET.fullmatch(part):
        return _membership(found[1], found[2] == "in", {one.strip() for one in found[3].split(",")})
    if found := PAIR.fullmatch(part):
        return _membership(found[1], found[2] != "!=", {found[3]})
    if found := KEY.fullmatch(part):
        key, wanted = found[2], not found[1]
        return lambda item: (key in _labels(item)) == wanted
    raise Problem("BadRequest", f"unable to parse requirement: found {part!r}")


def _membership(key: str, wanted: bool, values: set[str]) -> Test:
    return lambda item: (_labels(item).get(key) in values) == wanted


def _labels(item: Json) -> dict[str, str]:
    return item["metadata"].get("labels") or {}


def _field_test(plural: str, part: str) -> Test:
    found = PAIR.fullmatch(part)
    if found is None:
        raise Problem("BadRequest", f"invalid selector: {part!r}; can't understand it")
    path, wanted, value = found[1], found[2] != "!=", found[3]
    if path not in FIELDS.get(plural, set()) | {"metadata.name", "metadata.namespace"}:
        raise Problem("BadRequest", f"field label not supported: {path}")
    return lambda item: (_field(item, path) == value) == wanted


def _field(item: Json, path: str) -> str:
    if path == "status.successful":
        return str(item.get("status", {}).get("succeeded", 0))
    value: object = item
    for key in path.split("."):
        value = value.get(key, "") if isinstance(value, dict) else ""
    return str(value)
