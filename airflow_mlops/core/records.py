"""Frozen dataclasses that travel between tasks as plain dicts.

Airflow's XCom refuses objects of other packages, so every value that leaves a task is a dict of JSON values. A
:class:`Record` knows the way there and back; unknown keys are refused, so that a typo is not lost in silence.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from functools import cache
from typing import Any, Self

from airflow_mlops.core.errors import InvalidSpecError, close_match


@dataclasses.dataclass(frozen=True)
class Record:
    """Base of the values that travel: immutable, comparable, with ``to_dict`` and ``from_dict``."""

    def to_dict(self) -> dict[str, Any]:
        """Return a dict of JSON values: enums by value, tuples as lists, datetimes as ISO 8601."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Build the record that :meth:`to_dict` described.

        :raises InvalidSpecError: a key is unknown, a required one is missing or *value* is not a mapping
        """
        _require_mapping(cls.__name__, value)
        hints = _hints(typing.cast(Any, cls))
        for key in value:
            if key not in hints:
                raise InvalidSpecError(
                    f"{cls.__name__} has no field {key!r}: {close_match(str(key), hints)}It has {', '.join(hints)}."
                )
        try:
            return cls(**{key: _typed(item, hints[key]) for key, item in value.items()})
        except InvalidSpecError:
            raise
        except (TypeError, AttributeError, ValueError) as error:
            raise InvalidSpecError(f"{cls.__name__} cannot be built from {sorted(value)!r}: {error}.") from error


def _require_mapping(name: str, value: object) -> None:
    if not isinstance(value, Mapping):
        raise InvalidSpecError(f"{name} is built from a mapping, got {value!r}.")


@cache
def _hints(cls: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_dict()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, frozenset)):
        return [_plain(item) for item in value]
    return value


def _typed(value: Any, hint: Any) -> Any:
    if value is None:
        return None
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return _typed(value, next(arg for arg in args if arg is not type(None)))
    if origin is tuple:
        return tuple(_typed(item, args[0]) for item in value)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {key: _typed(item, args[1]) for key, item in value.items()}
    return _scalar(value, hint)


def _scalar(value: Any, hint: Any) -> Any:
    if isinstance(hint, type) and issubclass(hint, Record):
        return value if isinstance(value, hint) else hint.from_dict(value)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint(value)
    return datetime.fromisoformat(value) if hint is datetime and isinstance(value, str) else value
