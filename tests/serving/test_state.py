"""Changes of traffic are computed without side effects, and the file holds one whole state or the other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.core.errors import ConflictError, InvalidSpecError, NotFoundError
from airflow_mlops.serving.state import EndpointRecord, RevisionRecord, load_state, save_state


def _record(name: str) -> RevisionRecord:
    return RevisionRecord(name, "m", "1", "sha256:0", source="/m", folder=f"{name}-0")


EMPTY = EndpointRecord("e", (_record("v1"), _record("v2"), _record("v3")))


def _after(*steps: dict[str, float]) -> EndpointRecord:
    record = EMPTY
    for step in steps:
        record = record.shifted(step)
    return record


@pytest.mark.parametrize(
    ("traffic", "error", "message"),
    [
        ({"v1": 60, "v2": 30}, InvalidSpecError, "must sum to 100 percent, got 90"),
        ({"v1": 150, "v2": -50}, InvalidSpecError, "'v1' must be 0 to 100 percent, got 150"),
        ({"v1": float("nan")}, InvalidSpecError, "got nan"),
        ({}, InvalidSpecError, "got 0"),
        ({"v9": 100}, NotFoundError, "no revision 'v9': It has v1, v2, v3"),
    ],
)
def test_wrong_traffic_is_refused(traffic: dict[str, float], error: type[Exception], message: str) -> None:
    """Percents sum to 100 and belong to revisions that exist."""
    with pytest.raises(error, match=message):
        EMPTY.shifted(traffic)


def test_previous_is_what_was_wholly_rolled_out_before() -> None:
    """The steps of a canary leave ``previous`` alone; the last one sets it."""
    assert _after({"v1": 100}).previous == ""
    assert _after({"v1": 100}, {"v1": 95, "v2": 5}, {"v1": 10, "v2": 90}).previous == ""
    assert _after({"v1": 100}, {"v1": 10, "v2": 90}, {"v2": 100}).previous == "v1"
    assert _after({"v1": 100}, {"v2": 100}, {"v2": 50, "v3": 50}).previous == "v1"


@pytest.mark.parametrize(
    ("steps", "target"),
    [
        ([{"v1": 100}, {"v1": 5, "v2": 95}], "v1"),
        ([{"v1": 100}, {"v2": 100}], "v1"),
        ([{"v1": 100}, {"v2": 100}, {"v2": 50, "v3": 50}], "v2"),
        ([{"v1": 70, "v2": 30}, {"v1": 30, "v2": 70}], "v1"),
    ],
)
def test_rollback_goes_to_the_revision_before(steps: list[dict[str, float]], target: str) -> None:
    """In the middle of a canary that is the old revision, after a full roll-out the one before it."""
    record = _after(*steps)
    assert record.rollback_target() == target
    back = record.back_at(target)
    assert back.shares[target] == 100
    assert back.rollback_target() == "", "a second rollback in a row changes nothing"
    assert back.shifted({target: 50, "v3": 50}).rollback_target() == target, "after a shift there is a way back again"


def test_rollback_without_an_earlier_revision_is_refused() -> None:
    """There is nothing to go back to before the first traffic and during the first revision."""
    for record in (EMPTY, _after({"v1": 100})):
        with pytest.raises(ConflictError, match="no earlier revision"):
            record.rollback_target()


def test_a_revision_with_traffic_cannot_be_removed() -> None:
    """Removing never drops requests; removing what is not there changes nothing."""
    record = _after({"v1": 100}, {"v2": 100})
    with pytest.raises(InvalidSpecError, match="'v2' of 'e' still gets 100 percent"):
        record.without("v2")
    assert record.without("v9") == record
    assert record.without("v1").previous == ""


_weights = st.tuples(st.integers(0, 100), st.integers(0, 100)).map(
    lambda cut: {"v1": min(cut), "v2": max(cut) - min(cut), "v3": 100 - max(cut)}
)


@given(st.lists(_weights, min_size=1, max_size=6))
def test_any_row_of_shifts_keeps_the_promises(steps: list[dict[str, int]]) -> None:
    """Traffic is what the last step said, the same step twice is once, and a rollback leads to one revision."""
    record = _after(*({name: float(share) for name, share in step.items()} for step in steps))
    assert record.shares == steps[-1]
    assert record.shifted(steps[-1]) == record
    assert record.previous != record.stable
    assert EndpointRecord.from_dict(json.loads(json.dumps(record.to_dict()))) == record
    if record.stable and (record.previous or record.shares[record.stable] != 100):
        back = record.back_at(record.rollback_target())
        assert sorted(back.shares.values()) == [0, 0, 100]


def test_the_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    """What is read after a restart equals what was written, and no draft is left."""
    path = tmp_path / "state.json"
    assert load_state(path) == {}
    state = {"e": _after({"v1": 100}, {"v1": 50, "v2": 50}), "f": EndpointRecord("f")}
    save_state(path, state)
    save_state(path, state)
    assert load_state(path) == state
    assert [file.name for file in tmp_path.iterdir()] == ["state.json"]
