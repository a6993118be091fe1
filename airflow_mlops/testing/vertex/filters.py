"""List filters of AIP-160 as far as our clients use them: comparisons joined by AND. Anything else is refused.

https://google.aip.dev/160
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

from airflow_mlops.testing.vertex.problems import Problem, bad

OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_TERM = re.compile(r'\s*([A-Za-z_][\w.]*)\s*(!=|<=|>=|=|<|>)\s*"([^"]*)"\s*')

Get = Callable[[str], Any]
"""Returns the value of a field of one item, such as ``labels.team``."""


def matcher(text: str, allowed: tuple[str, ...]) -> Callable[[Get], bool]:
    """Return what tells whether an item matches.

    :param allowed: fields that may be compared; ``labels`` stands for all of its keys
    :raises Problem: the filter is wrong, or not modelled
    """
    terms = []
    for part in re.split(r"\bAND\b", text) if text.strip() else []:
        found = _TERM.fullmatch(part)
        if found is None:
            raise Problem("UNIMPLEMENTED", f"The Vertex AI fake does not model the filter {part.strip()}.")
        field, sign, value = found.groups()
        if field.partition(".")[0] not in allowed and field not in allowed:
            raise bad(f"Invalid filter: field {field} is not supported.")
        terms.append((field, OPERATORS[sign], value))
    return lambda get: all(compare(*_comparable(field, get(field), value)) for field, compare, value in terms)


def _comparable(field: str, own: Any, given: str) -> tuple[Any, Any]:
    if field in ("timestamp", "create_time"):
        return nanoseconds(own), nanoseconds(given)
    return str(own), given


def nanoseconds(text: str) -> int:
    """Return an RFC 3339 time with up to nine digits as nanoseconds since 1970.

    :raises Problem: it is none
    """
    moment, _, fraction = text.removesuffix("Z").partition(".")
    try:
        seconds = int(datetime.fromisoformat(f"{moment}+00:00").timestamp())
    except ValueError:
        raise bad(f"Invalid filter: {text} is no time.") from None
    return seconds * 10**9 + int(fraction.ljust(9, "0") or 0)
