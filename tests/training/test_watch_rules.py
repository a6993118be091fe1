"""When to look and what it means: what must hold for every sequence of answers and failures, on a clock of its own."""

from __future__ import annotations

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.training.contract import JobHandle, JobState, JobStatus
from airflow_mlops.training.watch_rules import (
    Looks,
    Outcome,
    Pace,
    Sight,
    Waiter,
    Why,
    alarm,
    judge,
    next_look,
    ready,
)

JOB = JobHandle("memory", "job")
PACE = Pace()
ACTIVE = [state for state in JobState if not state.terminal]
TERMINAL = [state for state in JobState if state.terminal]

seconds = st.floats(0.0, 2000.0)
jitters = st.floats(0.0, 1.0)
waiters = st.builds(
    Waiter,
    handle=st.just(JOB),
    interval=st.floats(0.0, 300.0),
    joined=seconds,
    deadline=seconds | st.just(inf),
)
looks = st.lists(st.tuples(st.booleans(), st.floats(0.0, 60.0), st.floats(0.0, 600.0)), max_size=40)


def history(found: list[tuple[bool, float, float]]) -> Looks:
    """Return what is remembered after looks that were answered or not, took a while and followed after a while."""
    remembered, now = Looks(), 0.0
    for answered, took, gap in found:
        began = now = now + gap
        now += took
        remembered = remembered.after_answer(began, now) if answered else remembered.after_failure(began, now, "away")
    return remembered


@given(st.lists(waiters, min_size=1, max_size=20), looks, jitters)
def test_looks_are_neither_too_close_nor_too_far_apart(
    waiting: list[Waiter], past: list[tuple[bool, float, float]], jitter: float
) -> None:
    """A look waits for the first who is ready, and pauses about as long as asked: longer only after trouble."""
    remembered = history(past)
    due = next_look(waiting, remembered, PACE, jitter)
    first = min(ready(waiter, PACE) for waiter in waiting)
    interval = max(PACE.shortest, min(waiter.interval for waiter in waiting))
    assert due >= first
    if past:
        steady = max(interval, remembered.ended - remembered.began)
        trouble = PACE.longest * 1.5 if remembered.failures else 0.0
        assert due >= remembered.ended + 0.9 * steady * 0.999
        assert due <= max(first, remembered.ended + max(1.1 * steady, trouble) * 1.001)
    else:
        assert due == first


@given(looks, jitters)
def test_nobody_waits_no_look(past: list[tuple[bool, float, float]], jitter: float) -> None:
    """Without waiters there is never a next look."""
    assert next_look([], history(past), PACE, jitter) == inf


@given(st.floats(1.0, 60.0), st.integers(1, 100), jitters)
def test_failures_slow_the_looks_down(interval: float, failures: int, jitter: float) -> None:
    """Each failure doubles the pause, up to the longest."""
    waiter = Waiter(JOB, interval, 0.0)
    pauses = [
        next_look([waiter], Looks(90.0, 100.0, failures=count), PACE, jitter) - 100.0
        for count in (failures, failures + 1)
    ]
    assert pauses[0] <= pauses[1] <= 2 * pauses[0] + 1e-6
    assert 0.899 * interval <= pauses[0] <= 90.001
    assert failures < 6 or pauses[0] >= 29.999


@given(waiters, looks, st.sampled_from(TERMINAL), seconds)
def test_an_end_is_told_whatever_else_is_true(
    waiter: Waiter, past: list[tuple[bool, float, float]], state: JobState, now: float
) -> None:
    """A terminal state wins over deadline and silence, with the platform's words."""
    status = JobStatus(state, "native", "why")
    assert judge(waiter, history(past), Sight({JOB: status}), PACE, now) == Outcome(Why.OVER, status)


@given(waiters, looks, st.none() | st.sampled_from(ACTIVE), st.floats(0.0, 100000.0))
def test_without_an_end_only_time_ends_a_wait(
    waiter: Waiter, past: list[tuple[bool, float, float]], state: JobState | None, now: float
) -> None:
    """Running, an unknown word and absence from one answer end no wait before its alarm, and nothing outlasts that."""
    remembered = history(past)
    sight = Sight({JOB: JobStatus(state)} if state else {})
    outcome = judge(waiter, remembered, sight, PACE, now)
    assert (outcome is not None) == (now >= alarm(waiter, remembered, PACE))
    assert outcome is None or outcome.why in (Why.DEADLINE, Why.UNSEEN)
    assert outcome is None or now >= ready(waiter, PACE)


@given(waiters, looks)
def test_only_a_confirmed_absence_is_gone(waiter: Waiter, past: list[tuple[bool, float, float]]) -> None:
    """Gone is what the sight says is gone."""
    assert judge(waiter, history(past), Sight(gone=[JOB]), PACE, 0.0) == Outcome(Why.GONE)


@given(waiters, looks)
def test_a_deadline_is_never_early_and_hardly_late(waiter: Waiter, past: list[tuple[bool, float, float]]) -> None:
    """Nobody is told of a deadline before it, and a look that hangs delays it by no more than the patience."""
    remembered = history(past)
    moment = alarm(waiter, remembered, PACE)
    outcome = judge(waiter, remembered, Sight(), PACE, moment)
    assert outcome is not None
    if outcome.why is Why.DEADLINE:
        assert moment >= waiter.deadline
    assert moment <= max(waiter.deadline, ready(waiter, PACE) + PACE.patience, remembered.ended)


@given(waiters, looks, seconds)
def test_an_answer_ends_the_silence(waiter: Waiter, past: list[tuple[bool, float, float]], now: float) -> None:
    """Silence is counted from the last answer or from the own first look, and says what the last failure was."""
    remembered = history(past)
    silent = max(remembered.answered, ready(waiter, PACE)) + PACE.unseen
    patient = Waiter(JOB, waiter.interval, waiter.joined)
    assert judge(patient, remembered, Sight(), PACE, silent * 0.999 - 0.1) is None
    assert judge(patient, remembered, Sight(), PACE, silent) == Outcome(Why.UNSEEN, detail=remembered.error)
