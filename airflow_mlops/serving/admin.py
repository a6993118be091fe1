"""The admin half of the HTTP API: checks words and shapes, then asks the gateway. See :mod:`airflow_mlops.serving`."""

from __future__ import annotations

import os
import re
import time
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.serving.answers import read_body
from airflow_mlops.serving.gateway import Gateway
from airflow_mlops.serving.protocol import parse_json
from airflow_mlops.serving.state import RevisionRecord

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_BODY = ("model", "version", "digest", "path")


def gateway_of(request: Request) -> Gateway:
    """Return the gateway that serves *request*."""
    gateway: Gateway = request.app.state.gateway
    return gateway


def require_name(kind: str, name: str) -> str:
    """Return *name* if it may name an endpoint or revision; it becomes part of a path and an address.

    :raises InvalidSpecError: it may not
    """
    if not _NAME.fullmatch(name):
        raise InvalidSpecError(
            f"{name!r} cannot name {kind}: use a letter or digit, then up to 62 letters, digits, '.', '_' or '-'."
        )
    return name


async def health(request: Request) -> JSONResponse:
    """Say that the gateway lives, and which process serves what."""
    gateway = gateway_of(request)
    return JSONResponse({"status": "ok", "pid": os.getpid(), "since": gateway.since, "workers": gateway.workers()})


async def list_endpoints(request: Request) -> JSONResponse:
    """Return the status of every endpoint."""
    gateway = gateway_of(request)
    return JSONResponse({"endpoints": [gateway.status(endpoint) for endpoint in gateway.endpoints()]})


async def show_endpoint(request: Request) -> JSONResponse:
    """Return the status of one endpoint."""
    return _status(request)


def _status(request: Request, code: int = 200) -> JSONResponse:
    return JSONResponse(gateway_of(request).status(request.path_params["endpoint"]), code)


async def put_revision(request: Request) -> JSONResponse:
    """Begin to load a revision."""
    endpoint = require_name("an endpoint", request.path_params["endpoint"])
    revision = require_name("a revision", request.path_params["revision"])
    body = parse_json(await read_body(request))
    if set(body) != set(_BODY) or not all(isinstance(value, str) for value in body.values()):
        raise InvalidSpecError(
            f"The body must have the texts {', '.join(_BODY)} and nothing else, got {sorted(body)!r}."
        )
    if not _DIGEST.fullmatch(body["digest"]):
        raise InvalidSpecError(f"'digest' must be 'sha256:' and 64 hex digits, got {body['digest']!r}.")
    record = RevisionRecord(revision, body["model"], body["version"], body["digest"], source=body["path"], folder="")
    return _status(request, 202 if gateway_of(request).put_revision(endpoint, record) else 200)


async def put_traffic(request: Request) -> JSONResponse:
    """Shift traffic."""
    traffic = parse_json(await read_body(request))
    for revision, percent in traffic.items():
        if isinstance(percent, bool) or not isinstance(percent, (int, float)):
            raise InvalidSpecError(f"The traffic of {revision!r} must be a number of percent, got {percent!r}.")
    gateway_of(request).shift(request.path_params["endpoint"], traffic)
    return _status(request)


async def roll_back(request: Request) -> JSONResponse:
    """Give all traffic to the revision before."""
    gateway_of(request).rollback(request.path_params["endpoint"])
    return _status(request)


async def delete_revision(request: Request) -> JSONResponse:
    """Take one revision away."""
    await gateway_of(request).remove_revision(request.path_params["endpoint"], request.path_params["revision"])
    return _status(request)


async def delete_endpoint(request: Request) -> JSONResponse:
    """Take an endpoint away."""
    endpoint = request.path_params["endpoint"]
    await gateway_of(request).remove_endpoint(endpoint)
    return JSONResponse({"removed": endpoint})


async def show_metrics(request: Request) -> JSONResponse:
    """Return the figures of a window."""
    since, until = _moment(request, "since", 0.0), _moment(request, "until", time.time())
    return JSONResponse(await gateway_of(request).traffic_log(request.path_params["endpoint"]).metrics(since, until))


def _moment(request: Request, name: str, default: float) -> float:
    text = request.query_params.get(name)
    try:
        return default if text is None else float(text)
    except ValueError:
        raise InvalidSpecError(f"{name!r} must be seconds since 1970, got {text!r}.") from None


async def show_capture(request: Request) -> JSONResponse:
    """Return how many captured rows wait, are written and were dropped."""
    return JSONResponse(_capture(request).buffer.counts())


async def flush_capture(request: Request) -> JSONResponse:
    """Write all captured rows now."""
    return JSONResponse(await _capture(request).flush())


def _capture(request: Request) -> Any:
    return gateway_of(request).traffic_log(request.path_params["endpoint"]).capture


ROUTES = [
    Route("/health", health),
    Route("/v1/endpoints", list_endpoints),
    Route("/v1/endpoints/{endpoint}", show_endpoint, methods=["GET"]),
    Route("/v1/endpoints/{endpoint}", delete_endpoint, methods=["DELETE"]),
    Route("/v1/endpoints/{endpoint}/revisions/{revision}", put_revision, methods=["PUT"]),
    Route("/v1/endpoints/{endpoint}/revisions/{revision}", delete_revision, methods=["DELETE"]),
    Route("/v1/endpoints/{endpoint}/traffic", put_traffic, methods=["PUT"]),
    Route("/v1/endpoints/{endpoint}/rollback", roll_back, methods=["POST"]),
    Route("/v1/endpoints/{endpoint}/metrics", show_metrics),
    Route("/v1/endpoints/{endpoint}/capture", show_capture),
    Route("/v1/endpoints/{endpoint}/flush", flush_capture, methods=["POST"]),
]
