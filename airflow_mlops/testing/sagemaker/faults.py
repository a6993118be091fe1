"""What can go wrong between a client and the services, on demand: a test asks, the next matching requests suffer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from airflow_mlops.testing.sagemaker.problems import Problem

T = TypeVar("T")


@dataclass
class _Rule:
    left: int
    operation: str
    problem: Problem | None


class Faults:
    """The faults of the wire. *operation* narrows a fault to such as ``CreateTrainingJob``; empty means all.

    :ivar stale_lists: while true, lists and searches show what there was when they were last read before
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[_Rule] = []
        self.stale_lists = False

    def throttle(self, count: int, *, operation: str = "") -> None:
        """Refuse the next *count* requests as too many."""
        self.refuse(count, "ThrottlingException", "Rate exceeded", operation=operation)

    def fail(self, count: int, *, operation: str = "") -> None:
        """Fail the next *count* requests with HTTP 500 before they have an effect."""
        self.refuse(count, "InternalFailure", "The request processing has failed", operation=operation)

    def refuse(self, count: int, code: str, message: str, *, operation: str = "") -> None:
        """Refuse the next *count* requests with a code, such as ``ResourceLimitExceeded``."""
        self._add(_Rule(count, operation, Problem(code, message)))

    def lose_answers(self, count: int, *, operation: str = "CreateTrainingJob") -> None:
        """Do what the next *count* requests ask for and close the connection without an answer."""
        self._add(_Rule(count, operation, None))

    def answer(self, operation: str, act: Callable[[], T]) -> T | None:
        """Carry out a request as the faults have it; ``None`` when its answer is lost.

        :raises Problem: it is refused
        """
        rule = self._taken(operation)
        if rule is None:
            return act()
        if rule.problem is not None:
            raise rule.problem
        try:
            act()
        except Problem:
            return None
        return None

    def _taken(self, operation: str) -> _Rule | None:
        with self._lock:
            for rule in self._rules:
                if rule.left and rule.operation in {"", operation}:
                    rule.left -= 1
                    return rule
        return None

    def _add(self, rule: _Rule) -> None:
        with self._lock:
            self._rules.append(rule)
