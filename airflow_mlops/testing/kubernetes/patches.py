"""Merge patches (RFC 7396) and what else a client may send as a patch.

For built-in kinds the Python client sends an object as a strategic merge patch unless told otherwise; without lists it
means the same as a merge patch. Custom kinds answer 415 to it, here as on a real server.
"""

from __future__ import annotations

import copy
from typing import Any

from airflow_mlops.testing.kubernetes.problems import Json, Problem, not_modelled

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
KNOWN = {MERGE, STRATEGIC, JSON_PATCH, "application/apply-patch+yaml"}


def patched(item: Json, patch: Any, content_type: str, *, is_custom: bool) -> Json:
    """Return a copy of *item* with the patch applied.

    :raises Problem: 415 unknown content type, 400 not a patch of that type, 501 not modelled (JSON patch, apply, lists
        in a strategic merge patch)
    """
    kind = content_type.partition(";")[0].strip()
    if kind not in KNOWN or (kind == STRATEGIC and is_custom):
        raise Problem("UnsupportedMediaType", f"the body of the request was in an unknown format: {kind!r}")
    if kind == JSON_PATCH and isinstance(patch, dict):
        raise Problem("BadRequest", "json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    if kind not in {MERGE, STRATEGIC}:
        raise not_modelled(f"patches of type {kind}")
    if not isinstance(patch, dict):
        raise Problem("BadRequest", "json: cannot unmarshal array into Go value of type map[string]interface {}")
    if kind == STRATEGIC and _has_list(patch):
        raise not_modelled("lists in a strategic merge patch")
    merged: Json = merge(item, patch)
    return merged


def merge(target: Any, patch: Any) -> Any:
    """Return *target* with *patch* merged in; null removes a key, a list replaces a list."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return copy.deepcopy(result)


def _has_list(value: Any) -> bool:
    return isinstance(value, list) or (isinstance(value, dict) and any(_has_list(one) for one in value.values()))
