"""What the server refuses, as the ``google.rpc.Status`` that a real one sends.

Names and numbers are those of gRPC, the HTTP codes those of its gateway:
https://github.com/grpc-ecosystem/grpc-gateway (``HTTPStatusFromCode``).
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

CODES = {
    "INVALID_ARGUMENT": (3, 400),
    "NOT_FOUND": (5, 404),
    "ALREADY_EXISTS": (6, 409),
    "PERMISSION_DENIED": (7, 403),
    "RESOURCE_EXHAUSTED": (8, 429),
    "UNIMPLEMENTED": (12, 501),
    "INTERNAL": (13, 500),
    "UNAVAILABLE": (14, 503),
    "UNAUTHENTICATED": (16, 401),
}


class Problem(Exception):  # noqa: N818 - an answer, not a fault of the server
    """An answer other than success: *reason* is one of ``CODES``, *message* is for people."""

    def __init__(self, reason: str, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.message, self.retry_after = message, retry_after
        self.number, self.code = CODES[reason]

    def status(self) -> Json:
        """Return the body of the answer."""
        detail = {"@type": "type.googleapis.com/google.rpc.Status", "code": self.number, "message": self.message}
        return {"code": self.number, "message": self.message, "details": [detail]}


def bad_input(what: str) -> Problem:
    """Return the refusal of a request."""
    return Problem("INVALID_ARGUMENT", f"Invalid input error: {what}")


def hidden_bad_input(step: str, what: str) -> Problem:
    """Return the refusal of a request as the server often sends it: as an error of its own."""
    return Problem("INTERNAL", f"Failed to create a new run: InternalServerError: {step}: Invalid input error: {what}")


def not_found(kind: str, name: str) -> Problem:
    """Return the 404 for one thing."""
    return Problem("NOT_FOUND", f"ResourceNotFoundError: {kind} {name} not found")
