"""What can go wrong between a client and the services, on demand: a test asks, the next matching requests suffer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TypeVar

from airflow_mlops.testing.sagemaker.problems import Problem
from airflow_mlops.testing.wire.faults import Rules
from airflow_mlops.testing.wire.listener import ConnectionLost

T = TypeVar("T")


class Faults:
    """The faults of the wire. *operation* narrows a fault to such as ``CreateTrainingJob``; empty means all.

    :ivar stale_lists: while true, lists and searches show what there was when they were last read before
    """

    def __init__(self) -> None:
        self._rules = Rules()
        self.stale_lists = False

    def throttle(self, count: int, *, operation: str = "") -> None:
        """Refuse the next *count* requests as too many."""
        self.refuse(count, "ThrottlingException", "Rate exceeded", operation=operation)

    def fail(self, count: int, *, operation: str = "") -> None:
        """Fail the next *count* requests with HTTP 500 before they have an effect."""
        self.refuse(count, "InternalFailure", "The request processing has failed", operation=operation)

    def refuse(self, count: int, code: str, message: str, *, operation: str = "") -> None:
        """Refuse the next *count* requests with a code, such as ``ResourceLimitExceeded``."""
        self._rules.add(count, operation, problem=Problem(code, message))

    def lose_answers(self, count: int, *, operation: str = "CreateTrainingJob") -> None:
        """Do what the next *count* requests ask for and close the connection without an answer."""
        self._rules.add(count, operation)

    def answer(self, operation: str, act: Callable[[], T]) -> T:
        """Carry out a request as the faults have it.

        :raises Problem: it is refused
        :raises ConnectionLost: its answer is lost, be it a refusal
        """
        if not self._rules.before(operation):
            return act()
        with contextlib.suppress(Problem):
            act()
        raise ConnectionLost
