"""Tell Airflow about the MLOps page.

Airflow imports this module in every task process, so it must stay light: nothing of FastAPI, Airflow's API server or
a platform may be imported here. The page itself is imported when its first request arrives.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from importlib import import_module
from typing import Any
from urllib.parse import quote

from airflow.sdk.plugins_manager import AirflowPlugin

URL_PREFIX = "/mlops"
"""Where the page and its API are mounted on the API server."""

# One branch that splits in two, like traffic. Inline, so that it needs no request; the colour suits both themes.
_ICON = "data:image/svg+xml," + quote(
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" fill="none" stroke="#d97706" stroke-width="2" '
    'stroke-linecap="round" stroke-linejoin="round"><circle cx="5" cy="12" r="2.5"/><circle cx="19" cy="5" r="2.5"/>'
    '<circle cx="19" cy="19" r="2.5"/><path d="M7.3 10.9 16.7 6.1M7.3 13.1l9.4 4.8"/></svg>'
)


class LazyApp:
    """An ASGI app that imports the real one on its first request."""

    def __init__(self, module: str, factory: str) -> None:
        self._module, self._factory = module, factory
        self._app: Callable[..., Awaitable[None]] | None = None

    async def __call__(
        self, scope: MutableMapping[str, Any], receive: Callable[..., Any], send: Callable[..., Any]
    ) -> None:
        """Hand the request to the real app."""
        if self._app is None:
            self._app = getattr(import_module(self._module), self._factory)()
        await self._app(scope, receive, send)


class MlopsUiPlugin(AirflowPlugin):
    """The page "MLOps" in the navigation and the API behind it."""

    name = "mlops_ui"
    fastapi_apps = [  # noqa: RUF012 - declared so by Airflow's class
        {"app": LazyApp("airflow_mlops.ui.api", "create_app"), "url_prefix": URL_PREFIX, "name": "MLOps"},
    ]
    # The address is relative to the <base> of Airflow's page, so that it works behind a path prefix as well.
    external_views = [  # noqa: RUF012 - declared so by Airflow's class
        {
            "name": "MLOps",
            "href": "mlops/",
            "destination": "nav",
            "nav_top_level": True,
            "url_route": "mlops",
            "icon": _ICON,
        },
    ]
