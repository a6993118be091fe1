"""What can go wrong between a client and Google Cloud, on demand: a test asks, the next matching requests suffer."""

from __future__ import annotations

from collections.abc import Callable

from airflow_mlops.testing.vertex.problems import CODES, Problem
from airflow_mlops.testing.wire.faults import Rules

REASONS = {http: reason for reason, http in reversed(CODES.items())}


class Faults:
    """The faults of the wire. *verb* and *resource* narrow a fault to such as ``create`` and ``customJobs``."""

    def __init__(self) -> None:
        self._rules = Rules()
        self.stale_lists = False
        """While true, lists of jobs show what there was, and how it was, when it was set."""

    def throttle(self, count: int, *, retry_after: int = 1, verb: str = "", resource: str = "") -> None:
        """Refuse the next *count* requests with 429 and ``Retry-After`` (seconds)."""
        text = "Quota exceeded for quota metric 'Online requests' and limit 'Online requests per minute per region'."
        problem = Problem("RESOURCE_EXHAUSTED", text, retry_after=retry_after)
        self._rules.add(count, verb, resource, problem=problem)

    def exceed_quota(self, count: int, *, resource: str = "customJobs") -> None:
        """Refuse the next *count* creations because the project may not have that many machines."""
        metric = "aiplatform.googleapis.com/custom_model_training_cpus"
        text = f"The following quota metrics exceed quota limits: {metric}"
        self._rules.add(count, "create", resource, problem=Problem("RESOURCE_EXHAUSTED", text))

    def fail(self, count: int, *, code: int = 503, verb: str = "", resource: str = "") -> None:
        """Refuse the next *count* requests with *code* before they have an effect."""
        problem = Problem(REASONS[code], f"{REASONS[code]} on demand of a test")
        self._rules.add(count, verb, resource, problem=problem)

    def lose_answers(self, count: int, *, verb: str = "create", resource: str = "", late: float | None = None) -> None:
        """Do what the next *count* requests ask for and close the connection without an answer.

        :param late: close it at once, and do it only after so many seconds
        """
        self._rules.add(count, verb, resource, late=late)

    def answer(self, verb: str, resource: str, act: Callable[[], bytes]) -> bytes:
        """Carry out a request as the faults have it.

        :raises Problem: it is refused
        :raises ConnectionLost: its answer is lost
        """
        return self._rules.carry_out(verb, resource, act=act)

    def settle(self) -> None:
        """Wait until all that is late has been done."""
        self._rules.settle()
