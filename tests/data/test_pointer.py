"""Pointers are plain text with one meaning."""

from __future__ import annotations

import pytest
import yaml
from dvc.schema import COMPILED_SINGLE_STAGE_SCHEMA
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.core.errors import IntegrityError, InvalidSpecError
from airflow_mlops.data.placement import safe_listing
from airflow_mlops.data.pointer import Pointer, ignoring, read_pointer, tracked_path, write_pointer

_OIDS = st.text("0123456789abcdef", min_size=32, max_size=32)


@given(_OIDS, st.booleans(), st.integers(0, 2**60), st.integers(1, 10**6))
def test_pointers_survive_the_way_through_text(oid: str, folder: bool, size: int, nfiles: int) -> None:
    """What is written is what is read."""
    pointer = Pointer(oid + ".dir", size, nfiles) if folder else Pointer(oid, size)
    assert read_pointer(write_pointer(pointer, "data/x"), "data/x") == pointer


@given(st.text(max_size=40))
def test_text_that_is_no_pointer_is_refused(text: str) -> None:
    """Anything else is refused as what it is, never with an error of a parser."""
    with pytest.raises(InvalidSpecError):
        read_pointer(text, "data/x")


@given(st.text(max_size=40), st.from_regex(r"[a-z]+(/[a-z]+)?", fullmatch=True))
def test_ignoring_twice_is_ignoring_once(text: str, path: str) -> None:
    """The line is there once, and what was there stays."""
    once = ignoring(text, path)
    assert ignoring(once, path) == once
    assert once.startswith(text)


@given(st.text(max_size=30))
def test_a_tracked_path_stays_inside(path: str) -> None:
    """What is accepted has one spelling and never leads out of the repository."""
    try:
        clean = tracked_path(path)
    except InvalidSpecError:
        return
    assert not clean.startswith(("/", "-"))
    assert ".." not in clean.split("/")
    assert tracked_path(clean) == clean


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "", "a\\b", "x\0y"])
def test_listed_files_stay_inside(name: str) -> None:
    """A list that names a file outside of its folder is damaged."""
    with pytest.raises(IntegrityError, match="outside"):
        safe_listing({name: "0" * 32}, "list")


@pytest.mark.parametrize("residency", ["on-prem", "eu: 1", '"', "# no", "été"])
def test_a_residency_survives_the_way_through_text(residency: str) -> None:
    """Where the data has to stay is written where DVC itself leaves it alone, and read back."""
    pointer = Pointer("0" * 32, 3, residency=residency)
    text = write_pointer(pointer, "data/x")
    assert read_pointer(text, "data/x").residency == residency
    COMPILED_SINGLE_STAGE_SCHEMA(yaml.safe_load(text))  # DVC's own schema takes it


def test_a_residency_of_the_whole_file_counts_as_well() -> None:
    """DVC allows ``meta`` at both places; what a person wrote at either is not overlooked."""
    text = write_pointer(Pointer("0" * 32, 3), "data/x") + "meta: {residency: On-Prem, owner: [me]}\n"
    COMPILED_SINGLE_STAGE_SCHEMA(yaml.safe_load(text))
    assert read_pointer(text, "data/x").residency == "on-prem"


@pytest.mark.parametrize("written", ["residency:", "residency: [eu, on-prem]", "residency: {at: eu}", "residency: ' '"])
def test_a_residency_that_is_no_name_is_refused(written: str) -> None:
    """A slip of the pen does not set the data free."""
    text = write_pointer(Pointer("0" * 32, 3), "data/x") + f"meta:\n  {written}\n"
    with pytest.raises(InvalidSpecError, match="residency of 'data/x'"):
        read_pointer(text, "data/x")


def test_two_residencies_are_refused() -> None:
    """The file and its out may not say two things."""
    text = write_pointer(Pointer("0" * 32, 3, residency="eu"), "data/x") + "meta: {residency: on-prem}\n"
    with pytest.raises(InvalidSpecError, match="eu and on-prem"):
        read_pointer(text, "data/x")
