"""What an answer of a Kubernetes API other than success means to the caller. Pure.

Reasons and codes: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/
"""

from __future__ import annotations

import json

from airflow_mlops.core.errors import (
    ConflictError,
    InvalidSpecError,
    MlopsError,
    NotFoundError,
    PlatformUnavailableError,
    redact,
)

LONGEST = 1000
"""Characters of the server's message that are passed on."""


class QuotaError(PlatformUnavailableError):
    """The namespace may not use that much now. It may later."""

    passing = False
    """Asking again within seconds is of no use."""


class ExpiredError(PlatformUnavailableError):
    """A list or watch cannot go on from so old a version. List again."""

    passing = False


def is_quota(message: str) -> bool:
    """Say whether a message is that of a ResourceQuota."""
    return "exceeded quota" in message


def is_denied(message: str) -> bool:
    """Say whether an admission webhook refused the object itself, which no right would change."""
    return "admission webhook" in message and "denied the request" in message


def refusal(where: str, code: int, body: bytes | str, *, is_secret: bool = False) -> MlopsError:
    """Return the error that tells the caller what to do about an answer.

    :param is_secret: the request held the value of a secret, which the server may quote
    """
    reason, told = _told(body)
    message = f"{where}: {told}" if told and not (is_secret and code in (400, 422)) else f"{where}: {reason or code}."
    if code == 403 and is_quota(told):
        return QuotaError(f"{message} Try again when others have ended, or have the quota raised.")
    if code == 403 and is_denied(told):
        return InvalidSpecError(f"{message} (HTTP {code})")
    if code in (401, 403):
        return InvalidSpecError(f"{message} Give the connection's account this right (HTTP {code}).")
    if code in _ERRORS:
        return _ERRORS[code](message)
    if code == 429 or code >= 500:
        return PlatformUnavailableError(f"{message} Try again later (HTTP {code}).")
    return InvalidSpecError(f"{message} (HTTP {code})")


_ERRORS: dict[int, type[MlopsError]] = {404: NotFoundError, 409: ConflictError, 410: ExpiredError}


def _told(body: bytes | str) -> tuple[str, str]:
    """Return the reason and the message of a Status object; of another answer nothing is passed on."""
    try:
        found = json.loads(body)
    except ValueError:
        return "", ""
    if not isinstance(found, dict):
        return "", ""
    return str(found.get("reason") or ""), redact(str(found.get("message") or ""))[:LONGEST]
