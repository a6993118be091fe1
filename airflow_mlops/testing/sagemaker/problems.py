"""What the services refuse, as the JSON or XML that real ones send.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/CommonErrors.html
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

STATUS = {"InternalFailure": 500, "ServiceUnavailable": 503, "AccessDenied": 403, "NoSuchKey": 404, "NoSuchBucket": 404}
"""HTTP status of codes other than 400."""


class Problem(Exception):  # noqa: N818 - an answer, not a fault of the server
    """An answer other than success."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message, self.status = code, message, STATUS.get(code, 400)

    def body(self) -> Json:
        """Return the body of the answer of a JSON service."""
        return {"__type": self.code, "message": self.message}

    def xml(self) -> bytes:
        """Return the body of the answer of S3."""
        return f"<Error><Code>{self.code}</Code><Message>{self.message}</Message></Error>".encode()


def invalid(message: str) -> Problem:
    """Return the refusal of a request."""
    return Problem("ValidationException", message)


def not_found() -> Problem:
    """Return what SageMaker says of a training job that is not there."""
    return invalid("Requested resource not found.")
