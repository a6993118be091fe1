"""Jobs of Vertex AI by their stable name: CustomJobs, whose ids are the server's own, and PipelineJobs, whose are ours.

A CustomJob carries its name as a label. Of several with one name the oldest is the job, whoever looks, and all others
are stopped as soon as they are seen. The order to start one is given once: when its answer was lost, the job is looked
for, and if it does not appear a later try looks again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from airflow_mlops.core.errors import (
    ConflictError,
    InvalidSpecError,
    NotFoundError,
    PlatformUnavailableError,
)
from airflow_mlops.platforms.gcp import CUSTOM_JOBS, PIPELINE_JOBS, GcpApi, Kind
from airflow_mlops.platforms.gcp_answers import ThrottledError
from airflow_mlops.training.backends.vertex_job import BY, MANAGED, NAME
from airflow_mlops.training.backends.vertex_status import ENDED, is_over

Json = dict[str, Any]

LOST_ANSWER_PAUSES = (0.2, 0.5, 1.0, 2.0)
"""Seconds between the looks for a job whose start was ordered and not answered."""

DIRECT_LOOKS = 20
"""How many jobs that are not in the list of active ones are asked for alone in one look."""

BRIEF = ("name", "display_name", "state", "create_time", "start_time", "end_time", "error", "labels")
"""Fields of a job that tell what it is doing. Its spec, which is long, is left out."""

log = logging.getLogger(__name__)


def id_of(job: Mapping[str, Any]) -> str:
    """Return the last part of a job's resource name."""
    return str(job["name"]).rpartition("/")[2]


class VertexJobs:
    """What both kinds have in common: how they are found by id, listed and stopped."""

    kind: Kind
    word: str
    """What the words for its states begin with."""
    label, by = NAME, BY
    """The label that has the stable name, and the value of the one that says who made the job."""

    def __init__(self, api: GcpApi) -> None:
        self._api = api

    def get(self, scope: str, job_id: str) -> Json | None:
        """Return one job with all it has, or ``None``."""
        try:
            return self._api.get(self.kind, scope, job_id)
        except NotFoundError:
            return None

    def look(self, scope: str, ids: Iterable[str]) -> dict[str, Json]:
        """Return jobs by id: from one list of all active ones of ours, and at most 20 others asked for alone."""
        wanted, found = list(ids), {}
        if len(wanted) > 1:
            found = self._by_id(scope, self.active(scope))
        absent = [job_id for job_id in wanted if job_id not in found]
        for job_id in absent[:DIRECT_LOOKS]:
            if (job := self.current(scope, job_id)) is not None:
                found[job_id] = job
        return {job_id: found[job_id] for job_id in wanted if job_id in found}

    def active(self, scope: str) -> list[Json]:
        """Return those of ours that have not ended, as far as a list tells."""
        going = " AND ".join(f'state!="{self.word}_{end}"' for end in ENDED)
        return list(self._api.jobs(self.kind, scope, f"{self._ours} AND {going}", BRIEF))

    def managed(self) -> Iterator[Json]:
        """Yield all of ours with all they have."""
        return self._api.jobs(self.kind, self._api.scope, self._ours)

    def current(self, scope: str, job_id: str) -> Json | None:
        """Return the job that counts for whoever knows *job_id*."""
        return self.get(scope, job_id)

    def cancel(self, scope: str, job_id: str) -> None:
        """Order the end of a job. One that is over or unknown is left alone."""
        try:
            self._api.cancel(self.kind, scope, job_id)
        except NotFoundError:
            return
        except (InvalidSpecError, ConflictError):
            job = self.get(scope, job_id)
            if job is not None and not is_over(job) and not str(job["state"]).endswith("CANCELLING"):
                raise

    @property
    def _ours(self) -> str:
        return f'labels.{MANAGED}="{self.by}"'

    def _name(self, job: Mapping[str, Any]) -> str:
        """Return the stable name of a job of ours, or nothing."""
        return str((job.get("labels") or {}).get(self.label, ""))

    def _by_id(self, scope: str, jobs: list[Json]) -> dict[str, Json]:  # noqa: ARG002 - where names are no ids it counts
        """Return, for each id, the job that counts."""
        return {id_of(job): job for job in jobs}


class CustomJobs(VertexJobs):
    """Jobs whose ids the server makes."""

    kind, word = CUSTOM_JOBS, "JOB_STATE"

    def find(self, scope: str, name: str) -> Json | None:
        """Return the oldest job called *name*, and stop all others."""
        return self._settled(scope, self._named(scope, name))

    def start(self, body: Json, name: str) -> Json:
        """Start a job that nobody has seen yet, and return the one that counts.

        :raises PlatformUnavailableError: it was ordered, and may or may not appear
        """
        try:
            made = self._api.create(self.kind, body)
        except ThrottledError:
            raise
        except PlatformUnavailableError:
            found = self._appeared(name)
            if found is None:
                raise
            return found
        return self._settled(self._api.scope, [made, *self._named(self._api.scope, name)]) or made

    def current(self, scope: str, job_id: str) -> Json | None:
        """Return the oldest job with the same name, and stop all others."""
        job = self.get(scope, job_id)
        if job is None or not (name := self._name(job)):
            return job
        oldest = self._settled(scope, [job, *self._named(scope, name)])
        return job if oldest is None or id_of(oldest) == job_id else self.get(scope, id_of(oldest))

    def cancel(self, scope: str, job_id: str) -> None:
        """Order the end of a job and of all with the same name."""
        job = self.get(scope, job_id)
        name = self._name(job) if job else ""
        known = self._named(scope, name) if name else []
        for each in {id_of(each): each for each in [*known, *([job] if job else [])]}.values():
            if not is_over(each):
                super().cancel(scope, id_of(each))

    def _by_id(self, scope: str, jobs: list[Json]) -> dict[str, Json]:
        """Return, for each id, the oldest job with the same name, and stop all others."""
        by_name: dict[str, list[Json]] = {}
        for job in jobs:
            by_name.setdefault(self._name(job), []).append(job)
        oldest = {name: self._settled(scope, same) for name, same in by_name.items()}
        return {id_of(job): oldest[self._name(job)] or job for job in jobs}

    def _named(self, scope: str, name: str) -> list[Json]:
        return list(self._api.jobs(self.kind, scope, f'labels.{self.label}="{name}"', BRIEF))

    def _settled(self, scope: str, jobs: Iterable[Json]) -> Json | None:
        """Return the oldest of jobs with one name, and stop the others."""
        known = {id_of(job): job for job in jobs}
        ordered = sorted(known.values(), key=lambda job: (str(job.get("create_time")), id_of(job)))
        for stray in ordered[1:]:
            if not is_over(stray) and not str(stray["state"]).endswith("CANCELLING"):
                log.warning("The job %s was started twice: %s is stopped.", self._name(stray), stray["name"])
                super().cancel(scope, id_of(stray))
        return ordered[0] if ordered else None

    def _appeared(self, name: str) -> Json | None:
        """Look for a job whose start was not answered."""
        for pause in LOST_ANSWER_PAUSES:
            time.sleep(pause)
            try:
                if job := self.find(self._api.scope, name):
                    return job
            except PlatformUnavailableError:
                continue
        return None


class PipelineJobs(VertexJobs):
    """Jobs whose ids are their names."""

    kind, word = PIPELINE_JOBS, "PIPELINE_STATE"

    def find(self, scope: str, name: str) -> Json | None:
        """Return the job called *name*."""
        return self.get(scope, name)

    def start(self, body: Json, name: str) -> Json:
        """Start the job called *name*, or return the one that has the name already."""
        try:
            return self._api.create(self.kind, body, job_id=name)
        except ConflictError:
            return self._api.get(self.kind, self._api.scope, name)
