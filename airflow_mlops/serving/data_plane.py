"""The half of the HTTP API that clients of the models use: two protocols, one way through. It changes nothing."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.serving.admin import gateway_of
from airflow_mlops.serving.answers import read_body, refusal
from airflow_mlops.serving.protocol import (
    inference_answer,
    model_metadata,
    parse_inference,
    parse_invocation,
    parse_json,
)
from airflow_mlops.serving.schema import Table

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")

Reader = Callable[[Mapping[str, Any]], Table]
Writer = Callable[[str, str, str, Sequence[Any]], dict[str, Any]]


async def invoke(request: Request) -> JSONResponse:
    """Answer MLflow's scoring protocol."""
    return await _score(request, parse_invocation, lambda _e, _r, _i, predictions: {"predictions": predictions})


async def infer(request: Request) -> JSONResponse:
    """Answer the Open Inference Protocol."""
    return await _score(request, parse_inference, inference_answer)


async def _score(request: Request, read: Reader, write: Writer) -> JSONResponse:
    arrived, endpoint = time.time(), request.path_params["endpoint"]
    request_id = _request_id(request)
    gateway_of(request).find(endpoint)
    table = read(parse_json(await read_body(request)))
    sticky = request.headers.get("x-mlops-sticky", "")
    revision, outcome = await gateway_of(request).score(
        endpoint, table, request_id=request_id, sticky=sticky, arrived=arrived
    )
    headers = {"x-mlops-revision": revision, "x-request-id": request_id}
    if outcome.predictions is None:
        return refusal(outcome.status, outcome.message, headers)
    return JSONResponse(write(endpoint, revision, request_id, outcome.predictions), headers=headers)


def _request_id(request: Request) -> str:
    given = request.headers.get("x-request-id")
    if given is None:
        return uuid.uuid4().hex
    if not _REQUEST_ID.fullmatch(given):
        raise InvalidSpecError("'x-request-id' must be 1 to 128 visible ASCII characters.")
    return given


async def show_model(request: Request) -> JSONResponse:
    """Describe a model in the words of the Open Inference Protocol."""
    gateway, endpoint = gateway_of(request), request.path_params["endpoint"]
    revisions = list(gateway.find(endpoint).shares)
    return JSONResponse(model_metadata(endpoint, revisions, gateway.schema(endpoint)))


async def show_ready(request: Request) -> JSONResponse:
    """Say whether the endpoint can answer now: 200, or 503."""
    endpoint = request.path_params["endpoint"]
    ready = gateway_of(request).is_ready(endpoint)
    return JSONResponse({"name": endpoint, "ready": ready}, 200 if ready else 503)


ROUTES = [
    Route("/endpoints/{endpoint}/invocations", invoke, methods=["POST"]),
    Route("/v2/models/{endpoint}/infer", infer, methods=["POST"]),
    Route("/v2/models/{endpoint}/ready", show_ready),
    Route("/v2/models/{endpoint}", show_model),
]
