"""One authenticated HTTP connection to Azure's REST APIs, with its answers turned into our errors.

No message, log line or representation may show a token, and no address that is signed. Whether a request may be sent
twice is the caller's to say.

Vendor pages: https://learn.microsoft.com/rest/api/azure/ and
https://learn.microsoft.com/azure/azure-resource-manager/management/request-limits-and-throttling
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from airflow_mlops.core.errors import (
    ConflictError,
    InvalidSpecError,
    MlopsError,
    NotFoundError,
    PlatformUnavailableError,
    QuotaExceededError,
    redact,
)
from airflow_mlops.platforms.azure import AzureTokens
from airflow_mlops.platforms.http import persist, trusted

LONGEST_PAUSE = 20.0
TIMEOUT = 60.0

_QUOTA = ("QuotaExceeded", "OperationNotAllowed")
"""Codes of refusals for lack of quota.

https://learn.microsoft.com/azure/azure-resource-manager/troubleshooting/error-resource-quota
"""

_WAIT = ("TooManyRequests", "RequestTimeout", "ServerTimeout")


class AzureRest:
    """Sends requests. One that may be repeated is tried four times; ``Retry-After`` is honoured up to 20 seconds."""

    def __init__(self, tokens: AzureTokens, conn_id: str, options: Mapping[str, Any]) -> None:
        self.tokens, self.conn_id = tokens, conn_id
        self._http = httpx.Client(
            verify=trusted(options.get("verify", True)),
            timeout=float(options.get("timeout", TIMEOUT)),
            follow_redirects=False,
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def json(
        self,
        method: str,
        url: str,
        audience: str,
        *,
        repeat: bool = True,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return the JSON object that answers a request, an empty one for no content.

        :param audience: the API that the token is for
        :param repeat: whether sending it twice does no more than sending it once
        :raises NotFoundError: what was asked for does not exist
        :raises ConflictError: what was to be created exists
        :raises QuotaExceededError: the account may not use that much now
        :raises InvalidSpecError: the request or the credentials were refused
        :raises PlatformUnavailableError: the service was away, too slow, too busy or failed on its side
        """
        more = {} if body is None else {"json": dict(body)}
        answer = self._send(method, url, audience, repeat=repeat, params=params, **more)
        try:
            found = answer.json() if answer.content else {}
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise InvalidSpecError(
                f"{_shown(url)} answered with something that is not Azure's API. Check the endpoint."
            )
        return found

    def fetch(self, url: str, start: int = 0, length: int = 0) -> bytes | None:
        """Return bytes of a signed address, ``None`` when there is nothing there or nothing from *start* on."""
        span = {"Range": f"bytes={start}-{start + length - 1 if length else ''}"}
        try:
            return self._send("GET", url, "", repeat=True, headers=span).content
        except NotFoundError:
            return None

    def _send(self, method: str, url: str, audience: str, *, repeat: bool, **kwargs: Any) -> httpx.Response:
        headers = dict(kwargs.pop("headers", {}))

        def send() -> httpx.Response:
            if audience:
                headers["Authorization"] = f"Bearer {self.tokens.token(audience)}"
            return self._http.request(method, url, headers=headers, **kwargs)

        return persist(
            send,
            lambda refused: _error(refused, _shown(url), self.conn_id),
            lambda error: self._unreachable(url, error),
            repeat=repeat,
            longest_pause=LONGEST_PAUSE,
        )

    def _unreachable(self, url: str, error: httpx.TransportError) -> PlatformUnavailableError:
        return PlatformUnavailableError(
            f"{_shown(url)} did not answer ({type(error).__name__}). Check the network of this worker, "
            f"and the endpoint of connection {self.conn_id!r} if it has one."
        )


def _shown(url: str) -> str:
    """Return the address of the host alone: what follows may be signed."""
    found = httpx.URL(url)
    return redact(f"{found.scheme}://{found.netloc.decode()}")


def _error(answer: httpx.Response, where: str, conn_id: str) -> MlopsError:
    """Return the error that tells the caller what to do about *answer*."""
    codes, message = _told(answer)
    status = answer.status_code
    if any(code in _QUOTA for code in codes):
        return QuotaExceededError(f"{where} refused for lack of quota: {message}")
    if status in (429, 408) or status >= 500 or any(code in _WAIT for code in codes):
        return PlatformUnavailableError(f"{where} answered HTTP {status}: {message} Try again later.")
    if status in (401, 403) or answer.is_redirect:
        return InvalidSpecError(
            f"{where} refused the credentials (HTTP {status}): {message} "
            f"Check the identity of connection {conn_id!r} and its roles in the workspace."
        )
    if status in (404, 416):
        return NotFoundError(f"{where}: {message}")
    if status == 409 or "Immutable" in codes or "job with this name already exists" in message:
        return ConflictError(f"{where}: {message}")
    return InvalidSpecError(f"{where} refused the request (HTTP {status}): {message}")


def _told(answer: httpx.Response) -> tuple[list[str], str]:
    """Return the codes, outer to inner, and the message of an error body.

    https://learn.microsoft.com/rest/api/azure/#async-operations-throttling-and-paging
    """
    try:
        body = answer.json()
    except ValueError:
        body = None
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return [], f"no explanation ({len(answer.content)} bytes that are no answer of its API)."
    codes: list[str] = []
    inner: Any = error
    while isinstance(inner, dict):
        codes.append(str(inner.get("code", "")))
        inner = inner.get("innererror") or inner.get("innerError")
    for more in error.get("additionalInfo") or ():
        codes += _inner_codes(more)
    return codes, redact(str(error.get("message", "")))[:1000]


def _inner_codes(more: Any) -> list[str]:
    """Return the codes in one entry of ``additionalInfo``, where the service puts its inner errors."""
    if not isinstance(more, dict) or more.get("type") != "InnerError":
        return []
    found, codes = (more.get("info") or {}).get("value"), []
    while isinstance(found, dict):
        codes.append(str(found.get("code", "")))
        found = found.get("innerError")
    return codes
