"""A target that keeps everything in memory, for the faults a real one cannot be asked to make."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_mlops.core.errors import PlatformUnavailableError
from airflow_mlops.core.refs import ModelVersion
from airflow_mlops.deployment.contract import EndpointStatus, Revision, RevisionState, WindowMetrics
from airflow_mlops.deployment.rollout import same_split


class MemoryTarget:
    """One endpoint with two ready revisions, ``v1`` (all traffic) and ``v2``.

    :param bad: whether ``v2`` fails half of its requests
    :param lost: how many of the next shifts get through although the answer is lost
    :param deaf: shifts are accepted and not carried out
    :param failed: name of a revision that failed for good
    """

    name = "memory"
    needs_folder = False

    def __init__(self, *, bad: bool = False) -> None:
        self.bad, self.lost, self.deaf, self.failed = bad, 0, False, ""
        self.traffic: dict[str, float] = {"v1": 100.0}
        self.shifts: list[dict[str, float]] = []

    def deploy(
        self, model: ModelVersion, endpoint: str, *, revision: str, options: Mapping[str, Any] | None = None
    ) -> EndpointStatus:
        """Do nothing: both revisions are there."""
        return self.status(endpoint)

    def status(self, endpoint: str) -> EndpointStatus:
        """Return both revisions."""
        revisions = tuple(
            Revision(name, "fares", name[1:], state=self._state(name), traffic=self.traffic.get(name, 0.0))
            for name in ("v1", "v2", "v3")
        )
        return EndpointStatus(endpoint, "http://127.0.0.1", revisions)

    def _state(self, name: str) -> RevisionState:
        return RevisionState.FAILED if name == self.failed else RevisionState.READY

    def shift(self, endpoint: str, traffic: Mapping[str, float]) -> EndpointStatus:
        """Shift, and perhaps lose the answer."""
        if not self.deaf and not same_split(self.traffic, traffic):
            self.traffic = dict(traffic)
            self.shifts.append(self.traffic)
        if self.lost:
            self.lost -= 1
            raise PlatformUnavailableError("The line went dead.")
        return self.status(endpoint)

    def rollback(self, endpoint: str) -> EndpointStatus:
        """Give all to v1."""
        return self.shift(endpoint, {"v1": 100.0})

    def remove(self, endpoint: str, revision: str) -> EndpointStatus:
        """Keep both."""
        return self.status(endpoint)

    def metrics(self, endpoint: str, since: float, until: float) -> Mapping[str, WindowMetrics]:
        """Return a hundred requests each."""
        spread = tuple(i / 100 for i in range(100))
        errors = {"v1": 0, "v2": 50 if self.bad else 0}
        return {name: WindowMetrics(name, 100, errors[name], None, None, spread, spread) for name in errors}

    def endpoints(self) -> tuple[str, ...]:
        """Return the one."""
        return ("fares",)
