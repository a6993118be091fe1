"""A roll-out carried out: what is told to the target, and what happens when the line to it breaks."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_mlops.core.errors import InvalidSpecError, NotFoundError, PlatformUnavailableError
from airflow_mlops.deployment.contract import DeploymentTarget
from airflow_mlops.deployment.driver import Outcome, RolloutDriver, RolloutResult, require_revision, restore
from airflow_mlops.deployment.rollout import RolloutPlan

sys.path.insert(0, str(Path(__file__).parent))
from memory import MemoryTarget

PLAN = RolloutPlan("fares", "v2", {"v1": 100.0}, steps=(10.0, 50.0, 100.0), bake=40.0, max_hold=20.0)


class Clock:
    """A clock that is set by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def drive(driver: RolloutDriver, clock: Clock, each: Callable[[], None] = lambda: None) -> RolloutResult:
    """Take turns as the trigger does, the clock being set to each next look, until there is a result."""
    driver.begin()
    for _ in range(200):
        if driver.result is not None:
            return driver.result
        clock.now += driver.wait()
        each()
        try:
            driver.turn()
        except PlatformUnavailableError:
            clock.now += 5
    raise AssertionError("The roll-out did not end.")


def test_the_memory_target_is_a_target() -> None:
    """What these tests drive has every verb of the contract."""
    assert isinstance(MemoryTarget(), DeploymentTarget)


def test_a_good_revision_gets_everything_step_by_step() -> None:
    """The splits are those of the plan, in order, each judged, and the result says so."""
    target, clock = MemoryTarget(), Clock()
    result = drive(RolloutDriver(target, PLAN, clock), clock)
    assert result.decision is Outcome.PROMOTED
    assert result.traffic == {"v2": 100.0}
    assert target.shifts == [{"v1": 90.0, "v2": 10.0}, {"v1": 50.0, "v2": 50.0}, {"v2": 100.0}]
    assert [(step.percent, step.decision.passed) for step in result.steps] == [(10.0, True), (50.0, True)]
    assert clock.now == 1000.0 + 2 * PLAN.bake
    assert RolloutResult.from_dict(result.to_dict()) == result


def test_a_bad_revision_is_taken_back_at_the_first_look() -> None:
    """Half of its answers fail: after a quarter of the bake time all is as before, with the reason."""
    target, clock = MemoryTarget(bad=True), Clock()
    result = drive(RolloutDriver(target, PLAN, clock), clock)
    assert result.decision is Outcome.ROLLED_BACK
    assert target.traffic == {"v1": 100.0}
    assert [reason.rule for reason in result.reasons if reason.verdict == "fail"] == ["error_rate"]
    assert clock.now == 1010.0


@pytest.mark.parametrize("bad", [False, True])
def test_a_lost_answer_changes_nothing(bad: bool) -> None:
    """An order that got through although its answer was lost is not mistaken for somebody else's change."""
    target, clock = MemoryTarget(bad=bad), Clock()

    broken = itertools.cycle((1, 0))

    def lose_each_second_answer() -> None:
        target.lost = next(broken)

    result = drive(RolloutDriver(target, PLAN, clock), clock, lose_each_second_answer)
    assert result.decision is (Outcome.ROLLED_BACK if bad else Outcome.PROMOTED)
    assert target.traffic == ({"v1": 100.0} if bad else {"v2": 100.0})


def test_somebody_elses_change_is_left_alone() -> None:
    """Who moves the traffic by hand in the middle wins; the roll-out ends and says what it found."""
    target, clock = MemoryTarget(), Clock()
    driver = RolloutDriver(target, PLAN, clock)
    driver.begin()
    driver.turn()
    target.traffic = {"v3": 100.0}
    driver.turn()
    assert driver.result is not None
    assert driver.result.decision is Outcome.INTERRUPTED
    assert "Somebody else" in driver.result.reasons[0].message
    assert target.traffic == {"v3": 100.0}
    assert restore(target, PLAN).traffic == {"v3": 100.0}


@pytest.mark.parametrize("through", [True, False])
@pytest.mark.parametrize("theirs", [{"v3": 100.0}, {"v1": 100.0}])
def test_a_change_after_a_lost_answer_is_left_alone(theirs: dict[str, float], through: bool) -> None:
    """An order is not repeated over what somebody else wanted since, be it a roll-back to what served before."""
    target, clock = MemoryTarget(), Clock()
    driver = RolloutDriver(target, PLAN, clock)
    driver.begin()
    driver.turn()
    clock.now += PLAN.bake
    target.lost, target.deaf = 1, not through
    with pytest.raises(PlatformUnavailableError):
        driver.turn()
    target.traffic, target.deaf = theirs, False
    driver.turn()
    assert driver.result is not None
    assert driver.result.decision is Outcome.INTERRUPTED
    assert target.traffic == theirs


def test_another_process_goes_on_at_the_step_that_serves() -> None:
    """A second driver does not start over: it bakes the step that serves again, and ends what the first began."""
    target, clock = MemoryTarget(), Clock()
    first = RolloutDriver(target, PLAN, clock)
    first.begin()
    first.turn()
    result = drive(RolloutDriver(target, PLAN, clock), clock)
    assert result.decision is Outcome.PROMOTED
    assert len(target.shifts) == 3


def test_a_platform_that_does_not_do_what_it_accepted_is_an_error() -> None:
    """An order is believed when the traffic read back shows it, not before."""
    target, clock = MemoryTarget(), Clock()
    target.deaf = True
    driver = RolloutDriver(target, PLAN, clock)
    driver.begin()
    with pytest.raises(PlatformUnavailableError, match="was told to serve"):
        driver.turn()


def test_giving_up_restores_the_traffic() -> None:
    """A roll-out whose time is over ends where it began."""
    target, clock = MemoryTarget(), Clock()
    driver = RolloutDriver(target, PLAN, clock)
    driver.begin()
    driver.turn()
    driver.give_up("The time is over.")
    assert target.traffic == {"v1": 100.0}
    assert driver.result is not None
    assert driver.result.decision is Outcome.INCONCLUSIVE


def test_a_split_of_several_revisions_is_restored_as_it_was() -> None:
    """What served before is restored, not just its biggest part."""
    target, clock = MemoryTarget(bad=True), Clock()
    target.traffic = {"v1": 70.0, "v3": 30.0}
    plan = RolloutPlan("fares", "v2", target.traffic, bake=40.0)
    drive(RolloutDriver(target, plan, clock), clock)
    assert target.shifts == [{"v1": 66.5, "v3": 28.5, "v2": 5.0}, {"v1": 70.0, "v3": 30.0}]


def test_a_revision_that_is_not_there_is_named() -> None:
    """The message has the close name and all names."""
    with pytest.raises(NotFoundError, match=r"'v22'.*did you mean 'v2'.*v1, v2, v3"):
        require_revision(MemoryTarget().status("fares"), "v22")


def test_a_guard_that_cannot_be_imported_is_refused_before_anything_moves() -> None:
    """The message says how a guard is named."""
    plan = RolloutPlan("fares", "v2", {"v1": 100.0}, guards=("no.such.module:rule",))
    with pytest.raises(InvalidSpecError, match=r"package\.module:function"):
        RolloutDriver(MemoryTarget(), plan)


def test_a_revision_that_failed_for_good_is_taken_back() -> None:
    """When the platform itself says that the canary failed, no statistics are asked for."""
    target, clock = MemoryTarget(), Clock()
    driver = RolloutDriver(target, PLAN, clock)
    driver.begin()
    driver.turn()
    target.failed = "v2"
    driver.turn()
    assert driver.result is not None
    assert driver.result.decision is Outcome.ROLLED_BACK
    assert [reason.rule for reason in driver.result.reasons] == ["ready"]
    assert target.traffic == {"v1": 100.0}
