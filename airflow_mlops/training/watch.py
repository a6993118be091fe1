"""One watcher for all jobs that are waited for at one place: it looks at them together, however many they are.

It only looks. Trouble in reaching the platform stays here: it backs off, and nobody who waits hears of it before the
platform has been away for long. Who is cancelled just leaves: leaving never stops a job.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from contextvars import Context
from dataclasses import dataclass
from math import inf
from typing import Any

from airflow_mlops.core.errors import PlatformUnavailableError
from airflow_mlops.training.contract import JobBackend, JobHandle
from airflow_mlops.training.look import Notifies, Observer, Streams, look
from airflow_mlops.training.watch_rules import Looks, Outcome, Pace, Sight, Waiter, alarm, judge, next_look, ready

__all__ = ["Place", "Watcher", "watch"]

BREATH = 0.05
"""Seconds in which news are gathered: a thousand who join or leave at once are one turn, not a thousand."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """What one watcher looks at.

    :param backend: name of the training backend
    :param conn_id: connection of the platform; empty for none
    :param scope: what one look covers where a connection leads to several: a namespace, a project and region
    """

    backend: str
    conn_id: str = ""
    scope: str = ""

    @classmethod
    def of(cls, backend: str, conn_id: str | None, handle: JobHandle) -> Place:
        """Return the place of a job: its scope is what its id has before the last ``/``."""
        return cls(backend, conn_id or "", handle.job_id.rpartition("/")[0])


Connect = Callable[[], Awaitable[JobBackend[Any, Any]]]

_watchers: dict[tuple[asyncio.AbstractEventLoop, Place], Watcher] = {}


async def watch(
    handle: JobHandle,
    place: Place,
    connect: Connect,
    *,
    interval: float,
    deadline: float | None = None,
    pace: Pace | None = None,
) -> Outcome:
    """Wait until there is something to tell about a job, together with all in this event loop that wait there.

    :param connect: makes the backend; called in the watcher's task, on first use and after a failed look
    :param interval: seconds between two looks; the shortest that is asked for at a place counts
    :param deadline: seconds since 1970 after which to return in any case
    :param pace: of the watcher, if this is the first to wait here
    :raises Exception: what *connect* or the look at this job raised, unless the platform was only away
    """
    key = (asyncio.get_running_loop(), place)
    if key not in _watchers:
        _watchers[key] = Watcher(place, connect, pace or Pace(), released=lambda: _watchers.pop(key, None))
    return await _watchers[key].wait(handle, interval, deadline)


class Watcher:
    """Looks at the jobs of one place until the last who waits has left, and a while longer.

    :param released: called when it takes no more waiters
    """

    def __init__(
        self, place: Place, connect: Connect, pace: Pace, *, released: Callable[[], object] = lambda: None
    ) -> None:
        self.place, self._connect, self._pace, self._released = place, connect, pace, released
        self._waiting: dict[Waiter, asyncio.Future[Outcome]] = {}
        self._looks, self._jitter, self._idle_since = Looks(), random.random(), time.monotonic()  # noqa: S311
        self._wake, self._has_news = asyncio.Event(), False
        self._looking: asyncio.Task[None] | None = None
        self._backend: JobBackend[Any, Any] | None = None
        self._stream: ExitStack = ExitStack()
        self._observer: Observer | None = None
        # An empty context: otherwise the first one's log and task would be taken for everybody's.
        self._task = asyncio.get_running_loop().create_task(self._run(), context=Context())

    async def wait(self, handle: JobHandle, interval: float, deadline: float | None) -> Outcome:
        """Wait for one job."""
        now = time.monotonic()
        waiter = Waiter(handle, interval, now, inf if deadline is None else now + deadline - time.time())
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting[waiter] = future
        self._wake.set()
        try:
            return await future
        finally:
            self._leave(waiter)

    def _leave(self, waiter: Waiter) -> None:
        self._waiting.pop(waiter, None)
        self._idle_since = time.monotonic()
        self._wake.set()

    async def _run(self) -> None:
        try:
            while self._waiting or self._looking or time.monotonic() < self._idle_since + self._pace.linger:
                await self._turn()
        except Exception as error:
            self._tell(Sight(broken={waiter.handle: error for waiter in self._waiting}))
            raise
        finally:
            self._released()
            for future in self._waiting.values():
                future.cancel()
            await self._disconnect()

    async def _turn(self) -> None:
        """Start a look if it is time, tell those whose time is up, and sleep until the next moment or news."""
        now = time.monotonic()
        if self._looking is None and now >= self._next_look():
            handles = {waiter.handle: None for waiter in self._waiting if ready(waiter, self._pace) <= now}
            self._has_news = False
            self._looking = asyncio.create_task(self._look(list(handles), now))
        self._tell(Sight())
        pause = self._next_moment() - time.monotonic()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if pause == inf else max(0.0, pause)):
                await self._wake.wait()
                await asyncio.sleep(BREATH)
        self._wake.clear()

    def _next_look(self) -> float:
        return next_look(self._waiting, self._looks, self._pace, self._jitter, has_news=self._has_news)

    def _next_moment(self) -> float:
        """Return when there is something to do, if nothing happens before."""
        if not self._waiting:
            return inf if self._looking else self._idle_since + self._pace.linger
        first = min(alarm(waiter, self._looks, self._pace) for waiter in self._waiting)
        return first if self._looking else min(first, self._next_look())

    async def _look(self, handles: list[JobHandle], began: float) -> None:
        """Look once at many jobs, and tell those who wait for them what there is to tell."""
        sight, error = await self._see(handles)
        now = time.monotonic()
        self._looks = self._looks.after_failure(began, now, error) if error else self._looks.after_answer(began, now)
        self._looking, self._jitter = None, random.random()  # noqa: S311
        self._tell(sight)
        self._wake.set()

    async def _see(self, handles: list[JobHandle]) -> tuple[Sight, str]:
        """Return what there is to see, and why not if there was no answer. It never raises."""
        try:
            if self._backend is None or self._observer is None:
                self._backend = await self._connect()
                self._observer = await asyncio.to_thread(self._open, self._backend)
                self._listen(self._observer)
            return await asyncio.to_thread(look, self._backend, self._observer, handles), ""
        except PlatformUnavailableError as error:
            sight, why = Sight(), str(error) or repr(error)
        except Exception as error:  # noqa: BLE001 - it is not lost: each who waits gets it
            sight, why = Sight(broken=dict.fromkeys(handles, error)), repr(error)
        log.warning("The look at %d jobs of %s failed: %s", len(handles), self.place, why)
        await self._disconnect()
        return sight, why

    def _open(self, backend: JobBackend[Any, Any]) -> Observer:
        return self._stream.enter_context(backend.stream()) if isinstance(backend, Streams) else backend

    def _listen(self, observer: Observer) -> None:
        """Look soon whenever a stream has news, instead of only once an interval."""
        if isinstance(observer, Notifies):
            loop = asyncio.get_running_loop()
            observer.notify(lambda: loop.call_soon_threadsafe(self._news))

    def _news(self) -> None:
        self._has_news = True
        self._wake.set()

    async def _disconnect(self) -> None:
        """Forget the backend: the next look makes a new one, whose credentials may be newer."""
        self._backend = self._observer = None
        stream, self._stream = self._stream, ExitStack()
        try:
            await asyncio.to_thread(stream.close)
        except Exception as error:  # noqa: BLE001 - it is of no more use, whatever its end says
            log.warning("The stream of %s did not end well: %r", self.place, error)

    def _tell(self, sight: Sight) -> None:
        now = time.monotonic()
        for waiter, future in self._waiting.items():
            if future.done():
                continue
            if waiter.handle in sight.broken:
                future.set_exception(sight.broken[waiter.handle])
            elif outcome := judge(waiter, self._looks, sight, self._pace, now):
                future.set_result(outcome)
