"""Which revision answers a request. Pure: the caller brings the random number or the sticky key.

Revisions share the range 0 to 100 in the order of their age, so a canary that grows keeps the keys it already had.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping


def choose(traffic: Mapping[str, float], point: float) -> str | None:
    """Return the revision whose part of the range holds *point* (0 <= point < 100), or ``None`` without traffic.

    :param traffic: revision -> percent, oldest revision first
    """
    reached, last = 0.0, None
    for revision, percent in traffic.items():
        if percent <= 0:
            continue
        reached, last = reached + percent, revision
        if point < reached:
            return revision
    return last


def sticky_point(endpoint: str, key: str) -> float:
    """Return the point, 0 <= point < 100, at which *key* always stands on *endpoint*."""
    digest = hashlib.sha256(f"{endpoint}\0{key}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48 * 100.0
