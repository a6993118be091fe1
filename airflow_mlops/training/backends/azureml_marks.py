"""What a job of Azure Machine Learning says about whose it is: properties, which can be added but never changed. Pure.

A value that is too long for one property goes into several; nothing is ever cut.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.training.contract import JobSpec

Json = dict[str, Any]

TAG = "airflow-mlops"
"""Tag of every job we make. Lists can be asked for a tag, but not for its value."""

OWNER, SPEC, DATA = "mlops.owner", "mlops.spec", "mlops.data"
LONGEST = 1000
"""Characters of a property's value.

https://learn.microsoft.com/azure/machine-learning/resource-limits-capacity#runs
"""


def written(key: str, value: Mapping[str, Any]) -> dict[str, str]:
    """Return the properties that hold a JSON object: ``<key>``, and ``<key>.1`` and so on for what is too long."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    parts = [text[start : start + LONGEST] for start in range(0, len(text), LONGEST)]
    return {key if not number else f"{key}.{number}": part for number, part in enumerate(parts)}


def read(job: Json, key: str) -> dict[str, Any]:
    """Return the JSON object of :func:`written`, an empty one if it is absent or was written by somebody else."""
    try:
        found = json.loads("".join(_parts(job["properties"].get("properties") or {}, key)) or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _parts(properties: Mapping[str, str], key: str) -> Iterator[str]:
    number = 0
    while (name := key if not number else f"{key}.{number}") in properties:
        yield str(properties[name])
        number += 1


def marks(spec: JobSpec, owner: TaskIdentity) -> dict[str, str]:
    """Return the properties that say who owns a job and of which spec it is."""
    return {SPEC: spec.digest(), **written(OWNER, owner.to_dict())}


def digest(job: Json) -> str:
    """Return the digest of the spec that a job was made of, an empty text for a stranger's job."""
    return str((job["properties"].get("properties") or {}).get(SPEC) or "")
