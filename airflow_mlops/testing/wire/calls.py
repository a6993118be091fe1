"""What the requests cost: every one that arrived, by verb and resource, also those that were refused."""

from __future__ import annotations

import threading
from dataclasses import dataclass


@dataclass(frozen=True)
class Call:
    """One request as the server saw it; *code* is the HTTP status it was answered with, 0 if the answer was lost."""

    verb: str
    resource: str
    namespace: str
    name: str
    code: int


class Calls:
    """The requests since the start or the last ``reset()``; a watch counts once, when it is opened."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: list[Call] = []

    def add(self, call: Call) -> None:
        """Count one request."""
        with self._lock:
            self._seen.append(call)

    def seen(self, verb: str = "", resource: str = "", code: int | None = None) -> list[Call]:
        """Return the requests, oldest first; an empty *verb* or *resource* and a *code* of None match all."""
        with self._lock:
            known = list(self._seen)
        return [
            call
            for call in known
            if verb in {"", call.verb} and resource in {"", call.resource} and code in {None, call.code}
        ]

    def count(self, verb: str = "", resource: str = "", code: int | None = None) -> int:
        """Return how many requests match, such as ``count("list", "jobs")`` or ``count("get", "pods/log")``."""
        return len(self.seen(verb, resource, code))

    def reset(self) -> None:
        """Begin to count anew."""
        with self._lock:
            self._seen.clear()
