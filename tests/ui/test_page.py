"""The page in a real browser, inside Airflow, with a real registry and a real gateway behind it.

Set ``MLOPS_SCREENSHOTS`` to a folder to keep pictures of it: light, dark and narrow.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_mlops.testing.airflow_server import AirflowServer

if TYPE_CHECKING:
    from playwright.sync_api import FrameLocator, Page

pytestmark = pytest.mark.browser
MARKUP = "<img src=x onerror=alert(1)>"
SECONDS = 60_000  # in milliseconds, as Playwright counts


@pytest.fixture(scope="module")
def airflow(chromium: Any, server: AirflowServer) -> Iterator[Page]:
    """Give a browser tab that is signed in as a viewer and has come to the page through the navigation."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    context.set_default_timeout(SECONDS)
    tab = context.new_page()
    tab.asked = []
    tab.on("request", lambda request: tab.asked.append(request.url))
    tab.goto(f"{server.url}/auth/login")
    tab.fill("input[name=username]", "viewer")
    tab.fill("input[name=password]", server.passwords["viewer"])
    tab.press("input[name=password]", "Enter")
    tab.get_by_role("link", name="MLOps").click()
    tab.frame_locator("iframe").get_by_role("heading", name="Models", exact=True).wait_for()
    yield tab
    context.close()


@pytest.fixture
def page(airflow: Page) -> FrameLocator:
    """Give the page within Airflow's frame."""
    return airflow.frame_locator("iframe")


def picture(airflow: Page, name: str) -> None:
    """Keep a picture if somebody wants one."""
    if folder := os.environ.get("MLOPS_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        airflow.screenshot(path=Path(folder) / f"{name}.png")


def test_models_are_shown_with_their_proof(airflow: Page, page: FrameLocator):
    """Each version shows its alias, the DAG run that registered it, its data, its checks and its files' digest."""
    rows = page.locator("article", has=page.get_by_role("heading", name="flights")).locator("tbody tr")

    assert [text.split()[0:2] for text in rows.all_inner_texts()] == [["2", "challenger"], ["1", "champion"]]
    assert "train_flights / run_1" in rows.nth(1).inner_text()
    assert re.fullmatch("sha256:[0-9a-f]{64}", rows.nth(1).locator("td code").last.get_attribute("title") or "")
    assert "md5:0123456789" in rows.nth(1).inner_text()
    assert "checks: pass" in rows.nth(1).inner_text()
    picture(airflow, "light")


def test_the_gate_shows_its_figures_and_its_reason(page: FrameLocator):
    """What was measured, what was asked for and why it was refused are read from the evidence itself."""
    text = page.locator("tr", has_text="challenger").locator("td").first.inner_text()

    assert "fail" in text
    assert "against version 1" in text
    assert re.search(r"roc_auc\s+0\.8421 \(≥ 0\.7\)", text)
    assert re.search(r"gain\s+\+0\.002", text)
    assert re.search(r"rows\s+5,000 \(≥ 500\)", text)
    assert "The gain in roc_auc is too small." in text


def test_traffic_is_shown_as_bars_and_words(page: FrameLocator):
    """The widths of the bar are the percents, and a screen reader hears the same."""
    bar = page.get_by_role("img", name="Traffic: v1 75 %, v2 25 %")

    widths = bar.locator("span").evaluate_all("parts => parts.map(part => part.getBoundingClientRect().width)")
    assert widths[0] / sum(widths) == pytest.approx(0.75, abs=0.01)
    assert page.locator(".percent").all_inner_texts() == ["75 %", "25 %"]


def test_the_last_drift_verdict_is_shown_with_columns_and_time(page: FrameLocator):
    """Drift shows what drifted, on how many rows, and when: in words, with the exact time as tooltip."""
    drift = page.locator(".drift", has_text="fail")

    assert drift.locator("code").all_inner_texts() == ["dep_delay", "distance"]
    assert "version 1 · 12,000 rows" in drift.inner_text()
    assert drift.locator("time").get_attribute("datetime") == "2026-01-02T03:04:05.000Z"
    assert "2026" in (drift.locator("time").get_attribute("title") or "")


def test_markup_in_a_name_is_inert(page: FrameLocator):
    """A model whose name is markup is shown letter by letter, and makes no element."""
    assert page.get_by_role("heading", name=MARKUP).count() == 1
    assert page.locator("main img").count() == 0


def test_what_does_not_answer_is_explained_beside_the_rest(page: FrameLocator):
    """A gateway that is down takes nothing else off the page."""
    notices = page.locator("main .notice").all_inner_texts()

    assert any(text.startswith("Target local (gateway_down) is not shown.") for text in notices)
    assert page.locator(".endpoints article").count() == 1


def test_the_button_refreshes_by_keyboard(page: FrameLocator, platforms: Any):
    """After a shift, Enter on the button shows the new percents."""
    platforms.target.shift("flight-delay", {"v1": 40.0, "v2": 60.0})
    page.get_by_role("button", name="Refresh").press("Enter")

    page.get_by_role("img", name="Traffic: v1 40 %, v2 60 %").wait_for()


def test_a_link_leads_to_the_version_in_mlflow(airflow: Page, page: FrameLocator, platforms: Any):
    """The link opens the version's page in a new tab, although Airflow's frame may not open tabs itself."""
    with airflow.context.expect_page() as opened:
        page.locator("article", has=page.get_by_role("heading", name="flights")).get_by_role("link", name="2").click()

    assert opened.value.url == f"{platforms.mlflow_url}/#/models/flights/versions/2"
    opened.value.close()


def test_nothing_is_loaded_from_elsewhere(airflow: Page, server: AirflowServer):
    """The page and what it needs come from the API server alone."""
    ours = [url for url in airflow.asked if "/mlops/" in url]

    assert {url.rpartition("/")[2] for url in ours} >= {"page.js", "cards.js", "dom.js", "theme.js", "page.css"}
    assert [url for url in ours if not url.startswith(server.url)] == []


def test_the_theme_is_airflows_and_follows_at_once(airflow: Page, page: FrameLocator):
    """Switching Airflow to dark switches the page, without a reload."""
    root = page.locator("html")
    assert "dark" not in (root.get_attribute("class") or "")
    airflow.evaluate("document.documentElement.classList.replace('light', 'dark')")
    page.locator("html.dark").wait_for()

    assert page.locator("h1").evaluate("e => getComputedStyle(e).color") == "rgb(241, 244, 249)"
    picture(airflow, "dark")
    airflow.evaluate("document.documentElement.classList.replace('dark', 'light')")


@pytest.mark.parametrize(("width", "name"), [(390, "narrow"), (320, "narrowest")])
def test_it_is_readable_on_a_phone(airflow: Page, page: FrameLocator, width: int, name: str):
    """On a narrow screen nothing has to be scrolled sideways."""
    airflow.set_viewport_size({"width": width, "height": 1400})

    assert page.locator("html").evaluate("e => e.scrollWidth - e.clientWidth") <= 0
    picture(airflow, name)
    airflow.set_viewport_size({"width": 1280, "height": 900})


def test_the_address_can_be_kept_and_opened_again(airflow: Page, page: FrameLocator):
    """Reloading the tab comes back to the page."""
    airflow.reload()

    page.get_by_role("heading", name="flights").wait_for()


def test_who_was_signed_out_is_told_so(airflow: Page, page: FrameLocator):
    """When the login has ended, the page says what to do and keeps what it showed."""
    airflow.context.clear_cookies()
    page.get_by_role("button", name="Refresh").click()

    page.get_by_text("You are signed out.").wait_for()
    assert page.locator(".endpoints article").count() == 1
