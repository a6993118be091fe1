"""What can go wrong between a client and the server, on demand: a test asks, the next matching requests suffer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from airflow_mlops.testing.kfp.problems import CODES, Problem

REASONS = {http: reason for reason, (_, http) in CODES.items()}


@dataclass
class _Rule:
    left: int
    verb: str
    problem: Problem | None = None
    late: float | None = None


class Faults:
    """The faults of the wire. *verb* narrows a fault to such as ``CreateRun`` or ``ListRuns``; empty means all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[_Rule] = []
        self._late: list[threading.Timer] = []
        self.stale_lists = False
        """While true, lists of runs show what there was when it was set."""

    def throttle(self, count: int, *, retry_after: int = 1, verb: str = "") -> None:
        """Refuse the next *count* requests with 429 and ``Retry-After`` (seconds)."""
        self._add(_Rule(count, verb, Problem("RESOURCE_EXHAUSTED", "Too many requests", retry_after=retry_after)))

    def fail(self, count: int, *, code: int = 500, verb: str = "") -> None:
        """Refuse the next *count* requests with *code* before they have an effect."""
        self._add(_Rule(count, verb, Problem(REASONS[code], f"{REASONS[code]} on demand of a test")))

    def lose_answers(self, count: int, *, verb: str = "CreateRun", late: float | None = None) -> None:
        """Do what the next *count* requests ask for and close the connection without an answer.

        :param late: close it at once, and do it only after so many seconds
        """
        self._add(_Rule(count, verb, late=late))

    def answer(
        self, verb: str, act: Callable[[], tuple[int, dict[str, object]]]
    ) -> tuple[int, dict[str, object]] | None:
        """Carry out a request as the faults have it; ``None`` when its answer is lost.

        :raises Problem: it is refused
        """
        rule = self._taken(verb)
        if rule is None:
            return act()
        if rule.problem is not None:
            raise rule.problem
        if rule.late is None:
            act()
        else:
            self._late.append(threading.Timer(rule.late, act))
            self._late[-1].start()
        return None

    def settle(self) -> None:
        """Wait until all that is late has been done."""
        for timer in self._late:
            timer.join()

    def _taken(self, verb: str) -> _Rule | None:
        with self._lock:
            for rule in self._rules:
                if rule.left and rule.verb in {"", verb}:
                    rule.left -= 1
                    return rule
        return None

    def _add(self, rule: _Rule) -> None:
        with self._lock:
            self._rules.append(rule)
