"""From plain arguments to profiles: of data, and of whatever names a reference. It never talks to a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.drift.profile import PREDICTION, DriftProfile, build, with_column
from airflow_mlops.drift.sources.choose import path_of, source_of, version_of
from airflow_mlops.drift.sources.piece import Selection
from airflow_mlops.drift.sources.window import Window


def profile_data(
    data: str | Mapping[str, Any],
    *,
    file: str | None = None,
    columns: Sequence[str] = (),
    exclude: Sequence[str] = (),
    categorical: Sequence[str] = (),
    target: str = "",
    predictions: str | Mapping[str, Any] | None = None,
    prediction_column: str = PREDICTION,
) -> DriftProfile:
    """Return the profile of *data*; the model's answers in *predictions* become its column ``prediction``.

    :raises NotFoundError: there is no data, or a column does not exist
    """
    selection = Selection(tuple(columns), tuple(exclude), tuple(categorical))
    profile = build(source_of(data, file=file), selection, data=version_of(data), target=target)
    if not predictions:
        return profile
    answers = build(source_of(predictions), Selection(columns=(prediction_column,)))
    return with_column(profile, PREDICTION, answers.columns[prediction_column])


def profile_window(
    current: str | Mapping[str, Any],
    reference: DriftProfile,
    *,
    file: str | None = None,
    since: Any = None,
    until: Any = None,
    time_column: str = "",
    exclude: Sequence[str] = (),
) -> DriftProfile:
    """Return the profile of the current data, its columns read the way the reference's were.

    :raises NotFoundError: there is no data at the path; missing traffic is an empty profile with a warning
    """
    source = source_of(current, file=file, window=Window.of(since, until), time_column=time_column)
    coded = tuple(name for name, column in reference.columns.items() if column.coded)
    return build(source, Selection(exclude=tuple(exclude), categorical=coded))


def profile_address(reference: str | Mapping[str, Any]) -> str:
    """Return the path or address that *reference* names.

    :raises InvalidSpecError: it names none
    """
    if isinstance(reference, Mapping):
        found = reference.get("path") or reference.get("profile_uri") or reference.get("data")
    else:
        found = reference
    if not isinstance(found, str) or not found:
        raise InvalidSpecError(f"{reference!r} names no reference. Give a profile file, its address or data.")
    return found


def read_reference(reference: str | Mapping[str, Any]) -> DriftProfile:
    """Return the profile in a JSON file (a path or a ``file:`` address), or that of a data file or folder.

    :raises NotFoundError: there is nothing
    """
    address = profile_address(reference)
    path = Path(unquote(urlsplit(address).path)) if address.startswith("file:") else path_of(address)
    if path.suffix == ".json":
        return DriftProfile.read(path)
    return profile_data(str(path))
