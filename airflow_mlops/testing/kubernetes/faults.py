"""What can go wrong between a client and the server, on demand: a test asks, the next matching requests suffer."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

from airflow_mlops.testing.kubernetes.problems import CODES, Problem
from airflow_mlops.testing.kubernetes.requests import Request

REASONS = {code: reason for reason, code in CODES.items()}


class ConnectionLost(Exception):  # noqa: N818 - the connection ends without an answer
    """The connection must be closed without a word."""


@dataclass
class _Rule:
    left: int
    verb: str
    resource: str
    problem: Problem | None

    def takes(self, request: Request) -> bool:
        if not self.left or self.verb not in {"", request.verb} or self.resource not in {"", request.resource}:
            return False
        self.left -= 1
        return True


class Faults:
    """The faults of the wire. *verb* and *resource* narrow a fault to such as ``create`` and ``jobs``."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[_Rule] = []
        self._lags: dict[str, float] = {}
        self.watch_epoch = 0  # a stream that began in an earlier one is cut off

    def throttle(self, count: int, *, retry_after: int = 1, verb: str = "", resource: str = "") -> None:
        """Refuse the next *count* requests with 429 and ``Retry-After`` (seconds)."""
        message = "Too many requests, please try again later."
        self._add(count, verb, resource, Problem("TooManyRequests", message, retry_after=retry_after))

    def fail(self, count: int, *, code: int = 500, verb: str = "", resource: str = "") -> None:
        """Refuse the next *count* requests with *code*, such as 500, 503 or 403, before they have an effect."""
        self._add(count, verb, resource, Problem(REASONS[code], f"{REASONS[code]} on demand of a test"))

    def lose_answers(self, count: int, *, verb: str = "create", resource: str = "") -> None:
        """Do what the next *count* requests ask for, then close the connection without an answer."""
        self._add(count, verb, resource, None)

    def lag(self, seconds: float, verbs: Iterable[str] = ("list", "watch")) -> None:
        """Delay every answer to these verbs, and each event of a watch, by *seconds*; 0 ends it."""
        with self._lock:
            self._lags.update(dict.fromkeys(verbs, seconds))

    def before(self, request: Request) -> bool:
        """Delay or refuse a request; return whether its answer must be lost.

        :raises Problem: it is refused
        """
        self.delay(request.verb)
        with self._lock:
            rule = next((rule for rule in self._rules if rule.takes(request)), None)
        if rule is not None and rule.problem is not None:
            raise rule.problem
        return rule is not None

    def delay(self, verb: str) -> None:
        """Sleep as long as this verb lags."""
        with self._lock:
            seconds = self._lags.get(verb, 0.0)
        time.sleep(seconds)

    def _add(self, count: int, verb: str, resource: str, problem: Problem | None) -> None:
        with self._lock:
            self._rules.append(_Rule(count, verb, resource, problem))
