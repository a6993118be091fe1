"""The ASGI application: routes, errors and the guard at the door."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from airflow_mlops.core.errors import MlopsError
from airflow_mlops.serving import admin, data_plane
from airflow_mlops.serving.answers import answer_crash, answer_error, refusal
from airflow_mlops.serving.gateway import Gateway

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Guard:
    """Lets nobody in without the token, and no web page in at all.

    Without a token only loopback names are answered, so a page in a browser on the same machine cannot reach the
    gateway by a name that it controls; a request that a page sends across origins is refused either way.
    """

    def __init__(self, app: ASGIApp, token: str = "") -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass the request on."""
        if scope["type"] == "http" and (why := self._refusal(scope["path"], Headers(scope=scope))):
            await refusal(*why)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, path: str, headers: Headers) -> tuple[int, str] | None:
        if "origin" in headers:
            return 403, "This gateway does not answer web pages. Call it from a program."
        if not self._token:
            if _hostname(headers.get("host", "")) not in LOOPBACK:
                return 403, "This gateway answers to loopback names only. Start it with a token file to use others."
            return None
        given = headers.get("authorization", "").encode()
        if path != "/health" and not secrets.compare_digest(given, f"Bearer {self._token}".encode()):
            return 401, "A bearer token is needed: send the header 'Authorization: Bearer <token>'."
        return None


def _hostname(host: str) -> str:
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def build_app(gateway: Gateway, token: str = "") -> Starlette:
    """Return the application that serves *gateway*. It opens and closes it."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        await gateway.open()
        try:
            yield
        finally:
            await gateway.close()

    app = Starlette(
        routes=[*admin.ROUTES, *data_plane.ROUTES],
        middleware=[Middleware(Guard, token=token)],
        exception_handlers={MlopsError: answer_error, Exception: answer_crash},
        lifespan=lifespan,
    )
    app.state.gateway = gateway
    return app
