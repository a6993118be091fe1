"""What a run says about who started it: one line in its description.

Pure. Servers before 2.15 keep descriptions in 255 characters, and a longer one costs a run that nobody can find; so an
owner with very long names is left out, never cut.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import Any

from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.core.identity import TaskIdentity

WORD = "airflow-mlops"
LONGEST = 255
LONGEST_NAME = 128
_DIGEST = 32
"""Hexadecimal digits of the spec's SHA-256 that are kept."""


@dataclass(frozen=True)
class Mark:
    """Who started a run, of which spec, in which namespace. The owner is unknown where it did not fit."""

    spec: str
    namespace: str = ""
    owner: TaskIdentity | None = None

    @classmethod
    def of(cls, digest: str, namespace: str, owner: TaskIdentity | None) -> Mark:
        """Return the mark of a spec with *digest*, a ``sha256:<hex>``."""
        return cls(digest.removeprefix("sha256:")[:_DIGEST], namespace, owner)

    def write(self, longest: int = LONGEST) -> str:
        """Return the description that carries the mark, in at most so many characters."""
        found = {"spec": self.spec} | ({"ns": self.namespace} if self.namespace else {})
        owner = (
            {key: value for key, value in self.owner.to_dict().items() if value != _DEFAULTS[key]} if self.owner else {}
        )
        text = _line({**found, **owner})
        return text if len(text) <= longest else _line(found)

    @classmethod
    def read(cls, description: str) -> Mark | None:
        """Return the mark in a description, or ``None`` when the run is not ours."""
        word, _, text = description.partition(" ")
        try:
            found = json.loads(text) if word == WORD else None
            return None if found is None else cls._of(found)
        except (ValueError, TypeError, AttributeError, InvalidSpecError):
            return None

    @classmethod
    def _of(cls, found: dict[str, Any]) -> Mark:
        spec, namespace = str(found.pop("spec")), str(found.pop("ns", ""))
        return cls(spec, namespace, TaskIdentity.from_dict(found) if found else None)


_DEFAULTS = TaskIdentity("", "", "").to_dict()


def _line(found: dict[str, Any]) -> str:
    return f"{WORD} {json.dumps(found, separators=(',', ':'), ensure_ascii=False)}"


def run_id(name: str) -> str:
    """Return the id of the run called *name*: a UUID, the same on every try."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{WORD}/{name}"))


def display_name(name: str, owner: TaskIdentity) -> str:
    """Return what people see in the list of runs: the stable name, and whose it is."""
    return f"{name} {owner.dag_id}.{owner.task_id}"[:LONGEST_NAME]
