"""Where data may go: checked before a job is submitted. Pure.

Data that says where it has to stay goes only to a platform whose connection says that it is there. Nothing is guessed
from addresses. It must never let data pass because somebody forgot to say where a platform is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import InvalidSpecError, ResidencyError

EXTRA = "residency"
"""Extra of any connection of a training or pipeline backend: where the platform is, a name or a list of names."""

ON_PREM = "on-prem"
ASSUMED: Mapping[str, tuple[str, ...]] = {"local": (ON_PREM,)}
"""Where a backend is whose connection does not say. All others are nowhere: no data with a residency goes there."""


def place(value: Any, what: str) -> str:
    """Return the name of a place in its one spelling: lower case, no blanks around it.

    :param what: whose it is, for the message
    :raises InvalidSpecError: it is not a text, or an empty one
    """
    if not isinstance(value, str) or not value.strip():
        raise InvalidSpecError(f"The residency of {what} is {value!r}. Give the name of a place, such as {ON_PREM!r}.")
    return value.strip().lower()


def split_places(info: ConnectionInfo, backend: str) -> tuple[ConnectionInfo, tuple[str, ...]]:
    """Return the connection without the extra ``residency``, for the backend, and where the platform is.

    :raises InvalidSpecError: the extra is neither a name nor a list of names
    """
    found = info.extra.get(EXTRA)
    rest = replace(info, extra={key: value for key, value in info.extra.items() if key != EXTRA})
    if found is None:
        return rest, ASSUMED.get(backend, ())
    names = found if isinstance(found, (list, tuple)) else [found]
    return rest, tuple(place(name, f"connection {info.conn_id!r}") for name in names)


def require_residency(carried: Mapping[str, str], places: tuple[str, ...], *, backend: str, conn_id: str) -> None:
    """Refuse what may not go to a platform.

    :param carried: what is sent, in words, and its residency; an empty one goes anywhere
    :param places: where the platform is
    :raises ResidencyError: the platform is not where something has to stay
    """
    for what, residency in carried.items():
        if residency and place(residency, what) not in places:
            raise ResidencyError(what, residency, backend, conn_id, places)


def carried_by(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the residency of every data version among *values*, however it is wrapped, by where it stands."""
    found: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            own = value.get(EXTRA) if "digest" in value else ""
            found |= {name: str(own)} if own else {}
            found |= {f"{name}.{key}": told for key, told in carried_by(value).items()}
        elif isinstance(value, (list, tuple)):
            found |= carried_by({f"{name}[{index}]": item for index, item in enumerate(value)})
    return found
