"""What can go wrong between a client and the service, on demand: a test asks, the next matching requests suffer."""

from __future__ import annotations

from airflow_mlops.testing.azureml.problems import Problem
from airflow_mlops.testing.wire.faults import Rules

WORDS = {403: "AuthorizationFailed", 409: "Conflict", 500: "InternalServerError", 503: "ServiceUnavailable"}


class Faults:
    """The faults of the wire. *verb* narrows a fault to such as ``PutJob`` or ``ListJobs``; empty means all."""

    def __init__(self) -> None:
        self._rules = Rules()
        self.stale_lists = False
        """While true, lists of jobs show what there was when the first of them was asked for."""

    def throttle(self, count: int, *, retry_after: int = 1, verb: str = "") -> None:
        """Refuse the next *count* requests with 429 and ``Retry-After`` (seconds)."""
        problem = Problem(429, "TooManyRequests", "The request was throttled.", retry_after=retry_after)
        self.refuse(count, problem, verb=verb)

    def fail(self, count: int, *, code: int = 500, verb: str = "") -> None:
        """Refuse the next *count* requests with *code* before they have an effect."""
        self.refuse(count, Problem(code, WORDS[code], f"{WORDS[code]} on demand of a test"), verb=verb)

    def refuse(self, count: int, problem: Problem, *, verb: str = "") -> None:
        """Refuse the next *count* requests with a problem of the test's own."""
        self._rules.add(count, verb, problem=problem)

    def lose_answers(self, count: int, *, verb: str = "PutJob") -> None:
        """Do what the next *count* requests ask for and close the connection without an answer."""
        self._rules.add(count, verb)

    def before(self, verb: str) -> bool:
        """Refuse a request if it is to be; return whether its answer must be lost.

        :raises Problem: it is refused
        """
        return self._rules.before(verb)
