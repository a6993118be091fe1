"""The steps of a group, some of them swapped for the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_mlops.core.errors import InvalidSpecError, close_match


def pick_steps(known: Mapping[str, Any], swapped: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return step -> operator class.

    :raises InvalidSpecError: *swapped* names a step that the group does not have
    """
    for name in swapped or {}:
        if name not in known:
            raise InvalidSpecError(f"There is no step {name!r}: {close_match(name, known)}Steps: {', '.join(known)}.")
    return {**known, **(swapped or {})}
