"""Training backends that kill their own process at one verb: everything else they leave to the real ones.

``DEATH`` says where, as ``<verb>:<when>:<call>``: before or after that call of the verb, asleep (a moment after it), or
ended (after a look that found the job over). Without it nobody dies.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable, Mapping
from typing import Any

from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.training.backends.local import LocalBackend
from airflow_mlops.training.contract import JobHandle, JobStatus, TrainingSpec

DEATH = "MORTAL_BACKEND_DIES"
NAP = 0.15
"""Seconds after a look at which the worker is asleep: longer than it needs to go on, shorter than the poll interval."""


class Mortal:
    """In front of a real backend in the order of inheritance."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._calls = dict.fromkeys(("submit", "observe"), 0)

    def submit(self, spec: TrainingSpec, *, name: str, owner: TaskIdentity) -> JobHandle:
        self._moment("submit", "before")
        handle: JobHandle = super().submit(spec, name=name, owner=owner)  # type: ignore[misc]
        self._moment("submit", "after")
        return handle

    def observe(self, handles: Iterable[JobHandle]) -> Mapping[JobHandle, JobStatus]:
        self._moment("observe", "before")
        found: Mapping[JobHandle, JobStatus] = super().observe(handles)  # type: ignore[misc]
        self._moment("observe", "after")
        if os.environ.get(DEATH) == "observe:ended" and any(status.state.terminal for status in found.values()):
            die()
        return found

    def _moment(self, verb: str, when: str) -> None:
        self._calls[verb] += when == "before"
        at = os.environ.get(DEATH, "")
        if at == f"{verb}:{when}:{self._calls[verb]}":
            die()
        if (at, when) == (f"{verb}:asleep:{self._calls[verb]}", "after"):
            threading.Timer(NAP, die).start()


def die() -> None:
    """End this process as ``kill -9`` does."""
    os.kill(os.getpid(), signal.SIGKILL)


class MortalLocal(Mortal, LocalBackend):
    """Processes of this machine."""
