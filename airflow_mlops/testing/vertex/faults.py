"""What can go wrong between a client and Google Cloud, on demand: a test asks, the next matching requests suffer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from airflow_mlops.testing.kubernetes.faults import ConnectionLost
from airflow_mlops.testing.vertex.problems import CODES, Problem

REASONS = {http: reason for reason, http in reversed(CODES.items())}


@dataclass
class _Rule:
    left: int
    verb: str
    resource: str
    problem: Problem | None = None
    late: float | None = None


class Faults:
    """The faults of the wire. *verb* and *resource* narrow a fault to such as ``create`` and ``customJobs``."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[_Rule] = []
        self._late: list[threading.Timer] = []
        self.stale_lists = False
        """While true, lists of jobs show what there was, and how it was, when it was set."""

    def throttle(self, count: int, *, retry_after: int = 1, verb: str = "", resource: str = "") -> None:
        """Refuse the next *count* requests with 429 and ``Retry-After`` (seconds)."""
        text = "Quota exceeded for quota metric 'Online requests' and limit 'Online requests per minute per region'."
        self._add(_Rule(count, verb, resource, Problem("RESOURCE_EXHAUSTED", text, retry_after=retry_after)))

    def exceed_quota(self, count: int, *, resource: str = "customJobs") -> None:
        """Refuse the next *count* creations because the project may not have that many machines."""
        metric = "aiplatform.googleapis.com/custom_model_training_cpus"
        text = f"The following quota metrics exceed quota limits: {metric}"
        self._add(_Rule(count, "create", resource, Problem("RESOURCE_EXHAUSTED", text)))

    def fail(self, count: int, *, code: int = 503, verb: str = "", resource: str = "") -> None:
        """Refuse the next *count* requests with *code* before they have an effect."""
        self._add(_Rule(count, verb, resource, Problem(REASONS[code], f"{REASONS[code]} on demand of a test")))

    def lose_answers(self, count: int, *, verb: str = "create", resource: str = "", late: float | None = None) -> None:
        """Do what the next *count* requests ask for and close the connection without an answer.

        :param late: close it at once, and do it only after so many seconds
        """
        self._add(_Rule(count, verb, resource, late=late))

    def answer(self, verb: str, resource: str, act: Callable[[], bytes]) -> bytes:
        """Carry out a request as the faults have it.

        :raises Problem: it is refused
        :raises ConnectionLost: its answer is lost
        """
        rule = self._taken(verb, resource)
        if rule is None:
            return act()
        if rule.problem is not None:
            raise rule.problem
        if rule.late is None:
            act()
        else:
            self._late.append(threading.Timer(rule.late, act))
            self._late[-1].start()
        raise ConnectionLost

    def settle(self) -> None:
        """Wait until all that is late has been done."""
        for timer in self._late:
            timer.join()

    def _taken(self, verb: str, resource: str) -> _Rule | None:
        with self._lock:
            for rule in self._rules:
                if rule.left and rule.verb in {"", verb} and rule.resource in {"", resource}:
                    rule.left -= 1
                    return rule
        return None

    def _add(self, rule: _Rule) -> None:
        with self._lock:
            self._rules.append(rule)
