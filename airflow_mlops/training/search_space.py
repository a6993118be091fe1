"""Which parameter sets a sweep may try, as plain JSON values: ranges of numbers and lists of choices.

Pure. What cannot be searched is refused by the parameter's name before anything starts.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.errors import InvalidSpecError, close_match
from airflow_mlops.training.contract import TrainingSpec
from airflow_mlops.training.launch import command_line

if TYPE_CHECKING:
    from typing_extensions import TypeIs

INT, FLOAT = "int", "float"

Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class Range:
    """Numbers from *low* to *high*, both included.

    :param step: distance between two neighbours; ``None`` for any number of the range
    :param log: whether the order of magnitude counts rather than the difference; not together with *step*
    :param type: ``float`` or ``int``
    """

    low: float
    high: float
    step: float | None = None
    log: bool = False
    type: str = FLOAT

    def size(self) -> int | None:
        """Return how many values there are, or ``None`` when they cannot be counted."""
        if self.low == self.high:
            return 1
        return None if self.step is None else int((_exact(self.high) - _exact(self.low)) / _exact(self.step)) + 1

    def values(self) -> tuple[Scalar, ...]:
        """Return all values, in order. Ask for their number first."""
        kind = int if self.type == INT else float
        step = _exact(self.step or 0)
        return tuple(kind(_exact(self.low) + i * step) for i in range(self.size() or 0))

    def __contains__(self, value: object) -> bool:
        """Return whether *value* may be proposed."""
        if not is_number(value) or (self.type == INT and isinstance(value, float)):
            return False
        inside = self.low <= value <= self.high
        return inside and (self.step is None or (_exact(value) - _exact(self.low)) % _exact(self.step) == 0)


@dataclass(frozen=True)
class Choices:
    """One of a few values without an order: texts, numbers, true, false or null."""

    choices: tuple[Scalar, ...]

    def size(self) -> int:
        """Return how many values there are."""
        return len(self.choices)

    def values(self) -> tuple[Scalar, ...]:
        """Return all values."""
        return self.choices

    def __contains__(self, value: object) -> bool:
        """Return whether *value* may be proposed."""
        return any(type(value) is type(known) and value == known for known in self.choices)


Space = Mapping[str, Range | Choices]
"""Parameter -> what it may be."""


def read_space(space: Any) -> Space:
    """Return the search space that JSON values describe: parameter -> its range or its choices.

    >>> read_space({"depth": {"low": 2, "high": 8, "step": 2, "type": "int"}})["depth"].values()
    (2, 4, 6, 8)

    :raises InvalidSpecError: it is empty, or a parameter's name or description is wrong; the message names it
    """
    if not isinstance(space, Mapping) or not space:
        raise InvalidSpecError(f"The search space is {space!r}. Give parameter -> {{'low': 0, 'high': 1}} or choices.")
    command_line(TrainingSpec(("name",), parameters=space))  # refuses what is not the name of a flag
    return {name: _dimension(name, entry) for name, entry in space.items()}


def grid(space: Space, *, limit: int = 100_000) -> Iterator[dict[str, Scalar]]:
    """Return every parameter set of *space*, the last parameter changing fastest.

    :raises InvalidSpecError: a parameter has no countable values, or there are more than *limit* sets
    """
    sizes = {name: dimension.size() for name, dimension in space.items()}
    for name, size in sizes.items():
        if size is None:
            raise InvalidSpecError(f"A grid needs a 'step' or 'choices' for {name!r}: its values cannot be counted.")
    count = math.prod(size or 0 for size in sizes.values())
    if count > limit:
        raise InvalidSpecError(f"The grid has {count} parameter sets, at most {limit} can be handled. Use 'tpe'.")
    rows = itertools.product(*(dimension.values() for dimension in space.values()))
    return (dict(zip(space, values, strict=True)) for values in rows)


def fits(space: Space, parameters: Mapping[str, Any]) -> bool:
    """Return whether *parameters* have a possible value for every parameter of *space*."""
    return all(name in parameters and parameters[name] in dimension for name, dimension in space.items())


def is_number(value: object) -> TypeIs[int | float]:
    """Return whether *value* is a finite number, and neither true nor false."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _dimension(name: str, entry: Any) -> Range | Choices:
    kind = Choices if isinstance(entry, Mapping) and "choices" in entry else Range
    known = [field.name for field in fields(kind)]
    if not isinstance(entry, Mapping):
        raise _wrong(name, f"is {entry!r}. A value that never changes belongs to the fixed parameters")
    for key in entry:
        if key not in known:
            raise _wrong(name, f"has no {key!r}: {close_match(str(key), known)}It has {', '.join(known)}")
    return _choices(name, entry["choices"]) if kind is Choices else _range(name, entry)


def _choices(name: str, found: Any) -> Choices:
    if not isinstance(found, list | tuple) or not found:
        raise _wrong(name, f"has the choices {found!r}. Give a list with at least one value")
    for place, value in enumerate(found):
        if not (value is None or isinstance(value, str | bool) or is_number(value)):
            raise _wrong(name, f"has the choice {value!r}. A choice is a text, a finite number, true, false or null")
        if value in found[:place]:
            raise _wrong(name, f"has the choice {value!r} twice")
    return Choices(tuple(found))


def _range(name: str, entry: Mapping[str, Any]) -> Range:
    for key in ("low", "high"):
        if key not in entry:
            raise _wrong(name, f"has no {key!r}. Give low and high, or choices")
    if entry.get("type", FLOAT) not in (INT, FLOAT):
        raise _wrong(name, f"has the type {entry['type']!r}. It is {INT!r} or {FLOAT!r}")
    if not isinstance(entry.get("log", False), bool):
        raise _wrong(name, f"has log {entry['log']!r}. It is true or false")
    kind, log = (int if entry.get("type") == INT else float), entry.get("log", False)
    low, high = (_number(name, key, entry[key], kind) for key in ("low", "high"))
    given = entry.get("step")
    step = _number(name, "step", given, kind) if given is not None else 1 if kind is int and not log else None
    return _consistent(name, Range(low, high, step, log, kind.__name__))


def _number(name: str, key: str, value: Any, kind: type[int] | type[float]) -> float:
    if not is_number(value) or (kind is int and value != int(value)):
        raise _wrong(name, f"has {key} {value!r}. It is a {'whole' if kind is int else 'finite'} number")
    return kind(value)


def _consistent(name: str, found: Range) -> Range:
    low, high, step = found.low, found.high, found.step
    if low > high:
        raise _wrong(name, f"has low {low!r} above high {high!r}")
    if found.log and low <= 0:
        raise _wrong(name, f"has low {low!r} and log. A logarithm needs low above 0")
    if found.log and step is not None:
        raise _wrong(name, "has both log and step. Remove one")
    if step is not None and step <= 0:
        raise _wrong(name, f"has step {step!r}. It is above 0")
    if step is not None and (_exact(high) - _exact(low)) % _exact(step):
        raise _wrong(name, f"never reaches high {high!r} from low {low!r} in steps of {step!r}")
    return found


def _exact(value: float) -> Decimal:
    """Return the number that a person wrote: 0.1 and not the binary fraction next to it."""
    return Decimal(str(value))


def _wrong(name: str, what: str) -> InvalidSpecError:
    return InvalidSpecError(f"Parameter {name!r} of the search space {what}.")
