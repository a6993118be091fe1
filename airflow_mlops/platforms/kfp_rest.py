"""One authenticated HTTP connection to a Kubeflow Pipelines server, with its answers turned into our errors.

No message, log line or representation may show a credential. A request that may have started something is never
repeated from here.

Vendor page: https://www.kubeflow.org/docs/components/pipelines/reference/api/kubeflow-pipeline-api-spec/
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import (
    ConflictError,
    InvalidSpecError,
    MlopsError,
    NotFoundError,
    PlatformUnavailableError,
    redact,
)
from airflow_mlops.platforms.http import persist, trusted

OPTIONS = ("namespace", "console_url", "token_path", "userid_header", "verify", "timeout")
"""Extras of the connection. See :class:`~airflow_mlops.platforms.kfp.KfpClient`."""

LONGEST_PAUSE = 10.0
TIMEOUT = 30.0
ALREADY_EXISTS = 6
"""Of https://grpc.io/docs/guides/status-codes/; the server also answers HTTP 409 for ABORTED, a bad request."""

_BAD_INPUT = ("Invalid input error", "InvalidInputError")
"""The server wraps many a refusal of the request into an internal error (HTTP 500). Its own words tell them apart."""


class KfpRest:
    """Sends requests. One that may be repeated is tried four times within about two seconds of pauses."""

    def __init__(self, info: ConnectionInfo) -> None:
        options = info.options(OPTIONS)
        self.conn_id = info.conn_id
        base_url = info.base_url()
        self.address = redact(base_url)
        self._http = httpx.Client(
            base_url=base_url,
            auth=_Token(info.password, str(options.get("token_path", ""))),
            headers={str(options.get("userid_header", "kubeflow-userid")): info.login} if info.login else {},
            verify=trusted(options.get("verify", True)),
            timeout=float(options.get("timeout", TIMEOUT)),
        )

    def close(self) -> None:
        """Close the connections to the server."""
        self._http.close()

    def get(self, path: str, /, **params: Any) -> dict[str, Any]:
        """Return the answer to a GET, which is repeated when the server fails; empty parameters are left out."""
        return self._send("GET", path, repeat=True, params={key: value for key, value in params.items() if value})

    def post(self, path: str, body: Mapping[str, Any] | None = None, *, repeat: bool = False) -> dict[str, Any]:
        """Return the answer to *body*.

        :param repeat: whether sending it twice does no more than sending it once
        """
        return self._send("POST", path, repeat=repeat, json=None if body is None else dict(body))

    def _send(self, method: str, path: str, *, repeat: bool, **kwargs: Any) -> dict[str, Any]:
        """Return a successful answer.

        :raises PlatformUnavailableError: the server was away, too slow, too busy or failed on its side
        :raises NotFoundError: what was asked for does not exist
        :raises ConflictError: what was to be created exists
        :raises InvalidSpecError: the server refused the request or the credentials
        """
        answer = persist(
            lambda: self._http.request(method, path, **kwargs),
            lambda refused: _error(refused, self.address, self.conn_id),
            self._unreachable,
            repeat=repeat,
            longest_pause=LONGEST_PAUSE,
        )
        return self._read(answer)

    def _read(self, answer: httpx.Response) -> dict[str, Any]:
        try:
            found = answer.json() if answer.content else {}
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise InvalidSpecError(
                f"{self.address} answered with something that is not the Kubeflow Pipelines API, perhaps a login page. "
                f"Check the host and the credentials of connection {self.conn_id!r}."
            )
        return found

    def _unreachable(self, error: httpx.TransportError) -> PlatformUnavailableError:
        return PlatformUnavailableError(
            f"Kubeflow Pipelines at {self.address} did not answer ({type(error).__name__}: {redact(str(error))}). "
            f"Check that it runs and that connection {self.conn_id!r} has its host and port."
        )


class _Token(httpx.Auth):
    """A bearer token: the one given, or what its file says now, because the kubelet renews such files."""

    def __init__(self, token: str, path: str) -> None:
        self._token, self._path = token, path

    def auth_flow(self, request: httpx.Request) -> Any:
        token = self._token or self._read()
        if token:
            request.headers["Authorization"] = f"Bearer {token}"
        yield request

    def _read(self) -> str:
        try:
            return Path(self._path).read_text().strip() if self._path else ""
        except OSError as error:
            raise InvalidSpecError(f"The token file {self._path!r} cannot be read: {error.strerror}.") from error


def _error(answer: httpx.Response, address: str, conn_id: str) -> MlopsError:
    """Return the error that tells the caller what to do about *answer*."""
    code, message = _told(answer)
    where, status = f"Kubeflow Pipelines at {address}", answer.status_code
    if status in (401, 403) or answer.is_redirect:
        return InvalidSpecError(
            f"{where} refused the credentials (HTTP {status}): {message} "
            f"Check token, login and namespace of connection {conn_id!r}."
        )
    if status >= 500 and any(sign in message for sign in _BAD_INPUT):
        return InvalidSpecError(f"{where} refused the request: {message}")
    if status == 429 or status >= 500:
        return PlatformUnavailableError(f"{where} answered HTTP {status}: {message} Try again later.")
    if status == 404:
        return NotFoundError(f"{where}: {message}")
    if code == ALREADY_EXISTS:
        return ConflictError(f"{where}: {message}")
    return InvalidSpecError(f"{where} refused the request (HTTP {status}): {message}")


def _told(answer: httpx.Response) -> tuple[int, str]:
    """Return code and message of the ``google.rpc.Status`` in the body."""
    try:
        body = answer.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        return 0, f"no explanation ({len(answer.content)} bytes that are not an answer of its API)."
    return int(body.get("code") or 0), redact(str(body.get("message", "")))[:1000]
