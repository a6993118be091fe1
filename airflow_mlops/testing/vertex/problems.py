"""What Google Cloud refuses, as the error that its JSON APIs send: https://cloud.google.com/apis/design/errors."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

CODES = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
}


class Problem(Exception):  # noqa: N818 - an answer, not a fault of the server
    """An answer other than success: *reason* is one of ``CODES``, *message* is for people."""

    def __init__(self, reason: str, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.reason, self.message, self.retry_after = reason, message, retry_after
        self.code = CODES[reason]

    def body(self) -> Json:
        """Return the body of the answer."""
        return {"error": {"code": self.code, "message": self.message, "status": self.reason}}


def bad(message: str) -> Problem:
    """Return the refusal of a request."""
    return Problem("INVALID_ARGUMENT", message)
