"""Which connections the page reads, and how: the Airflow configuration in, sources out.

Section ``[mlops]`` of the Airflow configuration, or ``AIRFLOW__MLOPS__<OPTION>``:

- ``mlflow_conn_id``: the connection of the model registry, ``mlflow_default`` if it is not set
- ``mlflow_ui_url``: address of MLflow as a browser reaches it, if that is not the connection's own
- ``deployment_targets``: comma list of ``<target>:<connection>``, ``local:gateway_default`` if it is not set

Credentials stay here: what a source returns holds none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import Any, TypeVar

from airflow.configuration import conf
from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_mlops.core.errors import IntegrityError, NotFoundError, redact
from airflow_mlops.core.refs import ModelVersion
from airflow_mlops.evaluation.evidence import Evidence, read_evidence
from airflow_mlops.hooks.deployment import DeploymentHook
from airflow_mlops.hooks.mlflow import MLflowHook
from airflow_mlops.registry.lock import PREFIX as LOCK
from airflow_mlops.registry.registries.mlflow import MLflowRegistry
from airflow_mlops.ui.cards import endpoint_card, model_card, shown_versions
from airflow_mlops.ui.gate import GATE, UNREADABLE
from airflow_mlops.ui.page import EndpointCard, ModelCard
from airflow_mlops.ui.queries import Source

Card = TypeVar("Card")

SECTION = "mlops"
PARALLEL = 8
"""How many models or endpoints one source is asked for at a time."""


def configured_sources() -> tuple[Source, ...]:
    """Return every source that is configured now."""
    conn_id = conf.get(SECTION, "mlflow_conn_id", fallback="mlflow_default")
    targets = conf.getlist(SECTION, "deployment_targets", fallback=["local:gateway_default"])
    return (Source("models", "MLflow", conn_id, partial(read_models, conn_id)), *map(_endpoints, targets))


def _endpoints(entry: str) -> Source:
    target, _, conn_id = entry.strip().partition(":")
    return Source("endpoints", f"Target {target}", conn_id, partial(read_endpoints, target, conn_id))


def read_models(conn_id: str, limit: int) -> list[ModelCard]:
    """Return the cards of at most *limit* registered models, by name."""
    with _known(conn_id), MLflowHook(conn_id).get_client() as client:
        registry = MLflowRegistry(client)
        address = conf.get(SECTION, "mlflow_ui_url", fallback="").rstrip("/") or client.address
        aliases = {model["name"]: _aliases(model) for model in client.models(limit=limit)}
        names = sorted(name for name in aliases if not name.startswith(LOCK))
        return _each(lambda name: _model(registry, name, aliases[name], address), names)


def _model(registry: MLflowRegistry, name: str, aliases: frozenset[str], address: str) -> ModelCard:
    versions = _versions(registry, name, aliases)
    evidence = {version.version: _evidence(registry, version) for version in shown_versions(versions)}
    return model_card(name, versions, address, evidence)


def _evidence(registry: MLflowRegistry, version: ModelVersion) -> Evidence | str | None:
    """Read what a gate decision rests on, and check that it is still what was decided on."""
    uri, digest = (version.tags.get(f"{GATE}{key}", "") for key in ("evidence_uri", "evidence"))
    if not uri or not digest:
        return None
    try:
        return read_evidence(registry.read(uri), digest)
    except IntegrityError as error:
        return redact(str(error))
    except (ValueError, TypeError, AttributeError):  # tags are written by many hands
        return UNREADABLE


def _aliases(model: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(entry["alias"] for entry in model.get("aliases", ()))


def _versions(registry: MLflowRegistry, name: str, aliases: frozenset[str]) -> list[ModelVersion]:
    """Return the newest versions, and those with an alias however old they are."""
    newest = registry.history(name)
    seen = {alias for version in newest for alias in version.aliases}
    return [*newest, *(registry.resolve(name, alias) for alias in sorted(aliases - seen))]


def read_endpoints(target: str, conn_id: str, limit: int) -> list[EndpointCard]:
    """Return the cards of at most *limit* endpoints on *target*, by name."""
    with _known(conn_id):
        platform = DeploymentHook(target, conn_id).get_target()
    names = sorted(platform.endpoints())[:limit]
    return _each(lambda name: endpoint_card(target, platform.status(name)), names)


def _each(read: Callable[[str], Card], names: Sequence[str]) -> list[Card]:
    """Read several at a time. What was deleted since it was listed is left out."""

    def found(name: str) -> list[Card]:
        try:
            return [read(name)]
        except NotFoundError:
            return []

    with ThreadPoolExecutor(PARALLEL, thread_name_prefix="mlops-ui-read") as pool:
        return list(chain.from_iterable(pool.map(found, names)))


@contextmanager
def _known(conn_id: str) -> Iterator[None]:
    try:
        yield
    except AirflowNotFoundException as error:
        raise NotFoundError(f"There is no connection {conn_id!r}. Add it under Admin > Connections.") from error
