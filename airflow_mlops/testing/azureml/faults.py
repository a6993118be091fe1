"""What can go wrong between a client and the service, on demand: a test asks, the next matching requests suffer."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from airflow_mlops.testing.azureml.problems import Problem

WORDS = {403: "AuthorizationFailed", 409: "Conflict", 500: "InternalServerError", 503: "ServiceUnavailable"}


@dataclass
class _Rule:
    left: int
    verb: str
    problem: Problem | None


class Faults:
    """The faults of the wire. *verb* narrows a fault to such as ``PutJob`` or ``ListJobs``; empty means all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[_Rule] = []
        self.stale_lists = False
        """While true, lists of jobs show what there was when the first of them was asked for."""

    def throttle(self, count: int, *, retry_after: int = 1, verb: str = "") -> None:
        """Refuse the next *count* requests with 429 and ``Retry-After`` (seconds)."""
        self._add(count, verb, Problem(429, "TooManyRequests", "The request was throttled.", retry_after=retry_after))

    def fail(self, count: int, *, code: int = 500, verb: str = "") -> None:
        """Refuse the next *count* requests with *code* before they have an effect."""
        self._add(count, verb, Problem(code, WORDS[code], f"{WORDS[code]} on demand of a test"))

    def lose_answers(self, count: int, *, verb: str = "PutJob") -> None:
        """Do what the next *count* requests ask for and close the connection without an answer."""
        self._add(count, verb, None)

    def before(self, verb: str) -> bool:
        """Refuse a request if it is to be; return whether its answer must be lost.

        :raises Problem: it is refused
        """
        with self._lock:
            rule = next((rule for rule in self._rules if rule.left and rule.verb in {"", verb}), None)
            if rule is not None:
                rule.left -= 1
        if rule is not None and rule.problem is not None:
            raise rule.problem
        return rule is not None

    def _add(self, count: int, verb: str, problem: Problem | None) -> None:
        with self._lock:
            self._rules.append(_Rule(count, verb, problem))
