"""Look through the jobs of many platforms for orphans and stop them, as :mod:`janitor` decides.

One platform that does not answer must not keep the others from being looked at, and is never read as "no jobs there".
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_mlops.core.errors import MlopsError
from airflow_mlops.training.contract import JobBackend
from airflow_mlops.training.janitor import Answer, OwnedJob, Question, orphans, task_states

Backend = JobBackend[Any, Any]


@dataclass(frozen=True)
class Look:
    """What one look at all places found.

    :param checked: jobs that the platforms list, over or not, of whichever Airflow
    :param active: those of our own that are not over
    :param unreachable: place -> why it could not be looked at
    """

    checked: int
    active: int
    orphans: tuple[OwnedJob, ...]
    unreachable: Mapping[str, str]


@dataclass(frozen=True)
class Stopped:
    """How stopping went.

    :param cancelled: jobs that are over for certain
    :param still_active: jobs that were not over within the limit, each with the reason if one is known
    """

    cancelled: tuple[OwnedJob, ...]
    still_active: tuple[tuple[OwnedJob, str], ...]


@dataclass
class Patrol:
    """One round through all places.

    :param places: place -> how to get its backend
    :param ask: asks Airflow for the states of tasks
    :param deployment_id: who we are; jobs of another Airflow are left alone
    """

    places: Mapping[str, Callable[[], Backend]]
    ask: Callable[[Question], Answer]
    deployment_id: str
    _backends: dict[str, Backend] = field(default_factory=dict)

    def look(self, suspected: Collection[tuple[str, str]] | None = None) -> Look:
        """List the active jobs of every place and ask Airflow about their tasks.

        :param suspected: place and id of the orphans of the look before; ``None`` for the first look
        """
        checked, active, unreachable = 0, list[OwnedJob](), dict[str, str]()
        for place in self.places:
            try:
                number, found = self._active(place)
            except MlopsError as error:
                unreachable[place] = str(error)
            else:
                checked += number
                active += found
        states = task_states((job.owner for job in active), self.ask)
        left = orphans(active, states, deployment_id=self.deployment_id, suspected=suspected)
        return Look(checked, len(active), left, unreachable)

    def stop(self, jobs: Collection[OwnedJob], *, limit: float, interval: float) -> Stopped:
        """Cancel *jobs* and look every *interval* seconds until they are over, at most *limit* seconds."""
        pending, why = list(jobs), dict[OwnedJob, str]()
        end = time.monotonic() + limit
        while True:
            pending = [job for job in pending if not self._over(job, why)]
            if not pending or time.monotonic() >= end:
                break
            time.sleep(min(interval, max(0.0, end - time.monotonic())))
        return Stopped(
            tuple(job for job in jobs if job not in pending), tuple((job, why.get(job, "")) for job in pending)
        )

    def _backend(self, place: str) -> Backend:
        if place not in self._backends:
            self._backends[place] = self.places[place]()
        return self._backends[place]

    def _active(self, place: str) -> tuple[int, list[OwnedJob]]:
        """Return how many jobs the place lists, and those of our own that are not over."""
        backend = self._backend(place)
        listed = list(backend.managed())
        own = {handle: owner for handle, owner in listed if owner.deployment_id == self.deployment_id}
        states = backend.observe(own)
        found = [
            OwnedJob(place, handle, owner)
            for handle, owner in own.items()
            if handle in states and not states[handle].state.terminal
        ]
        return len(listed), found

    def _over(self, found: OwnedJob, why: dict[OwnedJob, str]) -> bool:
        """Whether the job is over. If it is not, order its end, once more: an order may have been lost."""
        backend = self._backend(found.place)
        try:
            status = backend.observe([found.job]).get(found.job)
            if status is None or status.state.terminal:
                return True
            why[found] = f"{status.native} {status.detail}".strip()
            backend.cancel(found.job)
        except MlopsError as error:
            why[found] = str(error)
        return False
