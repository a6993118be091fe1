"""Weights are kept in the long run, and a key stays where it is."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.serving.routing import choose, sticky_point

_points = st.floats(0, 100, exclude_max=True)


@st.composite
def _traffic(draw: st.DrawFn) -> dict[str, float]:
    cuts = sorted(draw(st.lists(st.integers(0, 100), max_size=4)))
    edges = [0, *cuts, 100]
    return {f"v{i}": float(b - a) for i, (a, b) in enumerate(pairwise(edges))}


@given(_traffic())
def test_each_revision_has_its_part_of_the_range(traffic: dict[str, float]) -> None:
    """Over an even grid of points every revision gets exactly its percent, and one without traffic gets nothing."""
    found = [choose(traffic, index / 10) for index in range(1000)]
    assert {revision: found.count(revision) / 10 for revision in traffic} == traffic


@given(_points)
def test_without_traffic_nobody_answers(point: float) -> None:
    """No revision, or only revisions at 0 percent: nobody is chosen."""
    assert choose({}, point) is None
    assert choose({"v1": 0.0}, point) is None


@given(_points, st.integers(0, 100), st.integers(0, 100))
def test_a_growing_canary_keeps_its_keys(point: float, one: int, other: int) -> None:
    """Who was on the canary stays there when it gets more."""
    small, large = sorted((one, other))
    if choose({"v1": 100 - small, "v2": small}, point) == "v2":
        assert choose({"v1": 100 - large, "v2": large}, point) == "v2"


@given(st.text(), st.text())
def test_a_key_always_stands_on_the_same_point(endpoint: str, key: str) -> None:
    """The point depends on nothing but endpoint and key, and is in the range."""
    assert 0 <= sticky_point(endpoint, key) == sticky_point(endpoint, key) < 100


def test_keys_spread_evenly() -> None:
    """A tenth of many keys falls into each tenth of the range, within five standard deviations."""
    points = [sticky_point("e", f"user-{number}") for number in range(10_000)]
    counts = [sum(low <= point < low + 10 for point in points) for low in range(0, 100, 10)]
    assert max(abs(count - 1000) for count in counts) < 5 * 30
