"""How errors become HTTP answers. A client gets one sentence; nothing of the stack, the files or others' data."""

from __future__ import annotations

import logging

from starlette.requests import Request
from starlette.responses import JSONResponse

from airflow_mlops.core.errors import (
    ConflictError,
    IntegrityError,
    InvalidSpecError,
    MlopsError,
    NotFoundError,
    PlatformUnavailableError,
)
from airflow_mlops.serving.gateway import NoTrafficError

MAX_BODY = 32 * 2**20

_log = logging.getLogger(__name__)


class TooLargeError(InvalidSpecError):
    """The body is larger than the gateway takes."""


STATUS: tuple[tuple[type[MlopsError], int], ...] = (
    (TooLargeError, 413),
    (NotFoundError, 404),
    (InvalidSpecError, 400),
    (IntegrityError, 400),
    (ConflictError, 409),
    (NoTrafficError, 503),
    (PlatformUnavailableError, 503),
)
"""Our errors by HTTP status; the first that fits."""


def refusal(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return ``{"error": message}``; a 503 says when to come back."""
    again = {"retry-after": "1"} if status == 503 else {}
    return JSONResponse({"error": message}, status, headers=again | (headers or {}))


async def answer_error(_request: Request, error: Exception) -> JSONResponse:
    """Answer an error raised on purpose."""
    status = next((code for kind, code in STATUS if isinstance(error, kind)), 500)
    return refusal(status, str(error))


async def answer_crash(request: Request, error: Exception) -> JSONResponse:
    """Answer an error that nobody foresaw: its class goes to the log, the client learns nothing more."""
    _log.error("%s %s failed: %s", request.method, request.url.path, type(error).__name__)
    return refusal(500, "The gateway failed. Its log says more.")


async def read_body(request: Request) -> bytes:
    """Return the body.

    :raises TooLargeError: it has more than 32 MiB
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise TooLargeError(f"The body has more than {MAX_BODY} bytes. Send fewer rows at once.")
    return bytes(body)
