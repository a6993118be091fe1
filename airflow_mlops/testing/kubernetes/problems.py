"""What the server refuses, as the Status object that a real API server sends.

Reasons and codes are those of https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/.
A problem must never be softened into a success: what the fake does not model answers 501 and says so.
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

CODES = {
    "BadRequest": 400,
    "Unauthorized": 401,
    "Forbidden": 403,
    "NotFound": 404,
    "MethodNotAllowed": 405,
    "AlreadyExists": 409,
    "Conflict": 409,
    "Expired": 410,
    "UnsupportedMediaType": 415,
    "Invalid": 422,
    "TooManyRequests": 429,
    "InternalError": 500,
    "NotImplemented": 501,
    "ServiceUnavailable": 503,
    "Timeout": 504,
}


class Problem(Exception):  # noqa: N818 - an answer, not a fault of the server
    """An answer other than success: *reason* is one of ``CODES``, *message* is for people."""

    def __init__(self, reason: str, message: str, *, causes: list[Json] | None = None, retry_after: int | None = None):
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.causes = causes or []
        self.retry_after = retry_after
        self.code = CODES[reason]

    def status(self) -> Json:
        """Return the body of the answer."""
        details: Json = {}
        if self.causes:
            details["causes"] = self.causes
        if self.retry_after is not None:
            details["retryAfterSeconds"] = self.retry_after
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "details": details,
            "code": self.code,
        }


def invalid(kind: str, name: str, causes: list[Json]) -> Problem:
    """Return the 422 that lists every wrong field of one object."""
    told = ", ".join(f"{cause['field']}: {cause['message']}" for cause in causes)
    return Problem("Invalid", f'{kind} "{name}" is invalid: {told}', causes=causes)


def cause(reason: str, field: str, message: str) -> Json:
    """Return one wrong field of an object; *reason* is such as ``FieldValueInvalid``."""
    return {"reason": reason, "field": field, "message": message}


def required(field: str) -> Json:
    """Return the cause of a field that must be given and is not."""
    return cause("FieldValueRequired", field, "Required value")


def not_modelled(what: str) -> Problem:
    """Return the 501 for what a real server does and this one does not."""
    return Problem("NotImplemented", f"The Kubernetes fake does not model {what}.")
