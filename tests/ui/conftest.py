"""What the tests of the page share: a real API server with users, a real registry, a real browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

FLAGS = (
    "--no-sandbox --headless --disable-gpu --disable-background-networking --disable-component-update --no-first-run"
)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Give a headless Chromium. Where there is none the test is skipped, but never in continuous integration."""
    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if not program:
        reason = "No Chromium: install the package 'chromium' or set CHROMIUM to its path."
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS.split())
        yield browser
        browser.close()
