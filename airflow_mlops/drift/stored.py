"""Where a model's profile and its drift reports are kept: with the run that made the model, and in its version's tags.

So the reference travels with the model, and a later check needs nothing but the alias. It never downloads the model.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from airflow_mlops.core.errors import InvalidSpecError, NotFoundError
from airflow_mlops.core.refs import ModelVersion
from airflow_mlops.drift.profile import DriftProfile
from airflow_mlops.drift.report import DriftReport
from airflow_mlops.platforms.mlflow import MLflowClient

TAG = "airflow_mlops.drift"
"""First part of the tags: ``.profile`` (address), ``.verdict``, ``.columns``, ``.rows``, ``.at`` and ``.report``."""

_SHOWN_COLUMNS = 20


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
            "Register it with its run_id, or keep the profile in a file (output=...)."
        )
    return f"{str(client.run(model.run_id)['info']['artifact_uri']).rstrip('/')}/drift/{name}"
