"""The shared watcher: one look for all who wait, trouble kept from them, and nothing left when they are gone."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar

import pytest

from airflow_mlops.core.errors import InvalidSpecError, PlatformUnavailableError
from airflow_mlops.core.features import Feature
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.training import watch as watching
from airflow_mlops.training.contract import (
    JobHandle,
    JobState,
    JobStatus,
    TrainingBackend,
    TrainingResult,
    TrainingSpec,
)
from airflow_mlops.training.look import DIRECT_LOOKS, look
from airflow_mlops.training.watch import Place, watch
from airflow_mlops.training.watch_rules import Outcome, Pace, Why

FAST = Pace(first_look=0.05, shortest=0.01, longest=0.05, linger=0.1)
LIMIT = 60.0
WHO: ContextVar[str] = ContextVar("who", default="nobody")


class MemoryBackend:
    """A platform that is a dict. It can be away, miss a job in long answers, and choke on one."""

    name = "memory"
    lacks: Mapping[Feature, str] = {}

    def __init__(self, jobs: Iterable[str] = ()) -> None:
        self.jobs = dict.fromkeys(jobs, JobState.RUNNING)
        self.asked: list[list[str]] = []
        self.away = False
        self.missed: set[str] = set()
        self.poison: set[str] = set()
        self.seen_by: set[str] = set()
        self.answer = threading.Event()
        self.answer.set()

    def submit(self, spec: TrainingSpec, *, name: str, owner: TaskIdentity) -> JobHandle:
        self.jobs.setdefault(name, JobState.RUNNING)
        return self.handle(name)

    def locate(self, name: str) -> JobHandle | None:
        return self.handle(name) if name in self.jobs else None

    def observe(self, handles: Iterable[JobHandle]) -> Mapping[JobHandle, JobStatus]:
        handles = list(handles)
        self.asked.append([handle.job_id for handle in handles])
        self.seen_by.add(WHO.get())
        self.answer.wait(LIMIT)
        if self.away:
            raise PlatformUnavailableError("The platform is away.")
        if poisoned := [handle.job_id for handle in handles if handle.job_id in self.poison]:
            raise ValueError(f"cannot read {poisoned[0]}")
        hidden = self.missed if len(handles) > 1 else set()
        return {h: JobStatus(self.jobs[h.job_id]) for h in handles if h.job_id in self.jobs and h.job_id not in hidden}

    def cancel(self, handle: JobHandle) -> None:
        self.jobs[handle.job_id] = JobState.CANCELLED

    def collect(self, handle: JobHandle) -> TrainingResult:
        return TrainingResult(handle)

    def managed(self) -> Iterator[tuple[JobHandle, TaskIdentity]]:
        return iter(())

    def handle(self, name: str) -> JobHandle:
        return JobHandle(self.name, name)


class StreamingBackend(MemoryBackend):
    """A platform that tells by itself: its stream answers from memory, and may miss what is new."""

    def __init__(self, jobs: Iterable[str] = ()) -> None:
        super().__init__(jobs)
        self.opened = self.closed = 0
        self.cache = MemoryBackend(jobs)

    @contextmanager
    def stream(self) -> Iterator[MemoryBackend]:
        self.opened += 1
        yield self.cache
        self.closed += 1


class NotifyingBackend(StreamingBackend):
    """A platform whose stream also says when there is news."""

    def __init__(self, jobs: Iterable[str] = ()) -> None:
        super().__init__(jobs)
        self.cache = NotifyingCache(jobs)


class NotifyingCache(MemoryBackend):
    """Keeps whom to tell."""

    changed: Callable[[], None] | None = None

    def notify(self, changed: Callable[[], None]) -> None:
        self.changed = changed


class Room:
    """Everybody who waits for jobs of one backend in one event loop."""

    def __init__(self, backend: MemoryBackend, pace: Pace = FAST) -> None:
        self.backend, self.pace, self.connections = backend, pace, 0

    async def connect(self) -> TrainingBackend:
        self.connections += 1
        return self.backend

    def wait(self, name: str, interval: float = 0.02, deadline: float | None = None) -> asyncio.Task[Outcome]:
        handle = self.backend.handle(name)
        place = Place.of("memory", None, handle)
        found = watch(handle, place, self.connect, interval=interval, deadline=deadline, pace=self.pace)
        return asyncio.create_task(found)


def run(scene: Callable[[], Awaitable[None]]) -> None:
    """Play a scene in an event loop of its own, for at most a minute."""

    async def limited() -> None:
        async with asyncio.timeout(LIMIT):
            await scene()

    asyncio.run(limited())


async def until(true: Callable[[], bool]) -> None:
    """Wait until something is so."""
    while not true():  # noqa: ASYNC110 - what it waits for knows nothing of events
        await asyncio.sleep(0.01)


def test_the_backend_of_these_tests_is_one() -> None:
    """What follows holds for any plugin: the small one here keeps the protocol."""
    assert isinstance(MemoryBackend(), TrainingBackend)


def test_a_thousand_waiters_cost_one_look_an_interval() -> None:
    """However many wait, the platform is asked once an interval, for all of them, and each hears of its own job."""
    names = [f"job-{number}" for number in range(1000)]
    room = Room(MemoryBackend(names))

    async def scene() -> None:
        waiters = [room.wait(name, interval=0.3) for name in names]
        await until(lambda: any(len(asked) == 1000 for asked in room.backend.asked))
        begun, before = time.monotonic(), len(room.backend.asked)
        await until(lambda: len(room.backend.asked) >= before + 3)
        assert len(room.backend.asked) - before <= 1 + (time.monotonic() - begun) / (0.9 * 0.3)
        assert {len(asked) for asked in room.backend.asked[before:]} == {1000}
        room.backend.jobs |= dict.fromkeys(names[::2], JobState.SUCCEEDED) | dict.fromkeys(names[1::2], JobState.FAILED)
        outcomes = await asyncio.gather(*waiters)
        assert [found.word for found in outcomes] == ["succeeded", "failed"] * 500

    run(scene)
    assert room.connections == 1


def test_a_platform_that_is_away_reaches_nobody() -> None:
    """Looks that fail are tried again, more slowly and with a new backend; who waits hears only of the job's end."""
    room = Room(MemoryBackend(["a", "b"]))

    async def scene() -> None:
        waiters = [room.wait("a"), room.wait("b")]
        await until(lambda: len(room.backend.asked) >= 1)
        room.backend.away = True
        await until(lambda: room.connections >= 4)
        assert not any(waiter.done() for waiter in waiters)
        room.backend.away = False
        room.backend.jobs |= {"a": JobState.SUCCEEDED, "b": JobState.PREEMPTED}
        assert [(await waiter).word for waiter in waiters] == ["succeeded", "preempted"]

    run(scene)


def test_a_platform_that_stays_away_is_told_with_its_words() -> None:
    """After the time without an answer each who waits is told that nothing is seen, and why."""
    room = Room(MemoryBackend(["a"]), Pace(first_look=0.05, shortest=0.01, longest=0.05, unseen=0.3))
    room.backend.away = True

    async def scene() -> None:
        assert await room.wait("a") == Outcome(Why.UNSEEN, detail="The platform is away.")

    run(scene)
    assert len(room.backend.asked) > 1


def test_a_job_that_is_gone_is_told_from_one_that_was_missed() -> None:
    """A job that a long answer misses is asked for alone: only one the platform then does not know is gone."""
    room = Room(MemoryBackend(["there", "missed"]))
    room.backend.missed = {"missed"}

    async def scene() -> None:
        there, missed, gone = room.wait("there"), room.wait("missed"), room.wait("gone")
        assert await gone == Outcome(Why.GONE)
        await until(lambda: room.backend.asked.count(["missed"]) >= 2)
        assert not there.done()
        assert not missed.done()
        room.backend.jobs["missed"] = JobState.SUCCEEDED
        assert (await missed).word == "succeeded"
        there.cancel()

    run(scene)
    assert ["gone"] in room.backend.asked


def test_an_empty_answer_does_not_cost_a_question_for_each_job() -> None:
    """When all are absent at once, few are asked for alone after each look."""
    backend = MemoryBackend()
    sight = look(backend, backend, [backend.handle(f"job-{number}") for number in range(1000)])
    assert len(backend.asked) == 1 + DIRECT_LOOKS == 1 + len(sight.gone)


def test_absence_is_not_confirmed_by_a_platform_that_goes_away() -> None:
    """What was answered counts; what could not be asked again is open, not gone."""

    class Leaving(MemoryBackend):
        def observe(self, handles: Iterable[JobHandle]) -> Mapping[JobHandle, JobStatus]:
            found = super().observe(handles)
            self.away = True
            return found

    backend = Leaving(["a"])
    sight = look(backend, backend, [backend.handle("a"), backend.handle("b")])
    assert (list(sight.found), sight.gone, dict(sight.broken)) == ([backend.handle("a")], [], {})


def test_one_bad_job_does_not_spoil_the_others() -> None:
    """A job that the backend cannot read fails its own waiter; all others go on to their end."""
    names = [f"job-{number}" for number in range(20)]
    room = Room(MemoryBackend(names))
    room.backend.poison = {"job-7"}

    async def scene() -> None:
        waiters = {name: room.wait(name) for name in names}
        with pytest.raises(ValueError, match="cannot read job-7"):
            await waiters.pop("job-7")
        assert not any(waiter.done() for waiter in waiters.values())
        room.backend.jobs |= dict.fromkeys(waiters, JobState.SUCCEEDED)
        assert {found.word for found in await asyncio.gather(*waiters.values())} == {"succeeded"}

    run(scene)


def test_a_wrong_connection_is_told_to_all_but_not_at_once() -> None:
    """What waiting does not cure reaches everybody, no sooner than an event may."""
    room = Room(MemoryBackend(), Pace(first_look=0.3))

    async def wrong() -> TrainingBackend:
        raise InvalidSpecError("unknown extra")

    room.connect = wrong  # type: ignore[method-assign]

    async def scene() -> None:
        begun = time.monotonic()
        found = await asyncio.gather(room.wait("a"), room.wait("b"), return_exceptions=True)
        assert [str(error) for error in found] == ["unknown extra"] * 2
        assert time.monotonic() - begun >= 0.3

    run(scene)


def test_who_is_cancelled_leaves_and_the_last_releases_the_watcher() -> None:
    """Leaving stops no job and disturbs nobody; without waiters no look is made, and after a while all is let go."""
    room = Room(StreamingBackend(["a", "b"]), Pace(first_look=0.05, shortest=0.01, linger=1.5))

    async def scene() -> None:
        first, second = room.wait("a"), room.wait("b")
        await until(lambda: len(room.backend.cache.asked) >= 2)
        first.cancel()
        await until(lambda: room.backend.cache.asked[-1] == ["b"])
        assert not second.done()
        second.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
        await asyncio.sleep(0.2)
        again = room.wait("a")  # within the linger: the same watcher
        await until(lambda: room.backend.cache.asked[-1] == ["a"])
        assert (room.connections, room.backend.closed) == (1, 0)
        again.cancel()
        await until(lambda: not watching._watchers)
        await until(lambda: room.backend.closed == 1)
        asked = len(room.backend.cache.asked)
        await asyncio.sleep(0.1)
        assert len(room.backend.cache.asked) == asked

    run(scene)
    assert set(room.backend.jobs.values()) == {JobState.RUNNING}
    assert room.backend.opened == 1


def test_a_stream_is_asked_instead_of_its_platform() -> None:
    """A backend that streams is asked itself only about jobs that its stream does not know."""
    room = Room(StreamingBackend(["old"]))
    room.backend.jobs["new"] = JobState.SUCCEEDED

    async def scene() -> None:
        old, new = room.wait("old"), room.wait("new")
        assert (await new).word == "succeeded"
        room.backend.cache.jobs["old"] = JobState.SUCCEEDED
        assert (await old).word == "succeeded"

    run(scene)
    assert {tuple(asked) for asked in room.backend.asked} == {("new",)}


def test_news_are_seen_before_the_next_look_is_due() -> None:
    """A stream that says that something changed is looked at at once, whatever the interval; no other time."""
    room = Room(NotifyingBackend(["a"]))

    async def scene() -> None:
        waiter = room.wait("a", interval=3600)
        await until(lambda: room.backend.cache.changed is not None and bool(room.backend.cache.asked))
        await asyncio.sleep(0.1)
        assert len(room.backend.cache.asked) == 1
        room.backend.cache.jobs["a"] = JobState.SUCCEEDED
        await asyncio.to_thread(room.backend.cache.changed)
        assert (await waiter).word == "succeeded"

    run(scene)


def test_a_broken_stream_is_opened_anew() -> None:
    """A stream that lost its platform ends and another takes its place."""
    room = Room(StreamingBackend(["a"]))

    async def scene() -> None:
        waiter = room.wait("a")
        room.backend.cache.away = True
        await until(lambda: room.backend.opened >= 2)
        room.backend.cache.away = False
        room.backend.cache.jobs["a"] = JobState.FAILED
        assert (await waiter).word == "failed"

    run(scene)
    assert room.backend.closed == room.backend.opened


def test_two_loops_do_not_share() -> None:
    """A watcher belongs to one event loop: another one, in another thread, has its own."""
    room = Room(MemoryBackend(["a"]))
    both = threading.Barrier(2, timeout=LIMIT)

    async def scene() -> None:
        waiter = room.wait("a")
        await until(lambda: room.connections == 2)
        await asyncio.to_thread(both.wait)
        room.backend.jobs["a"] = JobState.SUCCEEDED
        assert (await waiter).word == "succeeded"

    with ThreadPoolExecutor(2) as threads:
        for ended in [threads.submit(run, scene) for _ in range(2)]:
            ended.result(LIMIT)
    assert room.connections == 2
    assert not watching._watchers


def test_scopes_are_looked_at_apart() -> None:
    """Jobs of two namespaces or regions are never in one question, so trouble in one does not hide the other."""
    room = Room(MemoryBackend(["east/a", "west/b"]))

    async def scene() -> None:
        waiters = [room.wait("east/a"), room.wait("west/b")]
        await until(lambda: len({tuple(asked) for asked in room.backend.asked}) == 2)
        for waiter in waiters:
            waiter.cancel()

    run(scene)
    assert {tuple(asked) for asked in room.backend.asked} == {("east/a",), ("west/b",)}


def test_a_deadline_is_kept_while_a_look_hangs() -> None:
    """Each has a deadline of its own, and it fires although the platform holds the line."""
    room = Room(MemoryBackend(["a", "b"]))

    async def scene() -> None:
        early, late = room.wait("a", deadline=time.time() + 1), room.wait("b")
        await until(lambda: ["a", "b"] in room.backend.asked)
        await asyncio.sleep(0.1)
        room.backend.answer.clear()
        try:
            assert await early == Outcome(Why.DEADLINE)
            assert not late.done()
        finally:
            room.backend.answer.set()
        room.backend.jobs["b"] = JobState.UNKNOWN
        await asyncio.sleep(0.2)
        assert not late.done()
        late.cancel()

    run(scene)


def test_a_deadline_that_has_passed_still_gets_one_look() -> None:
    """Who comes too late is told how the job ended, if it did."""
    room = Room(MemoryBackend(["a", "b"]))
    room.backend.jobs["a"] = JobState.SUCCEEDED

    async def scene() -> None:
        over, late = room.wait("a", deadline=0.0), room.wait("b", deadline=0.0)
        assert [(await over).word, (await late).word] == ["succeeded", "deadline"]

    run(scene)


def test_the_watcher_takes_nothing_from_the_first_who_waits() -> None:
    """It runs in an empty context: the first one's log and task are not taken for everybody's."""
    room = Room(MemoryBackend(["a"]))

    async def scene() -> None:
        WHO.set("the first")
        waiter = room.wait("a")
        await until(lambda: len(room.backend.asked) >= 1)
        waiter.cancel()

    run(scene)
    assert room.backend.seen_by == {"nobody"}
