"""Data goes only where it may: the rule itself."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import InvalidSpecError, ResidencyError
from airflow_mlops.core.refs import DataVersion
from airflow_mlops.core.residency import carried_by, place, require_residency, split_places

NAMES = st.sampled_from(["eu", "us", "on-prem", "EU ", " On-Prem"])
VERSION = DataVersion("data/x", "v1", "c" * 40, "md5:0", 3)


@given(st.dictionaries(st.text(max_size=5), st.just("") | NAMES, max_size=4), st.lists(NAMES, max_size=3))
def test_nothing_passes_but_what_may(carried: dict[str, str], told: list[str]) -> None:
    """It passes exactly when each residency is one of the platform's, however it is spelled; empty ones always do."""
    info = ConnectionInfo("there", extra={"residency": told})
    _, places = split_places(info, "sagemaker")
    spelled = {name.strip().lower() for name in told}
    allowed = all(not name or name.strip().lower() in spelled for name in carried.values())
    expected: Any = contextlib.nullcontext() if allowed else pytest.raises(ResidencyError, match="'residency'")
    with expected:
        require_residency(carried, places, backend="sagemaker", conn_id="there")


def test_the_error_says_all_of_it() -> None:
    """The rule, the input, its residency, the backend, its connection, where that is and what to do."""
    with pytest.raises(ResidencyError) as caught:
        require_residency({"input 'train'": "on-prem"}, ("eu",), backend="vertex", conn_id="gcp")
    words = ("'residency'", "input 'train'", "'on-prem'", "'vertex'", "'gcp'", "'eu'", "Choose")
    assert [word for word in words if word not in str(caught.value)] == []


@given(st.dictionaries(st.text(max_size=5), st.integers(), max_size=3), st.none() | st.just("eu"))
def test_the_backend_never_sees_the_extra(extra: dict[str, int], told: str | None) -> None:
    """All other extras reach the backend as they are, and the connection stays the same otherwise."""
    info = ConnectionInfo("c", host="h", password="p", extra={**extra, **({"residency": told} if told else {})})
    rest, _ = split_places(info, "kubernetes")
    assert rest.extra == extra
    assert (rest.conn_id, rest.host, rest.password) == ("c", "h", "p")


@pytest.mark.parametrize(
    ("backend", "extra", "places"),
    [
        ("local", {}, ("on-prem",)),
        ("local", {"residency": "eu"}, ("eu",)),
        ("local", {"residency": []}, ()),
        ("kubernetes", {}, ()),
        ("kubernetes", {"residency": ["EU", "on-prem"]}, ("eu", "on-prem")),
    ],
)
def test_where_a_backend_is(backend: str, extra: dict[str, object], places: tuple[str, ...]) -> None:
    """Only the local backend is somewhere without being told; a connection overrides that, too."""
    assert split_places(ConnectionInfo("c", extra=extra), backend)[1] == places


@pytest.mark.parametrize("told", [1, "", " ", ["eu", ""], {"eu": 1}, [None]])
def test_a_place_is_a_name(told: object) -> None:
    """Anything else in the extra is refused with the connection's name."""
    with pytest.raises(InvalidSpecError, match="connection 'c'"):
        split_places(ConnectionInfo("c", extra={"residency": told}), "local")


def test_a_residency_of_blanks_is_refused_rather_than_ignored() -> None:
    """Blanks are no place."""
    with pytest.raises(InvalidSpecError, match="input 'a'"):
        require_residency({"input 'a'": " "}, ("eu",), backend="local", conn_id="")
    assert place(" EU ", "x") == "eu"


def test_versions_are_found_however_they_are_wrapped() -> None:
    """Among parameters a version may stand alone, in what a task that fetched it returned, or in a list."""
    here = {**VERSION.to_dict(), "residency": "on-prem"}
    values = {"a": here, "b": {"version": here, "path": "/x"}, "c": [VERSION.to_dict(), here], "d": 1, "residency": "x"}
    assert carried_by(values) == {"a": "on-prem", "b.version": "on-prem", "c[1]": "on-prem"}


def test_versions_of_older_runs_can_still_be_read() -> None:
    """A dict without the field is a version that may go anywhere."""
    old = {key: value for key, value in VERSION.to_dict().items() if key != "residency"}
    assert DataVersion.from_dict(old) == VERSION
