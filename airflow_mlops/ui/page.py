"""What the MLOps page shows, as plain values. The browser gets exactly this and nothing else.

No value here may hold a secret: a connection is named by its id only, and messages are redacted before they get here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from airflow_mlops.core.records import Record


@dataclass(frozen=True)
class GateValue(Record):
    """One figure the gate looked at, what it asked for (empty: nothing), and what its rule said."""

    rule: str
    verdict: str
    observed: str
    required: str = ""


@dataclass(frozen=True)
class GateCard(Record):
    """What the promotion gate said about a version.

    :param against: the champion it was compared with; empty when there was none
    :param why: for a person: why it did not pass, or why the figures are missing
    """

    verdict: str
    values: tuple[GateValue, ...] = ()
    against: str = ""
    why: str = ""


@dataclass(frozen=True)
class DriftCard(Record):
    """The last drift verdict on the data that a version sees.

    :param at: when it was looked at, ISO 8601; empty when unknown
    :param rows: rows of the current window; empty when unknown
    :param columns: the columns that drifted
    """

    version: str
    verdict: str
    columns: tuple[str, ...] = ()
    at: str = ""
    rows: str = ""


@dataclass(frozen=True)
class VersionCard(Record):
    """One version of a model.

    :param digest: ``sha256:<hex>`` of the model's files
    :param data: digests of the data it was trained on
    :param checks: what validation said about that data; empty when it was not asked
    :param dag_run: ``<dag> / <run>`` that registered it; empty when unknown
    :param url: the version's page in MLflow; empty when there is none
    """

    version: str
    aliases: tuple[str, ...] = ()
    digest: str = ""
    data: tuple[str, ...] = ()
    checks: str = ""
    gate: GateCard | None = None
    dag_run: str = ""
    url: str = ""


@dataclass(frozen=True)
class ModelCard(Record):
    """One registered model with the versions that matter: those with an alias, and the newest.

    :param hidden: number of further versions that are not shown, as far as was looked
    """

    name: str
    versions: tuple[VersionCard, ...] = ()
    drift: DriftCard | None = None
    hidden: int = 0
    url: str = ""


@dataclass(frozen=True)
class RevisionCard(Record):
    """One revision of an endpoint. ``traffic`` is in percent, 0 to 100."""

    revision: str
    model: str
    version: str
    state: str
    traffic: float
    digest: str = ""
    detail: str = ""


@dataclass(frozen=True)
class EndpointCard(Record):
    """One endpoint as its platform reports it."""

    endpoint: str
    target: str
    url: str = ""
    previous: str = ""
    revisions: tuple[RevisionCard, ...] = ()


@dataclass(frozen=True)
class Problem(Record):
    """A source that could not be shown. The rest of the page does not depend on it.

    :param kind: what is missing from the page: ``models`` or ``endpoints``
    :param message: why, and what to do about it
    """

    kind: str
    source: str
    conn_id: str
    message: str


@dataclass(frozen=True)
class Overview(Record):
    """The whole page.

    :param truncated: whether the page is full, so that there may be more models or endpoints than it shows
    :param limit: how many of each it shows at most
    """

    as_of: datetime
    models: tuple[ModelCard, ...] = ()
    endpoints: tuple[EndpointCard, ...] = ()
    problems: tuple[Problem, ...] = ()
    truncated: bool = False
    limit: int = 100
