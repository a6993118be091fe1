"""Simulated traffic: what two revisions would do in a window of seconds, from a seed."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

from airflow_mlops.deployment.contract import WindowMetrics
from airflow_mlops.deployment.guards import Window
from airflow_mlops.deployment.rollout import (
    Hold,
    Progress,
    Promote,
    RollBack,
    RolloutPlan,
    Shift,
    next_look,
    next_step,
)


@dataclass
class Behaviour:
    """How one revision answers: chance of an error, factor on the time to answer, shift of its score."""

    errors: float = 0.01
    slower: float = 1.0
    shift: float = 0.0


SAMPLE = 200
"""Times and scores kept a revision and step."""


@dataclass
class Served:
    """What one revision answered in one step."""

    behaviour: Behaviour
    requests: int = 0
    errors: int = 0
    latencies: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)

    def serve(self, rng: random.Random, count: int) -> None:
        """Answer *count* requests. Times are log-normal with a heavy tail, scores skewed."""
        for _ in range(count):
            failed = rng.random() < self.behaviour.errors
            self.requests += 1
            self.errors += failed
            if len(self.latencies) < SAMPLE:
                slow = 10.0 if rng.random() < 0.02 else 1.0
                self.latencies.append(slow * self.behaviour.slower * math.exp(rng.gauss(2, 0.5)))
            if not failed and len(self.scores) < SAMPLE:
                self.scores.append(min(1.0, rng.betavariate(2, 6) + self.behaviour.shift))

    def metrics(self, name: str) -> WindowMetrics:
        """Sum up what was served so far."""
        return WindowMetrics(name, self.requests, self.errors, None, None, tuple(self.scores), tuple(self.latencies))


@dataclass
class Course:
    """How a simulated roll-out went."""

    promoted: bool
    ended: float
    last_step_began: float
    percents: list[float]


def simulate(plan: RolloutPlan, seed: int, canary: Behaviour, rate: float = 8.0) -> Course:
    """Run *plan* on a simulated clock with *rate* requests a second until it ends."""
    rng = random.Random(seed)
    now, progress, percents = 0.0, Progress(), []
    ours, theirs = Served(canary), Served(Behaviour())
    seen = 0.0
    while True:
        percent = plan.steps[progress.step] if progress.step >= 0 else 0
        total = int(rate * (now - seen))
        mine = sum(rng.random() * 100 < percent for _ in range(total))
        ours.serve(rng, mine)
        theirs.serve(rng, total - mine)
        seen = now
        window = Window(ours.metrics(plan.revision), theirs.metrics(plan.baseline), progress.since, now)
        match next_step(plan, progress, now, window):
            case Shift(percent):
                progress = Progress(progress.step + 1, now, 0)
                percents.append(percent)
                ours, theirs = Served(canary), Served(Behaviour())
                now = next_look(plan, progress)
            case Hold(until):
                progress = Progress(progress.step, progress.since, progress.looks + 1)
                now = until
            case Promote():
                return Course(True, now, progress.since, percents)
            case RollBack():
                return Course(False, now, progress.since, percents)
