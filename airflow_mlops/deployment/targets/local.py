"""The local target: the embedded gateway's admin API behind the verbs every target has.

The API is written down in ``airflow_mlops.serving``. This file translates and waits; it never decides, never starts a
gateway and never routes a request.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, unquote, urlsplit

import httpx

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.digests import folder_digest
from airflow_mlops.core.errors import (
    ConflictError,
    IntegrityError,
    InvalidSpecError,
    JobFailedError,
    NotFoundError,
    PlatformUnavailableError,
    close_match,
    redact,
)
from airflow_mlops.core.refs import ModelVersion
from airflow_mlops.deployment.contract import EndpointStatus, Revision, RevisionState, WindowMetrics

OPTIONS = ("path", "ready_timeout")
"""Options of :meth:`LocalTarget.deploy`."""

EXTRAS = ("timeout",)
"""Extras of the connection: ``timeout``, seconds one call may take (default 30)."""

POLL = 0.2
"""Seconds between two looks at a revision that is being loaded."""


class LocalTarget:
    """Endpoints of one embedded gateway."""

    name = "local"
    needs_folder = True

    def __init__(self, url: str, *, token: str = "", timeout: float = 30.0) -> None:
        self.url = redact(url)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._client = httpx.Client(base_url=url, headers=headers, timeout=timeout)

    @classmethod
    def from_connection(cls, info: ConnectionInfo) -> Self:
        """Connect to ``schema://host:port`` with the password as bearer token, if there is one."""
        options = info.options(EXTRAS)
        return cls(info.base_url(), token=info.password, timeout=float(options.get("timeout", 30.0)))

    def deploy(
        self, model: ModelVersion, endpoint: str, *, revision: str, options: Mapping[str, Any] | None = None
    ) -> EndpointStatus:
        """Load the model's folder as *revision* and wait until it is ready.

        Options: ``path``, the folder of the model's files on the gateway's machine (without it ``model.uri`` has to be
        a folder); ``ready_timeout``, seconds to wait (default 120).
        """
        chosen = _known(options or {})
        folder = _folder(model, chosen.get("path"))
        digest = model.digest or folder_digest(folder)
        body = {"model": model.name, "version": model.version, "digest": digest, "path": str(folder)}
        self._call("PUT", f"{_at(endpoint)}/revisions/{quote(revision)}", json=body)
        self._wait_ready(endpoint, revision, float(chosen.get("ready_timeout", 120)))
        status = self.status(endpoint)
        return status if status.traffic else self.shift(endpoint, {revision: 100.0})

    def _wait_ready(self, endpoint: str, revision: str, limit: float) -> None:
        """Wait at most *limit* seconds; take the revision away again if it does not get ready, unless it serves."""
        deadline = time.monotonic() + limit
        while True:
            found = self.status(endpoint).find(revision)
            if found is not None and found.state is RevisionState.READY:
                return
            if found is None or found.state is RevisionState.FAILED or time.monotonic() > deadline:
                break
            time.sleep(POLL)
        if found is None or not found.traffic:  # what serves stays: the gateway goes on starting it
            self._discard(endpoint, revision)
        raise _never_ready(endpoint, revision, found, limit)

    def _discard(self, endpoint: str, revision: str) -> None:
        """Take a failed revision away, and the endpoint too if it was its only one."""
        if not self.remove(endpoint, revision).revisions:
            self._call("DELETE", _at(endpoint))

    def shift(self, endpoint: str, traffic: Mapping[str, float]) -> EndpointStatus:
        """Set the weights and return what the gateway shows afterwards."""
        self._call("PUT", f"{_at(endpoint)}/traffic", json=dict(traffic))
        return self.status(endpoint)

    def status(self, endpoint: str) -> EndpointStatus:
        """Read back what serves."""
        try:
            return _status(self._call("GET", _at(endpoint)))
        except NotFoundError as error:
            names = self.endpoints()
            raise NotFoundError(
                f"No endpoint {endpoint!r} on the gateway at {self.url}: {close_match(endpoint, names)}"
                f"It has {', '.join(names) or 'none'}."
            ) from error

    def rollback(self, endpoint: str) -> EndpointStatus:
        """Give all traffic to the revision that was wholly rolled out before."""
        try:
            self._call("POST", f"{_at(endpoint)}/rollback")
        except ConflictError as error:
            raise NotFoundError(f"There is nothing to roll {endpoint!r} back to: {error}") from error
        return self.status(endpoint)

    def remove(self, endpoint: str, revision: str) -> EndpointStatus:
        """Take a revision without traffic away."""
        return _status(self._call("DELETE", f"{_at(endpoint)}/revisions/{quote(revision)}"))

    def metrics(self, endpoint: str, since: float, until: float) -> Mapping[str, WindowMetrics]:
        """Return what each revision did between two moments (seconds since 1970)."""
        found = self._call("GET", f"{_at(endpoint)}/metrics", params={"since": repr(since), "until": repr(until)})
        return {name: WindowMetrics.from_dict(_finite(seen)) for name, seen in found.items()}

    def endpoints(self) -> tuple[str, ...]:
        """Return the names of the gateway's endpoints."""
        return tuple(found["endpoint"] for found in self._call("GET", "/v1/endpoints")["endpoints"])

    def _call(self, verb: str, path: str, **request: Any) -> dict[str, Any]:
        try:
            answer = self._client.request(verb, path, **request)
        except httpx.TransportError as error:
            raise PlatformUnavailableError(
                f"No gateway answers at {self.url} ({type(error).__name__}: {error}). Start one with "
                "'airflow-mlops-gateway --root DIR', or correct the host and port of the connection."
            ) from error
        if answer.is_error:
            raise self._error(answer)
        found: dict[str, Any] = answer.json()
        return found

    def _error(self, answer: httpx.Response) -> Exception:
        """Give the error that says what the caller may do."""
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            return InvalidSpecError(
                f"The gateway at {self.url} refused the token. Set the connection's password to the gateway's token."
            )
        kind = _ERRORS.get(answer.status_code, PlatformUnavailableError)
        return kind(f"The gateway at {self.url} answered {answer.status_code}: {_words(answer)}")


_ERRORS: dict[int, type[Exception]] = {
    400: InvalidSpecError,
    404: NotFoundError,
    405: InvalidSpecError,
    409: ConflictError,
    413: InvalidSpecError,
    422: InvalidSpecError,
}


def _words(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return redact(answer.text[:500])


def _at(endpoint: str) -> str:
    return f"/v1/endpoints/{quote(endpoint, safe='')}"


def _known(options: Mapping[str, Any]) -> Mapping[str, Any]:
    for key in options:
        if key not in OPTIONS:
            raise InvalidSpecError(
                f"The local target has no option {key!r}: {close_match(key, OPTIONS)}It has {', '.join(OPTIONS)}."
            )
    return options


def _folder(model: ModelVersion, path: str | None) -> Path:
    """Return the folder to load: *path*, or the model's address if that is a folder."""
    address = path or model.uri
    parts = urlsplit(address)
    folder = Path(unquote(parts.path)) if parts.scheme == "file" else Path(address)
    if not folder.is_absolute() or not folder.is_dir():
        raise InvalidSpecError(
            f"The local target loads a folder of model files, and {redact(address)!r} is none. "
            "Fetch the model first and give its folder as option 'path'."
        )
    return folder


def _status(found: Mapping[str, Any]) -> EndpointStatus:
    revisions = tuple(_revision(item) for item in found["revisions"])
    return EndpointStatus(found["endpoint"], found["url"], revisions, found.get("previous") or "")


def _revision(found: Mapping[str, Any]) -> Revision:
    known = {state.value for state in RevisionState}
    state = found["state"] if found["state"] in known else RevisionState.UNKNOWN.value
    return Revision.from_dict({**found, "state": state})


def _finite(seen: Mapping[str, Any]) -> dict[str, Any]:
    """Turn missing predictions into not-a-number: they are an answer that the guards have to see."""
    return {**seen, "predictions": [math.nan if value is None else value for value in seen.get("predictions", [])]}


def _never_ready(endpoint: str, revision: str, found: Revision | None, limit: float) -> Exception:
    detail = found.detail if found else "it disappeared"
    what = f"Revision {revision!r} of {endpoint!r} did not get ready"
    if found is not None and "digest" in detail:
        return IntegrityError(f"{what}: {detail}")
    if found is not None and found.state is not RevisionState.FAILED:
        detail = (
            f"it was still {found.state.value} after {limit:g} s. Raise 'ready_timeout' or look at the gateway's log"
        )
    return JobFailedError(f"{what}: {detail}. The traffic is as it was.")
