"""Registry and platform records in, cards of the page out. Pure: nothing here asks anybody.

Tags are written by many hands, so a tag that cannot be read is left out. It never breaks the page.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from urllib.parse import quote

from airflow_mlops.core.refs import ModelVersion
from airflow_mlops.deployment.contract import EndpointStatus
from airflow_mlops.evaluation.evidence import Evidence
from airflow_mlops.registry.contract import CHAMPION
from airflow_mlops.ui.gate import gate_card
from airflow_mlops.ui.page import DriftCard, EndpointCard, GateCard, ModelCard, RevisionCard, VersionCard

DRIFT = "airflow_mlops.drift."
SHOWN = 6
"""How many versions of one model are shown at most."""


def shown_versions(versions: Iterable[ModelVersion]) -> list[ModelVersion]:
    """Return the versions that matter, newest first: those with an alias, and the newest of all."""
    return [v for at, v in enumerate(_newest_first(versions)) if v.aliases or at == 0][:SHOWN]


def model_card(
    name: str,
    versions: Sequence[ModelVersion],
    address: str,
    evidence: Mapping[str, Evidence | str | None] = MappingProxyType({}),
) -> ModelCard:
    """Return the card of one model.

    :param versions: what the registry knows, in any order
    :param address: where a browser finds MLflow; empty for no links
    :param evidence: version -> what its gate decision rests on, or why that cannot be read
    """
    known, shown = _newest_first(versions), shown_versions(versions)
    return ModelCard(
        name=name,
        versions=tuple(_version(v, address, gate_card(v.tags, evidence.get(v.version))) for v in shown),
        drift=_drift(known),
        hidden=len(known) - len(shown),
        url=f"{address}/#/models/{quote(name, safe='')}" if address else "",
    )


def endpoint_card(target: str, status: EndpointStatus) -> EndpointCard:
    """Return the card of one endpoint on *target*."""
    revisions = tuple(
        RevisionCard(r.revision, r.model, r.version, r.state.value, r.traffic, r.digest, r.detail)
        for r in status.revisions
    )
    return EndpointCard(status.endpoint, target, status.url, status.previous, revisions)


def _newest_first(versions: Iterable[ModelVersion]) -> list[ModelVersion]:
    return sorted({v.version: v for v in versions}.values(), key=_number, reverse=True)


def _number(version: ModelVersion) -> tuple[int, str]:
    return (int(version.version) if version.version.isdecimal() else -1, version.version)


def _version(version: ModelVersion, address: str, gate: GateCard | None) -> VersionCard:
    tags = version.tags
    dag_run = " / ".join(filter(None, (tags.get("airflow.dag_id"), tags.get("airflow.run_id"))))
    page = f"{address}/#/models/{quote(version.name, safe='')}/versions/{quote(version.version, safe='')}"
    return VersionCard(
        version=version.version,
        aliases=tuple(sorted(version.aliases, key=lambda alias: (alias != CHAMPION, alias))),
        digest=version.digest,
        data=_data(tags),
        checks=tags.get("mlops.validation.status", ""),
        gate=gate,
        dag_run=dag_run,
        url=page if address else "",
    )


def _data(tags: Mapping[str, str]) -> tuple[str, ...]:
    """Return the digests of the data a version was trained on."""
    named = (key for key in sorted(tags) if key.startswith("mlops.data.") and key.endswith(".digest"))
    return tuple(dict.fromkeys(tags[key] for key in named))


def _drift(versions: Sequence[ModelVersion]) -> DriftCard | None:
    """Return the verdict that was reached last, whichever version it was about."""
    found = [_drift_of(v) for v in versions if v.tags.get(f"{DRIFT}verdict")]
    return max(found, key=lambda drift: drift.at, default=None)


def _drift_of(version: ModelVersion) -> DriftCard:
    tags = {key.removeprefix(DRIFT): value for key, value in version.tags.items() if key.startswith(DRIFT)}
    return DriftCard(
        version=version.version,
        verdict=tags["verdict"].lower(),
        columns=_words(tags.get("columns", "")),
        at=tags.get("at", ""),
        rows=tags.get("rows", ""),
    )


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())
