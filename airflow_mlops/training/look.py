"""One look at many jobs: the blocking part of waiting, which runs in a thread.

One bad job must never spoil the look at the others, and one answer that misses a job must never make it gone.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

from airflow_mlops.core.errors import PlatformUnavailableError
from airflow_mlops.training.contract import JobHandle, JobStatus
from airflow_mlops.training.watch_rules import Sight

__all__ = ["Notifies", "Observer", "Streams", "look"]

DIRECT_LOOKS = 20
"""How many absent jobs are asked for alone after one look; the others wait for the next."""

log = logging.getLogger(__name__)


class Observer(Protocol):
    """What tells about many jobs at once: a backend, or its stream."""

    def observe(self, handles: Iterable[JobHandle]) -> Mapping[JobHandle, JobStatus]:
        """Look at many jobs at once, as :meth:`TrainingBackend.observe`."""
        ...


@runtime_checkable
class Notifies(Protocol):
    """A stream that says when there is news, so that nobody has to look at it for nothing. Optional."""

    def notify(self, changed: Callable[[], object]) -> None:
        """Call *changed* from now on whenever a job changed or the stream broke, from any thread."""
        ...


@runtime_checkable
class Streams(Protocol):
    """A backend whose platform tells by itself what changes, for example by list and watch.

    Optional. The watcher then looks at the stream, which answers from memory, and asks the backend itself only for jobs
    that the stream does not know. A stream that broke raises ``PlatformUnavailableError`` and is opened anew.
    """

    def stream(self) -> AbstractContextManager[Observer]:
        """Open the stream; leaving the context ends it. Both may block."""
        ...


def look(backend: Observer, observer: Observer, handles: list[JobHandle]) -> Sight:
    """Look at many jobs at once, and at those that are absent from the answer once more, alone. It blocks.

    :raises PlatformUnavailableError: the platform did not answer
    """
    found, broken = _observe(observer, handles)
    absent = [handle for handle in handles if handle not in found and handle not in broken]
    gone = []
    for handle in random.sample(absent, min(len(absent), DIRECT_LOOKS)):
        try:
            alone, faults = _observe(backend, [handle])
        except PlatformUnavailableError:
            break  # not confirmed: the next look asks again
        if not alone and not faults:
            gone.append(handle)
        found, broken = {**found, **alone}, {**broken, **faults}
    return Sight(found, gone, broken)


def _observe(
    observer: Observer, handles: list[JobHandle]
) -> tuple[Mapping[JobHandle, JobStatus], Mapping[JobHandle, Exception]]:
    """Look at many jobs at once. If that raises, look at each half, so that one bad job spoils only its own look."""
    try:
        return observer.observe(handles), {}
    except PlatformUnavailableError:
        raise
    except Exception as error:  # noqa: BLE001 - it is not lost: the one who waits for the job gets it
        if len(handles) == 1:
            return {}, {handles[0]: error}
        log.warning("The look at %d jobs raised %r: looking at each half.", len(handles), error)
    middle = len(handles) // 2
    (found, broken), (more, worse) = _observe(observer, handles[:middle]), _observe(observer, handles[middle:])
    return {**found, **more}, {**broken, **worse}
