"""One authenticated HTTP connection to an MLflow server, with its answers turned into our errors.

It does not import MLflow, which costs 3 s of CPU. No message, log line or representation may show a credential.

Vendor page: https://mlflow.org/docs/latest/api_reference/rest-api.html
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn, Self

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
from airflow_mlops.platforms.http import trusted
from airflow_mlops.platforms.pauses import ATTEMPTS, pause_after

OPTIONS = ("verify", "timeout")
"""Extras of the connection: ``verify`` is false or the path of a CA bundle, ``timeout`` is in seconds."""

_WRITERS_MET = ("IntegrityError", "StaleDataError", "were matched", "database is locked", "deadlock")
"""What databases and SQLAlchemy say when another request wrote first. The request was undone as a whole."""

TIMEOUT = 30.0


class MLflowRest:
    """Sends requests. A request that may be repeated is tried four times within about two seconds of pauses."""

    def __init__(self, info: ConnectionInfo) -> None:
        options = info.options(OPTIONS)
        self.conn_id = info.conn_id
        base_url = info.base_url()
        self.address = redact(base_url)
        self._http = httpx.Client(
            base_url=base_url,
            auth=_basic(info),
            headers=_bearer(info),
            verify=trusted(options.get("verify", True)),
            timeout=float(options.get("timeout", TIMEOUT)),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the server."""
        self._http.close()

    def get(self, path: str, /, **params: Any) -> dict[str, Any]:
        """Return the JSON answer to a GET, which is repeated when the server fails."""
        return _json(self.send("GET", path, repeat=True, params=params))

    def post(self, path: str, body: Mapping[str, Any], *, repeat: bool = False, method: str = "POST") -> dict[str, Any]:
        """Return the JSON answer to *body*.

        :param repeat: whether sending it twice does no more than sending it once
        """
        return _json(self.send(method, path, repeat=repeat, json=dict(body)))

    def send(self, method: str, path: str, *, repeat: bool, **kwargs: Any) -> httpx.Response:
        """Return a successful answer.

        :raises PlatformUnavailableError: the server was away, too slow, too busy or failed on its side
        :raises NotFoundError: what was asked for does not exist
        :raises ConflictError: what was to be created exists
        :raises InvalidSpecError: the server refused the request or the credentials
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                answer = self._http.request(method, path, **kwargs)
                if answer.is_success:
                    return answer
                self._refuse(answer)
            except httpx.TransportError as error:
                if attempt == ATTEMPTS or not (repeat or isinstance(error, httpx.ConnectError)):
                    raise self._unreachable(error) from error
            except PlatformUnavailableError:
                if attempt == ATTEMPTS or not repeat:
                    raise
            time.sleep(pause_after(attempt))
        raise AssertionError("the last attempt returns or raises")

    @contextmanager
    def stream(self, path: str) -> Iterator[Iterator[bytes]]:
        """Give the bytes of a GET in pieces, so that a large file needs no memory."""
        try:
            with self._http.stream("GET", path) as answer:
                if not answer.is_success:
                    answer.read()
                    self._refuse(answer)
                yield answer.iter_bytes(1 << 20)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: httpx.TransportError) -> PlatformUnavailableError:
        return PlatformUnavailableError(
            f"The MLflow server at {self.address} did not answer ({type(error).__name__}: {redact(str(error))}). "
            f"Check that it runs and that connection {self.conn_id!r} has its host and port."
        )

    def _refuse(self, answer: httpx.Response) -> NoReturn:
        raise _error(answer, self.address, self.conn_id)


def _basic(info: ConnectionInfo) -> httpx.BasicAuth | None:
    return httpx.BasicAuth(info.login, info.password) if info.login else None


def _bearer(info: ConnectionInfo) -> dict[str, str]:
    return {"Authorization": f"Bearer {info.password}"} if info.password and not info.login else {}


def _json(answer: httpx.Response) -> dict[str, Any]:
    found = answer.json() if answer.content else {}
    return found if isinstance(found, dict) else {"value": found}


def _error(answer: httpx.Response, address: str, conn_id: str) -> MlopsError:
    """Return the error that tells the caller what to do about *answer*."""
    code, message = _told(answer)
    where = f"MLflow at {address}"
    if answer.status_code in (401, 403):
        return InvalidSpecError(
            f"{where} refused the credentials (HTTP {answer.status_code}). "
            f"Check login, password and permissions of connection {conn_id!r}."
        )
    if answer.status_code == 429 or answer.status_code >= 500:
        return PlatformUnavailableError(f"{where} answered HTTP {answer.status_code}: {message} Try again later.")
    if code == "RESOURCE_ALREADY_EXISTS":
        return ConflictError(f"{where}: {message}")
    if any(sign in answer.text for sign in _WRITERS_MET):
        return PlatformUnavailableError(f"{where}: two writers met in its database. Try again.")
    missing_alias = "alias" in message and "not found" in message  # MLflow answers 400 INVALID_PARAMETER_VALUE
    if answer.status_code == 404 or code == "RESOURCE_DOES_NOT_EXIST" or missing_alias:
        return NotFoundError(f"{where}: {message}")
    return InvalidSpecError(f"{where} refused the request (HTTP {answer.status_code}): {message}")


def _told(answer: httpx.Response) -> tuple[str, str]:
    """Return MLflow's error code and message, without the SQL statement that may follow it."""
    try:
        body = answer.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        return "", f"no explanation ({len(answer.content)} bytes that are not an MLflow answer)."
    message = str(body.get("message", "")).split("\n")[0].split(" Error: ")[0]
    return str(body.get("error_code", "")), redact(message)[:500]
