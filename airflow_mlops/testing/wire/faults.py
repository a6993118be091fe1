"""Faults on demand: a test asks, the next matching requests suffer. How each is refused is the platform's own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from airflow_mlops.testing.wire.listener import ConnectionLost

T = TypeVar("T")


@dataclass
class Rule:
    """What happens to the next *left* requests that *words* match; an empty word matches all.

    :param problem: they are refused with this; without it they are carried out and their answers are lost
    :param late: they are carried out only after so many seconds
    """

    left: int
    words: tuple[str, ...]
    problem: Exception | None = None
    late: float | None = None


class Rules:
    """The faults that were asked for and have not happened yet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[Rule] = []
        self._late: list[threading.Timer] = []

    def add(self, count: int, *words: str, problem: Exception | None = None, late: float | None = None) -> None:
        """Let the next *count* requests suffer."""
        with self._lock:
            self._rules.append(Rule(count, words, problem, late))

    def take(self, *words: str) -> Rule | None:
        """Return the rule for a request with these words, which is used up by one, or ``None``."""
        with self._lock:
            for rule in self._rules:
                if rule.left and all(wanted in {"", word} for wanted, word in zip(rule.words, words, strict=True)):
                    rule.left -= 1
                    return rule
        return None

    def before(self, *words: str) -> bool:
        """Refuse a request if it is to be; return whether its answer must be lost.

        :raises Exception: the problem of the refusal
        """
        rule = self.take(*words)
        if rule is not None and rule.problem is not None:
            raise rule.problem
        return rule is not None

    def carry_out(self, *words: str, act: Callable[[], T]) -> T:
        """Carry out a request as the faults have it.

        :raises Exception: the problem of a refusal
        :raises ConnectionLost: its answer is lost
        """
        rule = self.take(*words)
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
