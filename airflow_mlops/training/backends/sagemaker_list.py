"""Many jobs looked at with few requests: a whole list now and then, and between them only what has changed.

A training job that changes gets a new ``LastModifiedTime``. The times are SageMaker's own, and each look goes back a
little further than the last one saw, because a list may lag. What a list never shows, the whole list shows later; what
that misses, a look at the one job shows. It must never take a job for gone because a list does not have it.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ListTrainingJobs.html
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Any

from airflow_mlops.training.backends.sagemaker_status import is_over

Json = dict[str, Any]
Ask = Callable[..., Iterator[list[Json]]]
"""Gives pages of summaries for fields of ``ListTrainingJobs``."""

PAGE, MOST_PAGES = 100, 100
OVERLAP = timedelta(seconds=120)
WHOLE = 600.0
"""Seconds after which the whole list is read again."""


class JobList:
    """What is known of the jobs of one region that somebody waits for."""

    def __init__(self, ask: Ask, clock: Callable[[], float] = time.monotonic) -> None:
        self._ask, self._clock = ask, clock
        self._known: dict[str, Json] = {}
        self._newest: datetime | None = None
        self._read_at = 0.0

    def look(self, names: Collection[str]) -> dict[str, Json]:
        """Return what is known now of the jobs called *names*; one that no list showed is absent."""
        wanted = set(names)
        if self._newest is None or self._clock() > self._read_at + WHOLE:
            self._read_at = self._clock()
            self._read(wanted, whole=True)
        else:
            self._read(wanted, whole=False)
        self._known = {name: job for name, job in self._known.items() if name in wanted}
        return dict(self._known)

    def note(self, job: Json) -> None:
        """Remember a job that was looked at alone: it tells more than a list does."""
        self._known[job["TrainingJobName"]] = job

    def _read(self, wanted: set[str], *, whole: bool) -> None:
        """Read the list of all, newest first, until every wanted one was seen; or of all that changed lately."""
        query: Json = {"MaxResults": PAGE, "SortBy": "CreationTime", "SortOrder": "Descending"}
        if prefix := _common_start(wanted):
            query["NameContains"] = prefix
        if not whole and self._newest is not None:
            query["LastModifiedTimeAfter"] = self._newest - OVERLAP
        missing = set(wanted)
        for number, page in enumerate(self._ask(**query), 1):
            for job in page:
                self._take(job, wanted)
                missing.discard(job["TrainingJobName"])
            if whole and (not missing or number == MOST_PAGES):
                return

    def _take(self, job: Json, wanted: set[str]) -> None:
        name, changed = job["TrainingJobName"], job.get("LastModifiedTime") or job["CreationTime"]
        self._newest = max(self._newest or changed, changed)
        if name in wanted and not is_over(self._known.get(name, {})):
            self._known[name] = job


def _common_start(names: Collection[str]) -> str:
    """Return how all *names* begin."""
    first, last = min(names, default=""), max(names, default="")
    same = (a == b for a, b in zip(first, last, strict=False))
    return first[: sum(takewhile(bool, same))]
