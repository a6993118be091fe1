"""What can go wrong between a client and the server, on demand: a test asks, the next matching requests suffer."""

from __future__ import annotations

from collections.abc import Callable

from airflow_mlops.testing.kfp.problems import CODES, Problem
from airflow_mlops.testing.wire.faults import Rules

REASONS = {http: reason for reason, (_, http) in CODES.items()}


class Faults:
    """The faults of the wire. *verb* narrows a fault to such as ``CreateRun`` or ``ListRuns``; empty means all."""

    def __init__(self) -> None:
        self._rules = Rules()
        self.stale_lists = False
        """While true, lists of runs show what there was when it was set."""

    def throttle(self, count: int, *, retry_after: int = 1, verb: str = "") -> None:
        """Refuse the next *count* requests with 429 and ``Retry-After`` (seconds)."""
        problem = Problem("RESOURCE_EXHAUSTED", "Too many requests", retry_after=retry_after)
        self._rules.add(count, verb, problem=problem)

    def fail(self, count: int, *, code: int = 500, verb: str = "") -> None:
        """Refuse the next *count* requests with *code* before they have an effect."""
        self._rules.add(count, verb, problem=Problem(REASONS[code], f"{REASONS[code]} on demand of a test"))

    def lose_answers(self, count: int, *, verb: str = "CreateRun", late: float | None = None) -> None:
        """Do what the next *count* requests ask for and close the connection without an answer.

        :param late: close it at once, and do it only after so many seconds
        """
        self._rules.add(count, verb, late=late)

    def answer(self, verb: str, act: Callable[[], tuple[int, dict[str, object]]]) -> tuple[int, dict[str, object]]:
        """Carry out a request as the faults have it.

        :raises Problem: it is refused
        :raises ConnectionLost: its answer is lost
        """
        return self._rules.carry_out(verb, act=act)

    def settle(self) -> None:
        """Wait until all that is late has been done."""
        self._rules.settle()
