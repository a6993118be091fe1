"""Where a model's profile and its drift reports are kept: with the run that made the model, and in its version's tags.

So the reference travels with the model, and a later check needs nothing but the alias. It never downloads the model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow_mlops.core.errors import InvalidSpecError, NotFoundError
from airflow_mlops.core.refs import ModelVersion
from airflow_mlops.drift.profile import DriftProfile
from airflow_mlops.drift.reference import profile_address, read_reference
from airflow_mlops.drift.report import DriftReport
from airflow_mlops.platforms.mlflow import MLflowClient

TAG = "airflow_mlops.drift"
"""First part of the tags: ``.profile`` (address), ``.verdict``, ``.columns``, ``.rows``, ``.at`` and ``.report``."""

_SHOWN_COLUMNS = 20

Connect = Callable[[], MLflowClient]
"""Opens a client when one is needed: a check of two files needs no server."""


def find_reference(
    connect: Connect, reference: str | Mapping[str, Any] | None, model: ModelVersion | None
) -> DriftProfile:
    """Return the profile that *reference* names, or the one that *model* carries when it names nothing.

    :raises NotFoundError: there is none
    :raises InvalidSpecError: neither was given
    """
    address = profile_address(reference) if reference else ""
    if address and not address.startswith("mlflow-artifacts:"):
        return read_reference(address)
    if not address and model is None:
        raise InvalidSpecError("There is nothing to compare with. Give reference, model or model_name.")
    with connect() as client:
        return load_profile(client, model) if model and not address else read_profile(client, address)


def keep_report(connect: Connect, report: DriftReport, model: ModelVersion | None, path: str | None) -> str:
    """Keep the whole *report* with *model* and at *path*, if given, and return its address; empty when nowhere."""
    uri = write_report(Path(path), report) if path else ""
    if model is None:
        return uri
    with connect() as client:
        return store_report(client, model, report)


def store_profile(client: MLflowClient, model: ModelVersion, profile: DriftProfile) -> str:
    """Keep *profile* as ``drift/profile.json`` of the model's run and return its address.

    :raises InvalidSpecError: the model has no run
    """
    uri = _address(client, model, "profile.json")
    client.artifacts.write(uri, profile.to_json().encode())
    client.set_version_tag(model.name, model.version, f"{TAG}.profile", uri)
    return uri


def load_profile(client: MLflowClient, model: ModelVersion) -> DriftProfile:
    """Return the profile that the model carries.

    :raises NotFoundError: it carries none
    """
    try:
        return read_profile(client, model.tags.get(f"{TAG}.profile") or _address(client, model, "profile.json"))
    except NotFoundError as error:
        raise NotFoundError(
            f"Version {model.version} of model {model.name!r} carries no drift profile. Run ProfileDataOperator with "
            "model=<the registered version> on its training data, or give reference=<a profile>."
        ) from error


def read_profile(client: MLflowClient, uri: str) -> DriftProfile:
    """Return the profile at an ``mlflow-artifacts:`` address.

    :raises NotFoundError: there is none
    """
    return DriftProfile.from_json(client.artifacts.read(uri).decode())


def store_report(client: MLflowClient, model: ModelVersion, report: DriftReport) -> str:
    """Keep the whole *report* with the model's run, and its gist as tags of the version. Return its address."""
    at = report.current_at or datetime.now(UTC).isoformat(timespec="seconds")
    stamp = "".join(c for c in at if c.isalnum())
    uri = _address(client, model, f"reports/{stamp}.json")
    client.artifacts.write(uri, json.dumps(report.to_dict()).encode())
    gist = {
        "verdict": report.verdict.value,
        "columns": ",".join(report.drifted[:_SHOWN_COLUMNS]),
        "rows": str(report.current_rows),
        "at": at,
        "report": uri,
    }
    for key, value in gist.items():
        client.set_version_tag(model.name, model.version, f"{TAG}.{key}", value)
    return uri


def write_report(path: Path, report: DriftReport) -> str:
    """Write the whole *report* as JSON to *path*, at once and complete, and return its address."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.tmp")
    partial.write_text(json.dumps(report.to_dict()), encoding="utf-8")
    return partial.replace(path).absolute().as_uri()


def _address(client: MLflowClient, model: ModelVersion, name: str) -> str:
    if not model.run_id:
        raise InvalidSpecError(
            f"Version {model.version} of model {model.name!r} has no run to keep a profile with. "
            "Register it with its run_id, or keep the profile in a file (output_path=...)."
        )
    return f"{str(client.run(model.run_id)['info']['artifact_uri']).rstrip('/')}/drift/{name}"
