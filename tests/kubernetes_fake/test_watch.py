"""Lists in pages, watches with bookmarks, and a history that is forgotten."""

from __future__ import annotations

from typing import Any

import pytest
from kubernetes import client, watch


def events(session: Any, **options: Any) -> list[tuple[str, Any]]:
    """Return the events of a watch of Jobs that ends by itself."""
    stream = watch.Watch().stream(session.batch.list_namespaced_job, "default", timeout_seconds=1, **options)
    return [(event["type"], event["raw_object"]) for event in stream]


def test_a_watch_tells_what_came_after_a_version(session: Any) -> None:
    """From a list's version on, only what happened later is told, and only what the selector matches."""
    session.submit("before", "true", suspend=True)
    version = session.batch.list_namespaced_job("default").metadata.resource_version
    session.submit("after", "true", suspend=True)
    told = events(session, resource_version=version, field_selector="metadata.name=after")
    assert [(kind, item["metadata"]["name"]) for kind, item in told[:1]] == [("ADDED", "after")]
    assert {item["metadata"]["name"] for _, item in told} == {"after"}
    assert {kind for kind, _ in told[1:]} <= {"MODIFIED"}


def test_bookmarks_come_when_asked(session: Any) -> None:
    """A silent watch with bookmarks tells how far it has come; one without tells nothing."""
    version = session.batch.list_namespaced_job("default").metadata.resource_version
    assert events(session, resource_version=version) == []
    session.core.create_namespaced_secret("default", {"metadata": {"generateName": "elsewhere-"}})
    told = events(session, resource_version=version, allow_watch_bookmarks=True)
    assert {kind for kind, _ in told} == {"BOOKMARK"}
    assert int(told[-1][1]["metadata"]["resourceVersion"]) > int(version)


def test_a_forgotten_version_is_gone(session: Any) -> None:
    """After a compaction a watch from an older version is 410; a new list is a fresh start."""
    version = session.batch.list_namespaced_job("default").metadata.resource_version
    session.fake.compact_history()
    with pytest.raises(client.ApiException) as caught:
        events(session, resource_version=version)
    assert caught.value.status == 410
    fresh = session.batch.list_namespaced_job("default").metadata.resource_version
    assert events(session, resource_version=fresh) == []


def test_pages_show_one_state(session: Any) -> None:
    """A continued list has the version and state of its first page; after a compaction it is 410."""

    def create(name: str) -> None:
        session.core.create_namespaced_secret("kube-system", {"metadata": {"name": name}})

    def page(**options: Any) -> Any:
        return session.core.list_namespaced_secret("kube-system", limit=2, **options)

    for number in range(5):
        create(f"page-{number}")
    first = page()
    create("page-3-and-late")
    second = page(_continue=first.metadata._continue)
    third = page(_continue=second.metadata._continue)
    assert {one.metadata.resource_version for one in (second, third)} == {first.metadata.resource_version}
    assert [one.metadata.remaining_item_count for one in (first, second, third)] == [3, 1, None]
    seen = [item.metadata.name for one in (first, second, third) for item in one.items]
    assert seen == [f"page-{number}" for number in range(5)]
    session.fake.compact_history()
    with pytest.raises(client.ApiException) as caught:
        page(_continue=second.metadata._continue)
    assert caught.value.status == 410


def test_selectors_choose(session: Any) -> None:
    """Labels by equality, set and presence; fields only those that are indexed."""
    for name, team in (("one", "a"), ("two", "b")):
        body = {"metadata": {"name": name, "labels": {"team": team}}}
        session.core.create_namespaced_secret("default", body)

    def names(**options: Any) -> list[str]:
        return [item.metadata.name for item in session.core.list_namespaced_secret("default", **options).items]

    assert names(label_selector="team=a") == ["one"]
    assert names(label_selector="team in (a, b),team!=a") == ["two"]
    assert {"one", "two"} & set(names(label_selector="!team")) == set()
    assert names(field_selector="metadata.name=two") == ["two"]
    with pytest.raises(client.ApiException, match="field label not supported"):
        names(field_selector="spec.colour=red")
