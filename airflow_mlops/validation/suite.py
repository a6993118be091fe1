"""Read a suite: the JSON of Great Expectations, which is data and must never become code.

Nothing in it may name a module, a class or a plugin to load. See
https://docs.greatexpectations.io/docs/core/define_expectations/organize_expectation_suites.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_mlops.core.errors import InvalidSpecError, close_match
from airflow_mlops.core.identity import text_digest

_SUITE_KEYS = ("name", "expectations", "meta", "id", "notes", "suite_parameters")
_CHECK_KEYS = ("type", "kwargs", "severity", "meta", "id", "notes", "description", "rendered_content")
_CODE = ("module_name", "class_name", "plugins", "plugins_directory", "custom_expectations")
_NAME = re.compile(r"\w[\w .-]*")
_OURS = ("result_format", "catch_exceptions", "batch_id", "windows")
SEVERITIES = ("critical", "warning", "info")


@dataclass(frozen=True)
class Check:
    """One expectation of a suite. Only ``critical`` ones fail a gate."""

    type: str
    kwargs: Mapping[str, Any]
    severity: str = "critical"

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns the check needs to be there."""
        if self.type == "expect_column_to_exist":
            return ()
        named = [self.kwargs[key] for key in ("column", "column_A", "column_B") if key in self.kwargs]
        return tuple(str(name) for name in (*named, *self.kwargs.get("column_list", ())))


@dataclass(frozen=True)
class Suite:
    """A suite and the digest of its JSON."""

    name: str
    digest: str
    checks: tuple[Check, ...]


def read_suite(suite: Mapping[str, Any], min_expectations: int = 1) -> Suite:
    """Read a suite.

    :raises InvalidSpecError: it has fewer checks than asked for, an unknown key, or something that loads code
    """
    _refuse_code(suite)
    _known_keys(suite, _SUITE_KEYS, "The suite")
    name, listed = str(suite.get("name") or ""), suite.get("expectations")
    if not _NAME.fullmatch(name) or not isinstance(listed, list):
        raise InvalidSpecError(
            f"A suite has a plain name and a list, like {{'name': 'flights', 'expectations': [...]}}; got {name!r}."
        )
    if len(listed) < max(1, min_expectations):
        raise InvalidSpecError(
            f"Suite {name!r} has {len(listed)} expectations, at least {max(1, min_expectations)} are required. "
            "A suite that checks nothing would always pass."
        )
    digest = text_digest(json.dumps(suite, sort_keys=True, separators=(",", ":")))
    return Suite(name, digest, tuple(_check(entry, number) for number, entry in enumerate(listed, 1)))


def suite_of_text(text: str, source: str) -> dict[str, Any]:
    """Parse the JSON of a suite.

    :raises InvalidSpecError: it is not JSON or not an object
    """
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidSpecError(f"Suite {source!r} is not JSON: {error}.") from error
    if not isinstance(found, dict):
        raise InvalidSpecError(f"Suite {source!r} is not a JSON object with a name and a list of expectations.")
    return found


def unknown_type(name: str, known: Iterable[str]) -> InvalidSpecError:
    """Return the error for a check that does not exist."""
    return InvalidSpecError(
        f"There is no expectation {name!r}: {close_match(name, known)}"
        "See https://greatexpectations.io/expectations for all of them."
    )


def unknown_argument(check: Check, argument: str, known: Iterable[str]) -> InvalidSpecError:
    """Return the error for an argument a check does not have."""
    names = sorted(set(known) - set(_OURS))
    return InvalidSpecError(
        f"{check.type!r} has no argument {argument!r}: {close_match(argument, names)}It has {', '.join(names)}."
    )


def _check(entry: Any, number: int) -> Check:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("type"), str):
        raise InvalidSpecError(f"Expectation {number} has no type. Write {{'type': ..., 'kwargs': {{...}}}}.")
    _known_keys(entry, _CHECK_KEYS, f"Expectation {number}")
    kwargs = entry.get("kwargs") or {}
    severity = str(entry.get("severity") or (entry.get("meta") or {}).get("severity") or "critical")
    if severity not in SEVERITIES:
        raise InvalidSpecError(f"Expectation {number} has severity {severity!r}; known are {', '.join(SEVERITIES)}.")
    for key in _OURS:
        if key in kwargs:
            raise InvalidSpecError(f"Expectation {number} sets {key!r}, which the validator decides. Remove it.")
    return Check(entry["type"], dict(kwargs), severity)


def _known_keys(value: Mapping[str, Any], known: tuple[str, ...], what: str) -> None:
    for key in value:
        if key not in known:
            raise InvalidSpecError(f"{what} has an unknown key {key!r}: {close_match(key, known)}Remove it.")


def _refuse_code(value: Any) -> None:
    if isinstance(value, Mapping):
        for key in value:
            if key in _CODE:
                raise InvalidSpecError(f"A suite must not load code, but this one has {key!r}. Remove it.")
        condition = value.get("row_condition")
        if condition is not None and any(sign in json.dumps(condition) for sign in ("@", "__", "`")):
            raise InvalidSpecError(f"The row_condition {condition!r} may only compare columns with plain values.")
    if isinstance(value, (Mapping, list)):
        for item in value.values() if isinstance(value, Mapping) else value:
            _refuse_code(item)
