"""Lists as the server makes them: a filter of predicates, an order, and pages that go on where the last one ended.

Source of the rules: ``backend/src/apiserver/{filter,list}`` of https://github.com/kubeflow/pipelines.
"""

from __future__ import annotations

import base64
import json
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from airflow_mlops.testing.kfp.problems import Json, bad_input
from airflow_mlops.testing.kfp.schema import check

PAGE, LARGEST_PAGE = 20, 200
VALUES = ("int_value", "long_value", "string_value", "timestamp_value", "int_values", "long_values", "string_values")

OPERATIONS: dict[str, Callable[[Any, Any], bool]] = {
    "EQUALS": lambda found, wanted: bool(found == wanted),
    "NOT_EQUALS": lambda found, wanted: bool(found != wanted),
    "GREATER_THAN": lambda found, wanted: bool(found > wanted),
    "GREATER_THAN_EQUALS": lambda found, wanted: bool(found >= wanted),
    "LESS_THAN": lambda found, wanted: bool(found < wanted),
    "LESS_THAN_EQUALS": lambda found, wanted: bool(found <= wanted),
    "IN": lambda found, wanted: found in wanted["values"],
    "IS_SUBSTRING": lambda found, wanted: str(wanted).lower() in str(found).lower(),
}


def page(key: str, items: Sequence[Json], query: Mapping[str, str], fields: Mapping[str, str], id_field: str) -> Json:
    """Return one page of *items*, by ``filter``, ``sort_by``, ``page_size`` and ``page_token`` of the query.

    :param key: name of the list in the answer
    :param fields: what can be filtered and sorted by -> where it is in an item
    :param id_field: makes the order a total one
    :raises Problem: 400, the query is wrong
    """
    kept = [item for item in items if _fits(item, _predicates(query.get("filter", "")), fields)]
    order, is_descending = _order(query.get("sort_by", ""), fields)
    kept.sort(key=lambda item: (item.get(order, ""), item[id_field]), reverse=is_descending)
    size, start = _size(query.get("page_size", "")), 0
    criteria = [query.get("filter", ""), query.get("sort_by", "")]
    if token := query.get("page_token", ""):
        start = _position(token, criteria, [item[id_field] for item in kept])
    answer: Json = {key: kept[start : start + size], "total_size": len(kept)}
    if start + size < len(kept):
        after = json.dumps([criteria, kept[start + size][id_field]]).encode()
        answer["next_page_token"] = base64.b64encode(after).decode()
    return {name: value for name, value in answer.items() if value}


def _predicates(text: str) -> list[Json]:
    """Parse a filter. The server unquotes it once more than other parameters."""
    if not text:
        return []
    try:
        found = json.loads(urllib.parse.unquote_plus(text))
    except ValueError as error:
        raise bad_input(f'failed to parse valid filter from "{text}": {error}') from None
    check("V2beta1Filter", found)
    return list(found.get("predicates", []))


def _fits(item: Json, predicates: list[Json], fields: Mapping[str, str]) -> bool:
    return all(_fits_one(item, predicate, fields) for predicate in predicates)


def _fits_one(item: Json, predicate: Json, fields: Mapping[str, str]) -> bool:
    given = [value for value in VALUES if value in predicate]
    operation = predicate.get("operation", "OPERATION_UNSPECIFIED")
    if predicate.get("key") not in fields:
        raise bad_input(f'no support for filtering on unrecognized field "{predicate.get("key")}"')
    if operation not in OPERATIONS or len(given) != 1:
        raise bad_input(f"invalid predicate operation: {operation} with {given}")
    if (operation == "IN") != given[0].endswith("values"):
        raise bad_input(f"cannot use operator {operation} on {given[0]}")
    return OPERATIONS[operation](item.get(fields[predicate["key"]], ""), predicate[given[0]])


def _order(text: str, fields: Mapping[str, str]) -> tuple[str, bool]:
    words = text.lower().split() or ["created_at"]
    if len(words) > 2 or words[1:] not in ([], ["asc"], ["desc"]):
        raise bad_input(f'Received invalid sort by format "{text}"')
    if words[0] not in fields:
        raise bad_input(f'Invalid sorting field: "{words[0]}"')
    return fields[words[0]], words[1:] == ["desc"]


def _size(text: str) -> int:
    if not text.lstrip("-").isdigit() and text:
        raise bad_input(f'parsing "{text}": invalid syntax')
    size = int(text or 0)
    if size < 0:
        raise bad_input(f"The page size should be greater than 0. Got {size}")
    return min(size or PAGE, LARGEST_PAGE)


def _position(token: str, criteria: list[str], ids: list[str]) -> int:
    try:
        before, first = json.loads(base64.b64decode(token))
    except ValueError:
        raise bad_input("Invalid page token") from None
    if any(criteria) and before != criteria:
        raise bad_input("page token does not match the supplied sort by and/or filtering criteria")
    return ids.index(first) if first in ids else len(ids)
