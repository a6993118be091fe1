"""Conditions of objects: one entry a type, a time of transition that moves only when the status does."""

from __future__ import annotations

from airflow_mlops.testing.kubernetes.defaults import now
from airflow_mlops.testing.kubernetes.problems import Json


def is_true(item: Json, kind: str) -> bool:
    """Say whether a condition of this type is there and ``True``."""
    return condition(item, kind).get("status") == "True"


def condition(item: Json, kind: str) -> Json:
    """Return the condition of this type, or an empty one."""
    found: list[Json] = (item.get("status") or {}).get("conditions") or []
    return next((one for one in found if one["type"] == kind), {})


def put(item: Json, kind: str, status: bool, reason: str = "", message: str = "") -> None:
    """Set a condition in place."""
    before = condition(item, kind)
    told = "True" if status else "False"
    moved = before["lastTransitionTime"] if before.get("status") == told else now()
    new = {"type": kind, "status": told, "lastProbeTime": now(), "lastTransitionTime": moved}
    new |= {key: value for key, value in (("reason", reason), ("message", message)) if value}
    others = [one for one in item["status"].get("conditions", []) if one["type"] != kind]
    item["status"]["conditions"] = [*others, new]
