"""What every deployment target promises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from airflow_mlops.core.records import Record
from airflow_mlops.core.refs import ModelVersion


class RevisionState(StrEnum):
    """What one revision of an endpoint is doing. An unknown native word is UNKNOWN, never ready."""

    CREATING = "creating"
    READY = "ready"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Revision(Record):
    """One model version on an endpoint.

    :param revision: name, unique within the endpoint, for example ``v3``
    :param model: name of the registered model
    :param version: its version
    :param digest: ``sha256:<hex>`` of the files that serve, checked when they were loaded
    :param traffic: share of requests in percent, 0 to 100
    :param detail: why it failed, in the platform's words
    """

    revision: str
    model: str
    version: str
    digest: str = ""
    state: RevisionState = RevisionState.UNKNOWN
    traffic: float = 0.0
    detail: str = ""


@dataclass(frozen=True)
class EndpointStatus(Record):
    """What really serves, read back from the platform.

    :param url: address that takes requests
    :param revisions: every revision, oldest first; the traffic of all sums to 100, or to 0 before the first shift
    :param previous: the revision that had most of the traffic before the last one that was wholly rolled out
    """

    endpoint: str
    url: str
    revisions: tuple[Revision, ...] = ()
    previous: str = ""

    @property
    def traffic(self) -> dict[str, float]:
        """Revision -> percent, without the revisions that get none."""
        return {r.revision: r.traffic for r in self.revisions if r.traffic}

    def find(self, revision: str) -> Revision | None:
        """Return the revision of that name, or ``None``."""
        return next((r for r in self.revisions if r.revision == revision), None)

    def idle(self, revision: str) -> tuple[str, ...]:
        """Return the revisions without traffic that are neither *revision* nor ``previous``."""
        kept = {revision, self.previous}
        return tuple(r.revision for r in self.revisions if not r.traffic and r.revision not in kept)


@dataclass(frozen=True)
class WindowMetrics(Record):
    """What one revision did with its requests in one window of time.

    :param requests: number of requests it answered, well or badly
    :param errors: answers with status 500 or above
    :param latency_p50_ms: median time to answer in milliseconds
    :param latency_p99_ms: 99th percentile of the time to answer in milliseconds
    :param predictions: a sample of numeric predictions (the score of the positive class where there is one)
    :param latencies_ms: a sample of the times to answer in milliseconds; empty where the platform keeps none
    """

    revision: str
    requests: int
    errors: int
    latency_p50_ms: float | None = None
    latency_p99_ms: float | None = None
    predictions: tuple[float, ...] = ()
    latencies_ms: tuple[float, ...] = ()


@runtime_checkable
class DeploymentTarget(Protocol):
    """A platform that serves models. Every verb may be called twice with the same effect as once.

    :param needs_folder: whether ``deploy`` wants the model's files, as the folder in its option ``path``
    """

    name: str
    needs_folder: bool

    def deploy(
        self, model: ModelVersion, endpoint: str, *, revision: str, options: Mapping[str, Any] | None = None
    ) -> EndpointStatus:
        """Put *model* on *endpoint* as *revision* and wait until it is ready. It gets no traffic yet.

        Only the very first revision of an endpoint gets all traffic at once. The same revision with the same digest
        is left alone.

        :raises IntegrityError: the files differ from the digest recorded at registration
        :raises JobFailedError: it did not get ready; the message says why, and the traffic is as it was
        :raises ConflictError: the revision exists with another digest
        """
        ...

    def shift(self, endpoint: str, traffic: Mapping[str, float]) -> EndpointStatus:
        """Make *traffic* (revision -> percent, sum 100) the truth and return it as read back.

        :raises NotFoundError: no such endpoint or revision
        :raises InvalidSpecError: the percents do not sum to 100, or a revision is not ready
        """
        ...

    def status(self, endpoint: str) -> EndpointStatus:
        """Read back what serves.

        :raises NotFoundError: no such endpoint; the message lists those there are
        """
        ...

    def rollback(self, endpoint: str) -> EndpointStatus:
        """Give all traffic to the revision that was wholly rolled out before, and return the status read back."""
        ...

    def remove(self, endpoint: str, revision: str) -> EndpointStatus:
        """Take a revision without traffic away. An absent one is left alone.

        :raises InvalidSpecError: it still gets traffic
        """
        ...

    def metrics(self, endpoint: str, since: float, until: float) -> Mapping[str, WindowMetrics]:
        """Return what each revision did between two moments (seconds since 1970)."""
        ...

    def endpoints(self) -> tuple[str, ...]:
        """Return the names of all endpoints this package deployed."""
        ...
