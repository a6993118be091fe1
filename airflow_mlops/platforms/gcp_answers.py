"""What an answer of a Google API other than success means to the caller. Pure.

Codes: https://cloud.google.com/apis/design/errors
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_mlops.core.errors import (
    ConflictError,
    InvalidSpecError,
    MlopsError,
    NotFoundError,
    PlatformUnavailableError,
    QuotaExceededError,
    redact,
)

LONGEST_PAUSE = 10.0
"""Seconds for which a server's Retry-After is obeyed at most, each time."""

LONGEST = 1000
"""Characters of the server's message that are passed on."""

QUOTA = "exceed quota limits"
"""Part of the message when machines are asked for that the project may not have, as opposed to requests a minute."""


class ThrottledError(PlatformUnavailableError):
    """The server refused to look at the request: it had no effect."""


def meaning(where: str, conn_id: str, fault: Any) -> MlopsError:
    """Return the error that tells the caller what to do about what Google's libraries raised."""
    if code := getattr(fault, "code", None):
        return refusal(where, int(code), str(getattr(fault, "message", fault)))
    kind = type(fault).__name__
    if kind in ("RefreshError", "DefaultCredentialsError") and not getattr(fault, "retryable", False):
        return InvalidSpecError(f"{where}: connection {conn_id!r} got no token ({kind}). Check its credentials.")
    told = redact(str(fault))[:300]
    return PlatformUnavailableError(f"{where}: no answer ({kind}: {told}). Check that connection {conn_id!r} is right.")


def refusal(where: str, code: int, message: str) -> MlopsError:
    """Return the error that tells the caller what to do about an answer."""
    told = f"{where}: {redact(message)[:LONGEST] or code}"
    if code == 429 and QUOTA in message:
        return QuotaExceededError(f"{told} Try again when others have ended, or have the quota raised.")
    if code in (401, 403):
        return InvalidSpecError(f"{told} Give the connection's account this right (HTTP {code}).")
    if code == 429 or code >= 500:
        error = ThrottledError if code == 429 else PlatformUnavailableError
        return error(f"{told} Try again later (HTTP {code}).")
    return _ERRORS.get(code, InvalidSpecError)(f"{told} (HTTP {code})")


_ERRORS: dict[int, type[MlopsError]] = {404: NotFoundError, 409: ConflictError}


def headers_of(fault: Any) -> Mapping[str, str]:
    """Return the headers of the answer that a fault stands for; none if there was no answer."""
    found: Mapping[str, str] = getattr(getattr(fault, "response", None), "headers", {})
    return found
