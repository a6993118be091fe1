"""When to look at the jobs that are waited for, and what a look means to each who waits: pure decisions.

Nothing here acts or reads a clock: *now* is passed in, in seconds of any clock that never goes back. An absent job is
not gone before a look of its own confirmed it, and an unknown word or a platform that is away is no end.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import inf

from airflow_mlops.training.contract import JobHandle, JobStatus


@dataclass(frozen=True)
class Pace:
    """How a watcher paces itself, in seconds.

    :param first_look: from joining to the first look. An event that overtakes the executor's own report of the deferral
        fails the task: the scheduler then sees a queued task whose process has ended. Seen with 2 s on a busy machine
    :param shortest: shortest pause between two looks, whatever is asked for
    :param longest: longest pause after failed looks, unless a longer interval is asked for
    :param unseen: without one answer of the platform, after which whoever waits is told
    :param patience: that a look may take before a deadline that passed meanwhile is told without its answer
    :param linger: that a watcher without work stays, so that the next job finds it
    """

    first_look: float = 5.0
    shortest: float = 1.0
    longest: float = 60.0
    unseen: float = 900.0
    patience: float = 60.0
    linger: float = 30.0


class Why(StrEnum):
    """Why a wait is over."""

    OVER = "over"
    """The job is in a terminal state."""
    GONE = "gone"
    """The platform does not know the job, also when asked for it alone."""
    DEADLINE = "deadline"
    """The waiter's own deadline has passed."""
    UNSEEN = "unseen"
    """The platform has not answered for too long."""


@dataclass(frozen=True)
class Outcome:
    """What a waiter is told.

    :param status: the job's last state, when it is over
    :param detail: of an unseen job, what the last failed look said
    """

    why: Why
    status: JobStatus | None = None
    detail: str = ""

    @property
    def word(self) -> str:
        """One word for it: the terminal state, or why the wait is over without one."""
        return self.status.state.value if self.status else self.why.value


@dataclass(frozen=True, eq=False)
class Waiter:
    """One who waits for one job. Two may wait for the same.

    :param interval: seconds between two looks that it asks for
    :param joined: when it came
    :param deadline: when it wants to be told in any case
    """

    handle: JobHandle
    interval: float
    joined: float
    deadline: float = inf


@dataclass(frozen=True)
class Looks:
    """What is remembered of the looks so far.

    :param began: when the last look that has ended began
    :param ended: when it ended
    :param answered: when a look was last answered
    :param failures: how many have failed since
    :param error: what the last one said, if it failed
    """

    began: float = -inf
    ended: float = -inf
    answered: float = -inf
    failures: int = 0
    error: str = ""

    def after_answer(self, began: float, now: float) -> Looks:
        """Note a look that was answered."""
        return Looks(began, now, now)

    def after_failure(self, began: float, now: float, error: str) -> Looks:
        """Note a look that was not."""
        return replace(self, began=began, ended=now, failures=self.failures + 1, error=error)


@dataclass(frozen=True)
class Sight:
    """What one look found. A job that is nowhere in it is looked at again.

    :param found: what the platform told
    :param gone: jobs that it does not know, also when asked for each alone
    :param broken: jobs for which asking raised what another look would not cure
    """

    found: Mapping[JobHandle, JobStatus] = field(default_factory=dict)
    gone: Collection[JobHandle] = ()
    broken: Mapping[JobHandle, Exception] = field(default_factory=dict)


def ready(waiter: Waiter, pace: Pace) -> float:
    """Return from when on a waiter's job is looked at."""
    return waiter.joined + pace.first_look


def next_look(waiters: Collection[Waiter], looks: Looks, pace: Pace, jitter: float, *, has_news: bool = False) -> float:
    """Return when to look next; never while nobody waits.

    The pause is the shortest interval that is asked for, but no shorter than the last look took. After failures it
    doubles each time.

    :param has_news: a stream said that something changed: then no waiter's interval counts
    :param jitter: from 0 to 1, drawn anew for each look, so that many triggerers do not ask in step
    """
    if not waiters:
        return inf
    interval = pace.shortest if has_news else max(pace.shortest, min(waiter.interval for waiter in waiters))
    took = looks.ended - looks.began if looks.ended > -inf else 0.0
    steady = max(interval, took) * (0.9 + 0.2 * jitter)
    backoff = min(pace.longest, interval * 2.0 ** min(looks.failures, 30)) * (0.5 + jitter) if looks.failures else 0.0
    return max(looks.ended + max(steady, backoff), min(ready(waiter, pace) for waiter in waiters))


def alarm(waiter: Waiter, looks: Looks, pace: Pace) -> float:
    """Return when a waiter is to be told although no look said that its job is over."""
    return min(_late(waiter, looks, pace), _unseen(waiter, looks, pace))


def _late(waiter: Waiter, looks: Looks, pace: Pace) -> float:
    """Return when its deadline counts: not before one look had its chance, also when it had passed on joining."""
    first = ready(waiter, pace)
    return max(waiter.deadline, looks.ended if looks.began >= first else first + pace.patience)


def _unseen(waiter: Waiter, looks: Looks, pace: Pace) -> float:
    return max(ready(waiter, pace), looks.answered) + pace.unseen


def judge(waiter: Waiter, looks: Looks, sight: Sight, pace: Pace, now: float) -> Outcome | None:
    """Return what to tell a waiter now, or ``None`` to let it wait.

    :param sight: of the look that has just ended; an empty one when only time has passed
    """
    status = sight.found.get(waiter.handle)
    if status is not None and status.state.terminal:
        return Outcome(Why.OVER, status)
    if waiter.handle in sight.gone:
        return Outcome(Why.GONE)
    if now >= _late(waiter, looks, pace):
        return Outcome(Why.DEADLINE)
    if now >= _unseen(waiter, looks, pace):
        return Outcome(Why.UNSEEN, detail=looks.error)
    return None
