"""Names that are the same on every try, so that a second submission finds the first one's job.

A name never contains the try number: a retry must find what the try before it started.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass

from airflow_mlops.core.records import Record


@dataclass(frozen=True)
class TaskIdentity(Record):
    """Which task of which run in which Airflow deployment. ``map_index`` is -1 for a task that is not mapped."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    deployment_id: str = ""


def stable_name(identity: TaskIdentity, *, prefix: str = "aml", generation: int = 0, attempt: int = 0) -> str:
    """Return ``<prefix>-<16 characters>``: lower-case letters and digits 2 to 7, DNS-1123 safe.

    :param generation: changes when the task is cleared, not when it is retried
    :param attempt: our own count of resubmissions, for example after a preemption
    """
    parts = (
        identity.deployment_id,
        identity.dag_id,
        identity.run_id,
        identity.task_id,
        str(identity.map_index),
        str(generation),
        str(attempt),
    )
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    return f"{prefix}-{base64.b32encode(digest).decode().lower()[:16]}"


def text_digest(text: str) -> str:
    """Return ``sha256:<hex>`` of *text* in UTF-8."""
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
