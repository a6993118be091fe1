"""The MLOps page and the JSON behind it, mounted on Airflow's API server.

Every route asks Airflow's auth manager, and all of them ask for the same right: reading assets. No token is 401, a
token without the right is 403. Routes only read; one that writes must not be added without a guard against requests
forged by other sites.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from airflow.api_fastapi.core_api.security import requires_access_asset
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.staticfiles import StaticFiles

from airflow_mlops.ui.queries import overview
from airflow_mlops.ui.sources import configured_sources

_STATIC = StaticFiles(directory=Path(__file__).parent / "static")

_HEADERS = {
    # Values from data are written as text only; should one ever get through, the browser still runs no foreign code.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

router = APIRouter()


@router.get("/api/overview")
def read_overview() -> dict[str, Any]:
    """Return models, endpoints and drift as :class:`airflow_mlops.ui.page.Overview` describes them."""
    return overview(configured_sources()).to_dict()


@router.get("/")
async def read_page(request: Request) -> Response:
    """Return the page."""
    return await _STATIC.get_response("index.html", request.scope)


@router.get("/static/{name}")
async def read_static(name: str, request: Request) -> Response:
    """Return a script or style of the page."""
    return await _STATIC.get_response(name, request.scope)


async def _with_headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(request)
    response.headers.update(_HEADERS)
    response.headers["Cache-Control"] = "no-store" if "/api/" in request.url.path else "no-cache"
    return response


def create_app() -> FastAPI:
    """Return the app. It documents itself nowhere: its routes are for its own page."""
    may_read = Depends(requires_access_asset("GET"))
    app = FastAPI(title="MLOps", docs_url=None, redoc_url=None, openapi_url=None, dependencies=[may_read])
    app.include_router(router)
    app.middleware("http")(_with_headers)
    return app
