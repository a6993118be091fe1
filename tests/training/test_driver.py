"""The state machine of one job: every row of its table, and what must hold for all of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.core.errors import (
    NEVER_RETRY,
    RETRY,
    JobFailedError,
    JobInterruptedError,
    JobTimeoutError,
    OutOfMemoryError,
    PlatformUnavailableError,
    PreemptedError,
    QuotaExceededError,
)
from airflow_mlops.training.contract import FailureReason, JobHandle, JobState, JobStatus
from airflow_mlops.training.driver import (
    Adopt,
    Collect,
    Fail,
    JobRecord,
    OnClear,
    Phase,
    Rules,
    Start,
    Step,
    Submit,
    Wait,
    next_step,
)
from airflow_mlops.training.failed_work import with_failed_work
from airflow_mlops.training.failures import FAILURES

JOB = JobHandle("local", "aml-x")
INTENT = JobRecord("aml-x", Phase.INTENT, 3, checkpoint="aml-x")
SUBMITTED = replace(INTENT, phase=Phase.SUBMITTED, job=JOB)
FAILED = replace(SUBMITTED, phase=Phase.FAILED)
CANCELLED = replace(SUBMITTED, cancelled=True)

ACTIVE = [JobState.PENDING, JobState.RUNNING, JobState.UNKNOWN]


def step(record: JobRecord | None, state: JobState | None, **kwargs: object) -> Step:
    """Decide with the usual surroundings."""
    status = None if state is None else JobStatus(state, "word", "detail")
    return next_step(record, status, **{"generation": 3, "entering": True, "now": 100.0, **kwargs})


def test_without_a_record_the_first_attempt_starts() -> None:
    """A task that remembers nothing starts attempt 0 of its generation."""
    assert step(None, None) == Start(JobRecord("", Phase.INTENT, 3))


@pytest.mark.parametrize("record", [INTENT, SUBMITTED, FAILED, CANCELLED])
def test_another_generation_starts_anew(record: JobRecord) -> None:
    """After a clear the old job counts for nothing: attempt 0, all counts zero."""
    assert step(replace(record, lost=1), JobState.SUCCEEDED, generation=4) == Start(JobRecord("", Phase.INTENT, 4))


@pytest.mark.parametrize("record", [INTENT, SUBMITTED, FAILED, CANCELLED])
def test_a_resuming_clear_keeps_the_checkpoints(record: JobRecord) -> None:
    """With on_clear=resume the new generation starts anew, from where the old one's checkpoints are."""
    found = step(record, JobState.RUNNING, generation=4, rules=Rules(OnClear.RESUME))
    assert found == Start(JobRecord("", Phase.INTENT, 4, checkpoint="aml-x"))


@pytest.mark.parametrize("state", [*ACTIVE, JobState.SUCCEEDED])
@pytest.mark.parametrize("record", [INTENT, SUBMITTED])
def test_a_reattaching_clear_keeps_a_good_job(record: JobRecord, state: JobState) -> None:
    """With on_clear=reattach a job that runs or has succeeded becomes the new generation's own."""
    found = step(record, state, generation=4, rules=Rules(OnClear.REATTACH))
    assert found == Adopt(replace(record, generation=4))


@pytest.mark.parametrize("state", [None, JobState.FAILED, JobState.CANCELLED, JobState.PREEMPTED])
def test_a_reattaching_clear_replaces_a_bad_job(state: JobState | None) -> None:
    """What is over without a result, or is gone, is not kept; nor is a job that a worker was told to stop."""
    rules = Rules(OnClear.REATTACH)
    assert step(SUBMITTED, state, generation=4, rules=rules) == Start(JobRecord("", Phase.INTENT, 4))
    assert step(CANCELLED, JobState.RUNNING, generation=4, rules=rules) == Start(JobRecord("", Phase.INTENT, 4))


def test_an_intent_is_submitted_under_the_same_name() -> None:
    """Whether the job exists or not, the same name is submitted: the platform tells which it was."""
    assert step(INTENT, None) == step(INTENT, JobState.RUNNING) == Submit(INTENT)


@pytest.mark.parametrize("state", ACTIVE)
@pytest.mark.parametrize("entering", [True, False])
def test_an_active_job_is_waited_for(state: JobState, entering: bool) -> None:
    """A retry adopts an active job, and so does UNKNOWN: a word we do not know is not an end."""
    assert step(SUBMITTED, state, entering=entering) == Wait(SUBMITTED)


def test_a_succeeded_job_is_collected() -> None:
    """Also by a later try whose predecessor died while collecting."""
    assert step(SUBMITTED, JobState.SUCCEEDED) == Collect(SUBMITTED, JOB)


def test_a_failed_job_fails_the_task_once() -> None:
    """The failure is reported with the platform's words; a try after the report starts the next attempt."""
    found = step(SUBMITTED, JobState.FAILED)
    assert isinstance(found, Fail)
    assert isinstance(found.error, JobFailedError)
    assert "detail" in str(found.error)
    assert step(FAILED, JobState.FAILED) == Start(replace(INTENT, name="", attempt=1))


@pytest.mark.parametrize(
    ("reason", "error", "again"),
    [
        (FailureReason.NONE, JobFailedError, False),
        (FailureReason.USER_CODE, JobFailedError, False),
        (FailureReason.OUT_OF_MEMORY, OutOfMemoryError, False),
        (FailureReason.QUOTA, QuotaExceededError, True),
        (FailureReason.PLATFORM, JobInterruptedError, True),
        (FailureReason.TIMEOUT, JobTimeoutError, None),
    ],
)
def test_a_failure_is_tried_again_only_if_that_can_help(
    reason: FailureReason, error: type[Exception], again: bool | None
) -> None:
    """The program's own fault is final, the platform's is not, and a timeout is as the task is configured."""
    found = next_step(SUBMITTED, JobStatus(JobState.FAILED, reason=reason), generation=3, entering=True, now=0)
    assert isinstance(found, Fail)
    assert type(found.error) is error
    assert isinstance(found.error, RETRY) is (again is True)
    assert isinstance(found.error, NEVER_RETRY) is (again is False)


def test_every_reason_has_its_error() -> None:
    """A new reason cannot be forgotten."""
    assert set(FAILURES) == set(FailureReason)


def test_a_preempted_job_starts_again_until_the_limit() -> None:
    """A preemption is not a failure, but after the last one allowed it is an error worth another try."""
    assert step(SUBMITTED, JobState.PREEMPTED) == Start(replace(INTENT, name="", attempt=1, preemptions=1))
    found = step(replace(SUBMITTED, preemptions=2), JobState.PREEMPTED, rules=Rules(max_preemptions=2))
    assert isinstance(found, Fail)
    assert isinstance(found.error, PreemptedError)


def test_after_too_many_preemptions_a_spot_job_moves_to_machines_that_stay() -> None:
    """The last attempt is on demand, goes on from the same checkpoints, and is the last one."""
    rules = Rules(max_preemptions=2, spot=True)
    found = step(replace(SUBMITTED, preemptions=2), JobState.PREEMPTED, rules=rules)
    assert found == Start(replace(INTENT, name="", attempt=1, preemptions=3, on_demand=True))
    last = step(replace(SUBMITTED, preemptions=3, on_demand=True), JobState.PREEMPTED, rules=rules)
    assert isinstance(last, Fail)
    assert "4 times" in str(last.error)


def test_a_lost_job_starts_again_once() -> None:
    """A job the platform forgot is started again once; the second time it is the platform's error."""
    assert step(SUBMITTED, None) == Start(replace(INTENT, name="", attempt=1, lost=1))
    found = step(replace(SUBMITTED, lost=1), None)
    assert isinstance(found, Fail)
    assert isinstance(found.error, PlatformUnavailableError)


def test_a_cancelled_job_is_never_success() -> None:
    """A job that somebody cancelled fails the task for good."""
    found = step(SUBMITTED, JobState.CANCELLED, entering=False)
    assert isinstance(found, Fail)
    assert isinstance(found.error, JobFailedError)


def test_a_try_does_not_inherit_a_cancelled_job() -> None:
    """A job that was stopped with the try before, which could not write that down, is followed by a new one."""
    assert step(SUBMITTED, JobState.CANCELLED) == Start(replace(INTENT, name="", attempt=1))


@pytest.mark.parametrize("state", ACTIVE)
def test_the_cancel_mark_stops_this_try_and_renews_the_next(state: JobState) -> None:
    """The try that was told to stop stops its job; the next one makes sure and starts the next attempt."""
    found = step(CANCELLED, state, entering=False)
    assert isinstance(found, Fail)
    assert found.stop
    assert step(CANCELLED, state) == Start(replace(INTENT, name="", attempt=1))


def test_a_job_past_its_deadline_is_stopped() -> None:
    """A platform that does not end a job in time is not waited for."""
    assert step(replace(SUBMITTED, deadline=100.0), JobState.RUNNING) == Wait(replace(SUBMITTED, deadline=100.0))
    found = step(replace(SUBMITTED, deadline=99.0), JobState.RUNNING)
    assert isinstance(found, Fail)
    assert found.stop
    assert isinstance(found.error, JobTimeoutError)


records = st.builds(
    JobRecord,
    name=st.just("aml-x"),
    phase=st.sampled_from(Phase),
    generation=st.integers(2, 4),
    attempt=st.integers(0, 5),
    job=st.sampled_from([None, JOB]),
    deadline=st.sampled_from([None, 50.0, 150.0]),
    cancelled=st.booleans(),
    preemptions=st.integers(0, 5),
    lost=st.integers(0, 2),
)
situations = {
    "record": records,
    "state": st.sampled_from([None, *JobState]),
    "entering": st.booleans(),
}


@given(**situations)
def test_only_success_is_success(record: JobRecord, state: JobState | None, entering: bool) -> None:
    """Whatever is remembered, a result is only collected from a job that the platform calls succeeded."""
    if isinstance(step(record, state, entering=entering), Collect):
        assert state is JobState.SUCCEEDED


@given(**situations)
def test_a_name_is_never_used_for_a_second_job(record: JobRecord, state: JobState | None, entering: bool) -> None:
    """A new start has a new generation or a higher attempt, so that its name is new; and it forgets the old job."""
    found = step(record, state, entering=entering)
    if isinstance(found, Start):
        assert (found.record.generation, found.record.attempt) != (record.generation, record.attempt)
        assert (found.record.job, found.record.run_id, found.record.log_offset) == (None, "", 0)


@given(**situations)
def test_one_generation_starts_a_bounded_number_of_jobs(
    record: JobRecord, state: JobState | None, entering: bool
) -> None:
    """Within one try only preemptions and one lost job start further jobs: no loop spends without end."""
    found = step(record, state, entering=False)
    if isinstance(found, Start) and found.record.generation == record.generation:
        assert found.record.preemptions + found.record.lost == record.preemptions + record.lost + 1
        assert found.record.preemptions <= 3 or found.record.lost == 1


@given(records)
def test_records_travel(record: JobRecord) -> None:
    """A record is the same after the way through the state store."""
    assert JobRecord.from_dict(record.to_dict()) == record


@pytest.mark.parametrize(("spot", "on_demand"), [(False, False), (True, False), (True, True)])
@given(billed=st.none() | st.floats(0, 1e6), earlier=st.floats(0, 1e6), repeats=st.integers(1, 3))
def test_failed_work_is_counted_once(
    spot: bool, on_demand: bool, billed: float | None, earlier: float, repeats: int
) -> None:
    """What an attempt without a result was billed is added once to its kind of machine, also after a dead worker."""
    before = replace(SUBMITTED, on_demand=on_demand, failed_seconds=earlier, failed_spot_seconds=earlier)
    start = step(before, JobState.PREEMPTED, entering=False, rules=Rules(spot=spot))
    again = start.record if isinstance(start, Start) else replace(before, attempt=1)
    status = JobStatus(JobState.PREEMPTED, billed_seconds=billed)
    for _ in range(repeats):
        again = with_failed_work(again, before, status, spot=spot)
    counted = (again.failed_spot_seconds, again.failed_seconds)
    more = billed or 0.0
    assert counted == ((earlier + more, earlier) if spot and not on_demand else (earlier, earlier + more))


def test_a_clear_begins_to_count_anew() -> None:
    """Another generation has failed at nothing yet; a job nobody knows any more cannot be counted."""
    cleared = step(replace(SUBMITTED, failed_seconds=9.0), JobState.RUNNING, generation=4)
    assert isinstance(cleared, Start)
    status = JobStatus(JobState.CANCELLED, billed_seconds=5.0)
    assert with_failed_work(cleared.record, SUBMITTED, status, spot=False).failed_seconds == 0.0
    assert with_failed_work(SUBMITTED, replace(SUBMITTED, failed_seconds=9.0), None, spot=False).failed_seconds == 9.0
