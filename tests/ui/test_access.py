"""Who may see the page: a real API server, asked with and without a login."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from airflow_mlops.testing.airflow_server import AirflowServer, airflow_server

ROUTES = ("/mlops/", "/mlops/api/overview", "/mlops/static/page.js", "/mlops/static/page.css", "/mlops/static/none.js")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowServer]:
    """Give a server whose gateway does not run and whose MLflow connection is missing."""
    nobody = {"AIRFLOW_CONN_GATEWAY_DEFAULT": "http://me:hunter2@127.0.0.1:9"}
    with airflow_server(tmp_path_factory.mktemp("airflow"), env=nobody) as running:
        yield running


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
    """A missing connection and a gateway that is down become messages with the next step, without credentials."""
    answer = ask(server, "/mlops/api/overview", "viewer")
    problems = {problem["conn_id"]: problem["message"] for problem in answer.json()["problems"]}

    assert problems["mlflow_default"] == ("There is no connection 'mlflow_default'. Add it under Admin > Connections.")
    assert "No gateway answers" in problems["gateway_default"]
    assert "hunter2" not in answer.text
