"""Decide how a canary goes on. Pure: it gets the time and what was seen, and never looks or acts itself.

The chance to roll back a canary that is no worse is at most ``alpha`` in all: it is split evenly over steps and guards,
and look number k of a step gets 1/(k(k+1)) of its share, which sums to 1 however long a step is held. Early looks may
only roll back; a step is passed when its whole bake time was seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from airflow_mlops.core.decisions import GateDecision
from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.core.records import Record
from airflow_mlops.deployment.guards import Guard, Limits, Window, judge

LOOKS = 4
"""Looks in one bake time."""


class OnInconclusive(StrEnum):
    """What follows a step that had too little traffic until the end of its hold."""

    ROLLBACK = "rollback"
    SKIP = "skip"
    CONTINUE = "continue"


@dataclass(frozen=True)
class RolloutPlan(Record):
    """All that one roll-out depends on; a retry or another machine can go on from it.

    :param prior: the traffic before it began (revision -> percent): what a rollback restores
    :param steps: percents of the canary, rising to 100; the last one is not baked, it has no baseline
    :param bake: seconds each step is watched
    :param max_hold: seconds a step may be held after that for want of traffic
    :param on_inconclusive: ``rollback`` restores and fails, ``skip`` restores and skips the task, ``continue`` takes
        the next step without evidence
    :param guards: guards of your own as ``package.module:function``
    """

    endpoint: str
    revision: str
    prior: Mapping[str, float]
    steps: tuple[float, ...] = (5.0, 25.0, 50.0, 100.0)
    bake: float = 300.0
    max_hold: float = 600.0
    on_inconclusive: OnInconclusive = OnInconclusive.ROLLBACK
    limits: Limits = field(default_factory=Limits)
    guards: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip((0, *self.steps), self.steps, strict=False))
        if not self.steps or not rising or self.steps[-1] != 100:
            raise InvalidSpecError(f"steps are {list(self.steps)!r}; they have to rise from above 0 to 100.")
        if self.bake < 0 or self.max_hold < 0:
            raise InvalidSpecError(f"bake ({self.bake!r}) and max_hold ({self.max_hold!r}) are seconds, 0 or more.")
        if not set(self.prior) - {self.revision}:
            raise InvalidSpecError(f"{self.revision!r} has no other revision to be compared with on {self.endpoint!r}.")

        if len(self.steps) > 1 and not self.limits.count and not self.guards:
            raise InvalidSpecError("No guard is on, so no step can pass. Set a limit, or steps=[100] to shift at once.")

    @property
    def baseline(self) -> str:
        """The revision that had most of the traffic before."""
        others = {name: percent for name, percent in self.prior.items() if name != self.revision}
        return max(others, key=lambda name: others[name])

    @property
    def longest(self) -> float:
        """Seconds the roll-out takes at most when every step is held to its end."""
        return (self.bake + self.max_hold) * len(self.steps)

    def traffic_at(self, percent: float) -> dict[str, float]:
        """Return the split with *percent* on the canary; the others share the rest as they did before."""
        others = {name: share for name, share in self.prior.items() if name != self.revision and share > 0}
        scale = (100 - percent) / sum(others.values())
        split = {name: round(share * scale, 3) for name, share in others.items()}
        split[self.baseline] = round(100 - percent - sum(v for k, v in split.items() if k != self.baseline), 9)
        return {name: share for name, share in {**split, self.revision: percent}.items() if share}

    def step_of(self, traffic: Mapping[str, float]) -> int | None:
        """Return which step *traffic* is (-1: not begun), or ``None`` if it is none of this roll-out."""
        for index, percent in enumerate(self.steps):
            if same_split(traffic, self.traffic_at(percent)):
                return index
        return -1 if same_split(traffic, self.prior) else None


def same_split(first: Mapping[str, float], second: Mapping[str, float]) -> bool:
    """Whether two splits differ by less than a tenth of a percent everywhere."""
    return all(abs(first.get(name, 0) - second.get(name, 0)) < 0.1 for name in {*first, *second})


@dataclass(frozen=True)
class Progress(Record):
    """Where a roll-out stands.

    :param step: index into the plan's steps; -1 before the first shift
    :param since: when the step was read back (seconds since 1970)
    :param looks: looks taken at this step
    """

    step: int = -1
    since: float = 0.0
    looks: int = 0


@dataclass(frozen=True)
class Shift:
    """Give the canary *percent* of the traffic."""

    percent: float
    decision: GateDecision | None = None


@dataclass(frozen=True)
class Promote:
    """Give the canary everything: it is the new revision."""

    decision: GateDecision | None = None


@dataclass(frozen=True)
class Hold:
    """Change nothing before *until*. ``decision`` is set when this was a look."""

    until: float
    why: str
    decision: GateDecision | None = None


@dataclass(frozen=True)
class RollBack:
    """Restore the traffic as it was before."""

    decision: GateDecision


Action = Shift | Promote | Hold | RollBack


def next_look(plan: RolloutPlan, progress: Progress) -> float:
    """Return when this step is looked at next (seconds since 1970); at most one look a second."""
    return progress.since + max(plan.bake / LOOKS, 1.0) * (progress.looks + 1)


def alpha_of_look(plan: RolloutPlan, look: int) -> float:
    """Return the significance level of each guard at look number *look* (from 1) of a step."""
    judged = max(1, len(plan.steps) - 1)
    return plan.limits.alpha / (judged * max(1, plan.limits.count) * look * (look + 1))


def next_step(
    plan: RolloutPlan, progress: Progress, now: float, window: Window | None, own: Iterable[Guard] = ()
) -> Action:
    """Return what to do now.

    :param window: what both revisions did from ``progress.since`` until *now*; needed once a look is due
    :param own: guards besides those of ``plan.limits``
    """
    if progress.step < 0:
        return _onward(plan, progress, None)
    due = next_look(plan, progress)
    if now < due or window is None:
        return Hold(due, "The next look is not due yet.")
    decision = GateDecision.of(judge(window, plan.limits, alpha_of_look(plan, progress.looks + 1), own))
    return _weigh(plan, progress, now, decision)


def _weigh(plan: RolloutPlan, progress: Progress, now: float, decision: GateDecision) -> Action:
    """Turn a look into an action."""
    if decision.verdict == "fail":
        return RollBack(decision)
    later = next_look(plan, Progress(progress.step, progress.since, progress.looks + 1))
    if now - progress.since < plan.bake:
        return Hold(later, "The step is still baking.", decision)
    if decision.passed:
        return _onward(plan, progress, decision)
    if now - progress.since < plan.bake + plan.max_hold:
        return Hold(later, decision.summary(), decision)
    if plan.on_inconclusive is OnInconclusive.CONTINUE:
        return _onward(plan, progress, decision)
    return RollBack(decision)


def _onward(plan: RolloutPlan, progress: Progress, decision: GateDecision | None) -> Action:
    percent = plan.steps[progress.step + 1]
    return Promote(decision) if percent == 100 else Shift(percent, decision)
