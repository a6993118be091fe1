"""What can go wrong between a client and the server, on demand: a test asks, the next matching requests suffer."""

from __future__ import annotations

import time
from collections.abc import Iterable

from airflow_mlops.testing.kubernetes.problems import CODES, Problem
from airflow_mlops.testing.kubernetes.requests import Request
from airflow_mlops.testing.wire.faults import Rules

REASONS = {code: reason for reason, code in CODES.items()}


class Faults:
    """The faults of the wire. *verb* and *resource* narrow a fault to such as ``create`` and ``jobs``."""

    def __init__(self) -> None:
        self._rules = Rules()
        self._lags: dict[str, float] = {}
        self.watch_epoch = 0  # a stream that began in an earlier one is cut off

    def throttle(self, count: int, *, retry_after: int = 1, verb: str = "", resource: str = "") -> None:
        """Refuse the next *count* requests with 429 and ``Retry-After`` (seconds)."""
        message = "Too many requests, please try again later."
        self._rules.add(count, verb, resource, problem=Problem("TooManyRequests", message, retry_after=retry_after))

    def fail(self, count: int, *, code: int = 500, verb: str = "", resource: str = "") -> None:
        """Refuse the next *count* requests with *code*, such as 500, 503 or 403, before they have an effect."""
        problem = Problem(REASONS[code], f"{REASONS[code]} on demand of a test")
        self._rules.add(count, verb, resource, problem=problem)

    def lose_answers(self, count: int, *, verb: str = "create", resource: str = "") -> None:
        """Do what the next *count* requests ask for, then close the connection without an answer."""
        self._rules.add(count, verb, resource)

    def lag(self, seconds: float, verbs: Iterable[str] = ("list", "watch")) -> None:
        """Delay every answer to these verbs, and each event of a watch, by *seconds*; 0 ends it."""
        self._lags.update(dict.fromkeys(verbs, seconds))

    def before(self, request: Request) -> bool:
        """Delay or refuse a request; return whether its answer must be lost.

        :raises Problem: it is refused
        """
        self.delay(request.verb)
        return self._rules.before(request.verb, request.resource)

    def delay(self, verb: str) -> None:
        """Sleep as long as this verb lags."""
        time.sleep(self._lags.get(verb, 0.0))
