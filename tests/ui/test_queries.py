"""One page from many sources, whatever they do."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from airflow_mlops.core.errors import PlatformUnavailableError
from airflow_mlops.ui.page import EndpointCard, ModelCard, Problem
from airflow_mlops.ui.queries import Source, overview


def source(kind: str, answer: object, name: str = "Some platform") -> Source:
    """Return a source that gives *answer*, or raises it."""

    def read(limit: int) -> Sequence[ModelCard | EndpointCard]:
        if isinstance(answer, Exception):
            raise answer
        return list(answer)[:limit]

    return Source(kind, name, "some_conn", read)


def test_models_and_endpoints_of_all_sources_are_on_the_page():
    """Cards come from every source and keep its order."""
    page = overview(
        [
            source("models", [ModelCard("a"), ModelCard("b")], "MLflow"),
            source("endpoints", [EndpointCard("x", "local")], "One"),
            source("endpoints", [EndpointCard("y", "kserve")], "Two"),
        ]
    )

    assert [card.name for card in page.models] == ["a", "b"]
    assert [card.endpoint for card in page.endpoints] == ["x", "y"]
    assert not page.problems
    assert not page.truncated


def test_a_failing_source_is_explained_and_the_rest_is_shown():
    """One platform that fails costs its own cards only, and the page repeats what to do about it."""
    broken = source("models", PlatformUnavailableError("It is down. Start it."))
    page = overview([broken, source("endpoints", [EndpointCard("x", "local")], "Other")])

    assert [card.endpoint for card in page.endpoints] == ["x"]
    assert page.problems == (Problem("models", "Some platform", "some_conn", "It is down. Start it."),)


def test_no_secret_of_an_error_reaches_the_page():
    """Addresses are redacted, and the text of an error that is not ours is not shown at all."""
    ours = PlatformUnavailableError("http://me:hunter2@mlflow is down.")
    page = overview([source("models", ours, "A"), source("models", RuntimeError("password=hunter2"), "B")])

    assert "hunter2" not in str(page.to_dict())
    assert page.problems[1].message.startswith("It failed with RuntimeError.")


def test_a_source_that_hangs_is_given_up_and_does_not_hold_back_the_others():
    """The page comes within its time, with what did answer."""
    release = threading.Event()
    slow = Source("models", "Slow", "slow_conn", lambda limit: release.wait(30) and [])
    started = time.monotonic()
    try:
        page = overview([slow, source("endpoints", [EndpointCard("x", "local")])], seconds=0.3)
    finally:
        release.set()

    assert time.monotonic() - started < 3
    assert [card.endpoint for card in page.endpoints] == ["x"]
    assert page.problems[0].message.startswith("No answer within 0.3 s.")


def test_a_source_that_hangs_is_asked_only_once_at_a_time():
    """However many people look at the page, a platform that hangs holds one thread."""
    release, calls = threading.Event(), []

    def read(limit: int) -> list[ModelCard]:
        calls.append(limit)
        release.wait(30)
        return [ModelCard("late")]

    hanging = Source("models", "Hanging", "hanging_conn", read)
    try:
        for _ in range(5):
            overview([hanging], seconds=0.05)
    finally:
        release.set()

    assert len(calls) == 1
    assert [card.name for card in overview([hanging]).models] == ["late"]


def test_the_page_is_bounded():
    """More models than the limit are cut off, and the page says that it is full."""
    page = overview([source("models", [ModelCard(str(n)) for n in range(20)])], limit=5)

    assert len(page.models) == 5
    assert page.truncated
