"""Drive a roll-out: look, let the plan decide, act, read back. Blocking, one turn at a time, for any target.

Everything needed to go on is the plan and what serves, so another process may take over after any turn. It never moves
traffic that somebody else has changed meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from airflow_mlops.core.decisions import GateDecision, Reason, Verdict
from airflow_mlops.core.errors import InvalidSpecError, NotFoundError, PlatformUnavailableError, close_match
from airflow_mlops.core.records import Record
from airflow_mlops.deployment.contract import DeploymentTarget, EndpointStatus, RevisionState, WindowMetrics
from airflow_mlops.deployment.guards import Window, load_guard
from airflow_mlops.deployment.rollout import (
    Action,
    Hold,
    Progress,
    Promote,
    RollBack,
    RolloutPlan,
    Shift,
    next_look,
    next_step,
    same_split,
)


class Outcome(StrEnum):
    """How a roll-out ended. INTERRUPTED: somebody else changed the traffic, and it was left as they wanted it."""

    PROMOTED = "promoted"
    ALREADY_SERVING = "already_serving"
    ROLLED_BACK = "rolled_back"
    INCONCLUSIVE = "inconclusive"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class StepTaken(Record):
    """One step that is over.

    :param since: when its traffic was read back (seconds since 1970)
    :param decision: what ended it
    """

    percent: float
    since: float
    until: float
    decision: GateDecision


@dataclass(frozen=True)
class RolloutResult(Record):
    """What a roll-out came to.

    :param decision: how it ended
    :param traffic: what serves now, read back (revision -> percent)
    :param steps: the steps that were judged, in order; after a restart those since then
    :param reasons: what a roll-back rests on
    """

    endpoint: str
    revision: str
    decision: Outcome
    traffic: Mapping[str, float]
    steps: tuple[StepTaken, ...] = ()
    reasons: tuple[Reason, ...] = ()


class RolloutDriver:
    """One roll-out on one target. Call :meth:`begin`, then :meth:`turn` until :attr:`result` is there."""

    def __init__(self, target: DeploymentTarget, plan: RolloutPlan, clock: Callable[[], float] = time.time) -> None:
        self.target, self.plan, self.clock = target, plan, clock
        self.guards = tuple(load_guard(path) for path in plan.guards)
        self.progress = Progress()
        self.steps: list[StepTaken] = []
        self._ordered: tuple[Action, float] | None = None
        self.result: RolloutResult | None = None

    def begin(self) -> None:
        """Take the place that the traffic shows. A step that was under way is baked again from now."""
        traffic = self.target.status(self.plan.endpoint).traffic
        step = self.plan.step_of(traffic)
        if step is None:
            self._interrupted(traffic)
        elif step == len(self.plan.steps) - 1:
            self._end(Outcome.PROMOTED, traffic)
        else:
            self.progress = Progress(step, self.clock())

    def turn(self) -> None:
        """Look and act once. After an error call it again: an action that may have got through is repeated first."""
        now = self.clock()
        status = self.target.status(self.plan.endpoint)
        if not self._is_mine(status.traffic):
            self._interrupted(status.traffic)
            return
        if broken := _broken(status, self.plan.revision):
            self._ordered = RollBack(broken), now
        if self._ordered is None:
            self._ordered = next_step(self.plan, self.progress, now, self._window(now), self.guards), now
        self._act(*self._ordered)
        self._ordered = None

    def wait(self) -> float:
        """Return seconds until the next look, 0 if it is due."""
        due = next_look(self.plan, self.progress) if self.progress.step >= 0 else 0.0
        return max(0.0, due - self.clock())

    def give_up(self, why: str) -> None:
        """Restore the traffic because the time is over."""
        self._end(Outcome.INCONCLUSIVE, restore(self.target, self.plan).traffic, _gave_up(why).reasons)

    def _is_mine(self, traffic: Mapping[str, float]) -> bool:
        """Whether nobody else changed the traffic: it is this step's, or what an unanswered order may have made it."""
        match self._ordered:
            case None:
                allowed = {self.progress.step}
            case RollBack(), _:
                return True  # restoring looks itself
            case _:
                allowed = {self.progress.step, self.progress.step + 1}
        return self.plan.step_of(traffic) in allowed

    def _window(self, now: float) -> Window | None:
        since = self.progress.since
        if self.progress.step < 0 or now < next_look(self.plan, self.progress):
            return None
        seen = self.target.metrics(self.plan.endpoint, since, now)
        canary, baseline = (
            seen.get(name, WindowMetrics(name, 0, 0)) for name in (self.plan.revision, self.plan.baseline)
        )
        return Window(canary, baseline, since, now)

    def _act(self, action: Action, now: float) -> None:
        match action:
            case Hold(decision=decision):
                if decision is not None:
                    self.progress = replace(self.progress, looks=self.progress.looks + 1)
            case RollBack(decision):
                ended = Outcome.ROLLED_BACK if decision.verdict is Verdict.FAIL else Outcome.INCONCLUSIVE
                traffic = restore(self.target, self.plan).traffic
                self._over(decision, now)
                self._end(ended, traffic, decision.reasons)
            case Shift(percent, decision):
                self._shift(percent)
                self._over(decision, now)
                self.progress = Progress(self.progress.step + 1, self.clock())
            case Promote(decision):
                served = self._shift(100)
                self._over(decision, now)
                self._end(Outcome.PROMOTED, served)

    def _shift(self, percent: float) -> Mapping[str, float]:
        return _ordered(self.target, self.plan.endpoint, self.plan.traffic_at(percent)).traffic

    def _over(self, decision: GateDecision | None, now: float) -> None:
        if decision is not None:
            percent = self.plan.steps[self.progress.step]
            self.steps.append(StepTaken(percent, self.progress.since, now, decision))

    def _interrupted(self, traffic: Mapping[str, float]) -> None:
        expected = self.plan.traffic_at(self.plan.steps[self.progress.step]) if self.progress.step >= 0 else None
        reason = _changed(self.plan.endpoint, traffic, expected or self.plan.prior)
        self._end(Outcome.INTERRUPTED, traffic, (reason,))

    def _end(self, outcome: Outcome, traffic: Mapping[str, float], reasons: tuple[Reason, ...] = ()) -> None:
        self.result = RolloutResult(
            self.plan.endpoint, self.plan.revision, outcome, traffic, tuple(self.steps), reasons
        )


def as_it_serves(result: RolloutResult, traffic: Mapping[str, float]) -> RolloutResult:
    """Return *result*, or INTERRUPTED in its place if it promoted and what serves now is something else."""
    wanted = {result.revision: 100.0}
    if result.decision is not Outcome.PROMOTED or same_split(traffic, wanted):
        return result
    reason = _changed(result.endpoint, traffic, wanted)
    return replace(result, decision=Outcome.INTERRUPTED, traffic=traffic, reasons=(reason,))


def restore(target: DeploymentTarget, plan: RolloutPlan) -> EndpointStatus:
    """Put the traffic back to what it was before *plan*, unless it is none of the plan's own splits.

    :raises PlatformUnavailableError: the old revision is not ready now, or the split read back is another one
    """
    status = target.status(plan.endpoint)
    if plan.step_of(status.traffic) in (None, -1):
        return status
    return _ordered(target, plan.endpoint, plan.prior)


def _ordered(target: DeploymentTarget, endpoint: str, wanted: Mapping[str, float]) -> EndpointStatus:
    """Shift and read back. A revision that is there and not ready now, because it restarts, may be so soon."""
    try:
        return confirmed(target.shift(endpoint, wanted), wanted)
    except NotFoundError:
        raise
    except InvalidSpecError as error:
        raise PlatformUnavailableError(f"{endpoint!r} cannot serve {dict(wanted)!r} now: {error}") from error


def confirmed(status: EndpointStatus, wanted: Mapping[str, float]) -> EndpointStatus:
    """Return *status* if it shows the wanted traffic.

    :raises PlatformUnavailableError: it shows another split
    """
    if not same_split(status.traffic, wanted):
        raise PlatformUnavailableError(
            f"{status.endpoint!r} was told to serve {dict(wanted)!r} and serves {status.traffic!r}. "
            "Look at what the platform says."
        )
    return status


def require_revision(status: EndpointStatus, revision: str) -> None:
    """Refuse a revision that the endpoint does not have.

    :raises NotFoundError: naming a close one and all there are
    """
    if status.find(revision) is None:
        names = [r.revision for r in status.revisions]
        raise NotFoundError(
            f"Endpoint {status.endpoint!r} has no revision {revision!r}: {close_match(revision, names)}"
            f"It has {', '.join(names) or 'none'}."
        )


def _broken(status: EndpointStatus, revision: str) -> GateDecision | None:
    """Return a FAIL if the platform itself says that the revision failed."""
    found = status.find(revision)
    if found is not None and found.state is not RevisionState.FAILED:
        return None
    message = f"{revision!r} stopped serving: {found.detail if found else 'it is not there any more'}."
    return GateDecision.of([Reason("ready", Verdict.FAIL, found.state if found else "absent", "ready", message)])


def _changed(endpoint: str, found: Mapping[str, float], expected: Mapping[str, float]) -> Reason:
    message = f"Somebody else changed the traffic of {endpoint!r} to {dict(found)!r}. It was left so."
    return Reason("traffic", Verdict.FAIL, dict(found), dict(expected), message)


def _gave_up(why: str) -> GateDecision:
    return GateDecision.of([Reason("deadline", Verdict.INCONCLUSIVE, None, None, why)])
