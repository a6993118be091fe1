"""What a roll-out decides, on a simulated clock."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.core.decisions import Reason, Verdict
from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.deployment.contract import WindowMetrics
from airflow_mlops.deployment.guards import Limits, Window
from airflow_mlops.deployment.rollout import (
    Hold,
    OnInconclusive,
    Progress,
    Promote,
    RollBack,
    RolloutPlan,
    Shift,
    alpha_of_look,
    next_step,
)

sys.path.insert(0, str(Path(__file__).parent))
from traffic import Behaviour, simulate

PLAN = RolloutPlan("fares", "v2", {"v1": 100.0}, bake=240.0, max_hold=960.0)


def window(canary: int = 200, errors: int = 0) -> Window:
    """Give a window in which the baseline did well."""

    def spread(count: int) -> tuple[float, ...]:
        return tuple(i / count for i in range(count))

    base = WindowMetrics("v1", 400, 2, None, None, spread(398), spread(400))
    ours = WindowMetrics("v2", canary, errors, None, None, spread(canary - errors), spread(canary))
    return Window(ours, base)


def test_it_begins_with_the_first_step() -> None:
    """Before anything was shifted the first step is next, without looking."""
    assert next_step(PLAN, Progress(), 10.0, None) == Shift(5.0)


def test_it_holds_until_a_look_is_due() -> None:
    """Between looks nothing happens, and the answer says until when."""
    assert next_step(PLAN, Progress(0, 100.0, 0), 101.0, window()) == Hold(160.0, "The next look is not due yet.")


def test_a_good_early_look_does_not_pass_a_step() -> None:
    """A step is passed only when its whole bake time was seen."""
    action = next_step(PLAN, Progress(0, 0.0, 0), 60.0, window())
    assert isinstance(action, Hold)
    assert action.until == 120.0
    assert isinstance(next_step(PLAN, Progress(0, 0.0, 3), 240.0, window()), Shift)


def test_a_bad_early_look_rolls_back_at_once() -> None:
    """Errors are not watched for the rest of the bake time."""
    action = next_step(PLAN, Progress(0, 0.0, 0), 60.0, window(errors=60))
    assert isinstance(action, RollBack)
    assert [r.rule for r in action.decision.reasons if r.verdict is Verdict.FAIL] == ["error_rate"]


def test_the_last_step_is_the_promotion() -> None:
    """After the last judged step the canary gets everything."""
    assert isinstance(next_step(PLAN, Progress(2, 0.0, 3), 240.0, window()), Promote)
    assert next_step(RolloutPlan("e", "v2", {"v1": 100}, steps=(100,)), Progress(), 0, None) == Promote()


@pytest.mark.parametrize(
    ("choice", "action"),
    [(OnInconclusive.ROLLBACK, RollBack), (OnInconclusive.SKIP, RollBack), (OnInconclusive.CONTINUE, Shift)],
)
def test_too_little_traffic_holds_and_then_does_what_was_chosen(choice: OnInconclusive, action: type) -> None:
    """Fifty requests a side are needed; until the end of the hold it waits for them."""
    plan = RolloutPlan("fares", "v2", {"v1": 100.0}, bake=240.0, max_hold=960.0, on_inconclusive=choice)
    held = next_step(plan, Progress(0, 0.0, 10), 1199.0, window(canary=49))
    assert isinstance(held, Hold)
    assert "49 of the canary" in held.why
    assert isinstance(next_step(plan, Progress(0, 0.0, 19), 1200.0, window(canary=49)), action)


def test_a_guard_of_ones_own_counts_like_the_others() -> None:
    """A business metric that says no rolls the canary back, with its own words."""
    no = Reason("bookings", Verdict.FAIL, 3, 10, "Only 3 bookings an hour.")
    action = next_step(PLAN, Progress(0, 0.0, 0), 60.0, window(), [lambda seen: no])
    assert isinstance(action, RollBack)
    assert "Only 3 bookings" in action.decision.summary()


@given(st.integers(1, 400), st.integers(1, 6))
def test_all_looks_together_never_spend_more_than_alpha(looks: int, steps: int) -> None:
    """However long each step is held, the significance levels of all looks of all guards sum to alpha at most."""
    percents = (*(float(10 * i) for i in range(1, steps + 1)), 100.0)
    plan = RolloutPlan("e", "v2", {"v1": 100.0}, steps=percents)
    spent = sum(alpha_of_look(plan, look) for look in range(1, looks + 1)) * 3 * steps
    assert spent <= plan.limits.alpha + 1e-12


@given(st.dictionaries(st.sampled_from(["a", "b", "c", "v2"]), st.floats(1, 100), min_size=1), st.floats(0, 100))
def test_a_split_always_sums_to_a_hundred(weights: dict[str, float], percent: float) -> None:
    """Whatever served before, every step's split sums to 100 and gives the canary what the step says."""
    total = sum(weights.values())
    prior = {name: 100 * weight / total for name, weight in weights.items()}
    if not set(prior) - {"v2"}:
        return
    split = RolloutPlan("e", "v2", prior).traffic_at(percent)
    assert sum(split.values()) == pytest.approx(100)
    assert split.get("v2", 0) == pytest.approx(percent)


def test_a_split_tells_which_step_it_is() -> None:
    """A retry finds its place from what serves, and knows a split that is none of its own."""
    assert [PLAN.step_of(t) for t in ({"v1": 100}, {"v1": 95, "v2": 5}, {"v2": 100})] == [-1, 0, 3]
    assert PLAN.step_of({"v1": 60, "v2": 40}) is None
    assert PLAN.step_of({"v3": 100}) is None


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"steps": (5, 50)}, "rise from above 0 to 100"),
        ({"steps": (50, 25, 100)}, "rise"),
        ({"bake": -1}, "bake"),
        ({"prior": {"v2": 100.0}}, "no other revision"),
        ({"limits": Limits(None, None, None)}, "No guard is on"),
    ],
)
def test_a_plan_that_cannot_work_is_refused(fields: dict[str, Any], words: str) -> None:
    """The message names the field and the value."""
    with pytest.raises(InvalidSpecError, match=words):
        RolloutPlan(**{"endpoint": "e", "revision": "v2", "prior": {"v1": 100.0}, **fields})


def test_a_plan_survives_the_way_through_json() -> None:
    """What is stored for a retry is what was planned."""
    import json

    plan = RolloutPlan("e", "v2", {"v1": 100.0}, limits=Limits(max_latency_ratio=None), guards=("a:b",))
    assert RolloutPlan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


def test_an_equal_canary_is_rarely_rolled_back() -> None:
    """Of 500 A/A roll-outs at most 5 % are rolled back, even when any difference matters and the tail is heavy."""
    plan = replace(PLAN, limits=Limits(0, 1, 0))
    back = sum(not simulate(plan, seed, Behaviour()).promoted for seed in range(500))
    assert back / 500 <= plan.limits.alpha


@pytest.mark.parametrize(
    "bad", [Behaviour(errors=0.25), Behaviour(slower=2.5), Behaviour(shift=0.3)], ids=["errors", "latency", "drift"]
)
def test_a_bad_canary_is_rolled_back_within_one_bake_time(bad: Behaviour) -> None:
    """In all of 200 roll-outs a bad canary is taken back in the first step, before its bake time is over."""
    for seed in range(200):
        course = simulate(PLAN, seed, bad)
        assert not course.promoted
        assert course.percents == [5.0]
        assert course.ended <= PLAN.bake


def test_a_canary_without_traffic_ends() -> None:
    """With three requests a minute a step is held and then given up, never passed."""
    course = simulate(PLAN, 1, Behaviour(), rate=0.05)
    assert not course.promoted
    assert course.ended <= PLAN.bake + PLAN.max_hold + PLAN.bake / 4
