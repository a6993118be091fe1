"""Lists as SageMaker makes them: filters, an order, pages that go on where the last one ended, and searches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from airflow_mlops.testing.sagemaker.problems import Json, invalid

DEFAULT_PAGE = 10
TIMES = ("Creation", "LastModified")


def page(items: Sequence[Json], body: Json, key: str) -> Json:
    """Return one page of *items* under *key*."""
    start, size = int(body.get("NextToken", "0")), body.get("MaxResults", DEFAULT_PAGE)
    answer: Json = {key: list(items[start : start + size])}
    if start + size < len(items):
        answer["NextToken"] = str(start + size)
    return answer


def within(item: Json, body: Json, names: Sequence[str] = TIMES) -> bool:
    """Say whether the times of an item are between those that a request gives."""
    for name in names:
        at = item[f"{name}Time"].timestamp()
        after, before = body.get(f"{name}TimeAfter"), body.get(f"{name}TimeBefore")
        if (after is not None and at <= after) or (before is not None and at >= before):
            return False
    return True


def matches(item: Json, expression: Json) -> bool:
    """Say whether an item fulfils a search expression.

    :raises Problem: it names a property that the item's kind does not have, or what the fake does not model
    """
    if "NestedFilters" in expression:
        raise invalid("The fake does not model NestedFilters")
    found = [_fits(item, one) for one in expression.get("Filters", [])]
    found += [matches(item, one) for one in expression.get("SubExpressions", [])]
    if not found:
        raise invalid("A search expression needs at least one subexpression, filter, or nested filter")
    return any(found) if expression.get("Operator") == "Or" else all(found)


OPERATORS: dict[str, Callable[[Any, str], bool]] = {
    "Equals": lambda found, wanted: bool(found is not None and _text(found) == wanted),
    "NotEquals": lambda found, wanted: bool(found is None or _text(found) != wanted),
    "Exists": lambda found, _: found is not None,
    "NotExists": lambda found, _: found is None,
    "In": lambda found, wanted: found is not None and _text(found) in wanted.split(","),
    "Contains": lambda found, wanted: found is not None and wanted.lower() in _text(found).lower(),
    "GreaterThan": lambda found, wanted: found is not None and _moment(found) > _moment(wanted),
    "LessThan": lambda found, wanted: found is not None and _moment(found) < _moment(wanted),
}


def _fits(item: Json, one: Json) -> bool:
    operator = one.get("Operator", "Equals")
    if operator not in OPERATORS:
        raise invalid(f"The fake does not model the operator {operator}")
    if ("Value" in one) == (operator in ("Exists", "NotExists")):
        raise invalid(f"Value must be given with every operator but Exists and NotExists, not with {operator}")
    return OPERATORS[operator](_property(item, one["Name"]), one.get("Value", ""))


def _property(item: Json, name: str) -> Any:
    group, _, key = name.partition(".")
    if group == "Tags":
        return next((tag["Value"] for tag in item.get("Tags", []) if tag["Key"] == key), None)
    if group == "HyperParameters":
        return item.get("HyperParameters", {}).get(key)
    if name not in item:
        raise invalid(f"Unknown property name: {name}")
    return item[name]


def _moment(value: Any) -> datetime:
    if not isinstance(value, (datetime, str)):
        raise invalid(f"{value!r} cannot be compared")
    if isinstance(value, datetime):
        return value
    try:
        return datetime.strptime(value, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        raise invalid(f"{value!r} is no moment of the form YYYY-mm-dd'T'HH:MM:SS") from None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value)
