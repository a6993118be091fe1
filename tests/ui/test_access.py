"""Who may see the page: a real API server, asked with and without a login."""

from __future__ import annotations

import httpx
import pytest

from airflow_mlops.testing.airflow_server import AirflowServer

MARKUP = "<img src=x onerror=alert(1)>"

ROUTES = ("/mlops/", "/mlops/api/overview", "/mlops/static/page.js", "/mlops/static/page.css", "/mlops/static/none.js")


def ask(server: AirflowServer, path: str, user: str = "") -> httpx.Response:
    """Ask for *path* as *user*, or without a login."""
    headers = {"Authorization": f"Bearer {server.token(user)}"} if user else {}
    return httpx.get(server.url + path, headers=headers, timeout=30)


@pytest.mark.parametrize("path", ROUTES)
def test_without_a_login_nothing_is_shown(server: AirflowServer, path: str):
    """No route answers a request that brings no token."""
    assert ask(server, path).status_code == 401


@pytest.mark.parametrize("path", ROUTES)
def test_without_the_right_to_read_assets_nothing_is_shown(server: AirflowServer, path: str):
    """A user who is signed in but may not read assets is refused by every route."""
    assert ask(server, path, "stranger").status_code == 403


def test_a_forged_token_opens_nothing(server: AirflowServer):
    """A token that Airflow did not sign is refused."""
    answer = httpx.get(f"{server.url}/mlops/api/overview", headers={"Authorization": "Bearer e30.e30.e30"})

    assert answer.status_code == 403


def test_a_viewer_sees_the_page_and_its_data(server: AirflowServer):
    """The right to read assets is enough, and a missing file is only missing."""
    assert [ask(server, path, "viewer").status_code for path in ROUTES] == [200, 200, 200, 200, 404]


@pytest.mark.parametrize("path", ["docs", "redoc", "openapi.json", "static/%2e%2e%2fapi.py", "static/..%2fapi.py"])
def test_nothing_else_is_served(server: AirflowServer, path: str):
    """There is no generated documentation, and no way from the static files to other files."""
    answer = ask(server, f"/mlops/{path}", "admin")

    assert answer.status_code == 404


def test_the_browser_is_told_to_run_nothing_foreign(server: AirflowServer):
    """The page may load its own files only, may be framed by Airflow only, and its data is never kept."""
    page, data = ask(server, "/mlops/", "viewer"), ask(server, "/mlops/api/overview", "viewer")

    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "frame-ancestors 'self'" in policy
    assert data.headers["cache-control"] == "no-store"
    assert data.headers["x-content-type-options"] == "nosniff"


def test_platforms_that_are_not_there_are_explained(server: AirflowServer):
    """A missing connection and a gateway that is down become messages with the next step; the others are shown."""
    found = ask(server, "/mlops/api/overview", "viewer").json()
    problems = {problem["conn_id"]: problem["message"] for problem in found["problems"]}

    assert set(problems) == {"gateway_down", "gateway_absent"}
    assert problems["gateway_absent"] == "There is no connection 'gateway_absent'. Add it under Admin > Connections."
    assert "No gateway answers" in problems["gateway_down"]
    assert [model["name"] for model in found["models"]] == [MARKUP, "flights"]
    assert [endpoint["endpoint"] for endpoint in found["endpoints"]] == ["flight-delay"]


def test_no_credential_reaches_the_browser(server: AirflowServer):
    """Tokens of connections stay on the server, also in the messages about a platform that is down."""
    assert "hunter2" not in ask(server, "/mlops/api/overview", "admin").text


def test_evidence_that_was_changed_is_not_believed(server: AirflowServer):
    """A verdict whose evidence is not the one it names counts for nothing, and the page says why."""
    models = {model["name"]: model for model in ask(server, "/mlops/api/overview", "viewer").json()["models"]}
    forged, honest = models[MARKUP]["versions"][0]["gate"], models["flights"]["versions"][0]["gate"]

    assert (forged["verdict"], forged["values"]) == ("unproven", [])
    assert "changed after the decision" in forged["why"]
    assert [value["rule"] for value in honest["values"]] == ["roc_auc", "gain", "surely above", "rows"]
