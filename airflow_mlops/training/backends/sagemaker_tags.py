"""Who owns a job, as its tags: readable in the console, and usable to split costs by DAG, task and run. Pure.

A tag's value has at most 256 letters, digits and ``_.:/=+-@``. Anything else in an id is written as ``=`` and two
hexadecimal digits a byte, so that nothing is lost.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_Tag.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.core.identity import TaskIdentity

MARK = "airflow-mlops"
"""A tag on every job of ours; its value is the version of this scheme."""

PREFIX = "airflow-mlops:"
MOST, LONGEST = 50, 256
_PLAIN = re.compile(r"[^A-Za-z0-9_.:/+\-@]")
_ESCAPED = re.compile(r"(?:=[0-9A-F]{2})+")
_DEFAULTS = TaskIdentity("", "", "").to_dict()


def tags_of(owner: TaskIdentity, further: Mapping[str, str]) -> list[dict[str, str]]:
    """Return the tags of a job: those that name its owner, and *further* ones.

    :raises InvalidSpecError: there are too many, one is too long, or one of *further* is ours
    """
    own = {PREFIX + name: escaped(str(value)) for name, value in owner.to_dict().items() if value != _DEFAULTS[name]}
    found = {MARK: "1", **own}
    for key, value in further.items():
        if key in found or key.startswith(PREFIX):
            raise InvalidSpecError(f"The tag {key!r} is written by this package. Choose another key.")
        found[key] = str(value)
    if long := [key for key, value in found.items() if len(value) > LONGEST]:
        raise InvalidSpecError(f"The tag {long[0]!r} has {len(found[long[0]])} characters. SageMaker takes {LONGEST}.")
    if len(found) > MOST:
        raise InvalidSpecError(f"The job would have {len(found)} tags. SageMaker takes {MOST}: leave some out.")
    return [{"Key": key, "Value": value} for key, value in found.items()]


def owner_of(tags: Iterable[Mapping[str, Any]]) -> TaskIdentity | None:
    """Return the owner that the tags of a job name, or ``None`` when it is not ours or they cannot be read."""
    found = {tag["Key"]: tag["Value"] for tag in tags}
    fields: dict[str, Any] = {key[len(PREFIX) :]: unescaped(found[key]) for key in found if key.startswith(PREFIX)}
    try:
        if "map_index" in fields:
            fields["map_index"] = int(fields["map_index"])
        return TaskIdentity.from_dict(fields) if MARK in found else None
    except ValueError:
        return None


def escaped(text: str) -> str:
    """Return *text* in the letters that a tag's value may have."""
    return _PLAIN.sub(lambda found: "".join(f"={byte:02X}" for byte in found[0].encode()), text)


def unescaped(text: str) -> str:
    """Return what :func:`escaped` was given."""
    return _ESCAPED.sub(lambda found: bytes.fromhex(found[0].replace("=", "")).decode(errors="replace"), text)
