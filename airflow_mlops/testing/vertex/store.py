"""The jobs that Vertex AI keeps: messages by place and id, their runs, and lists that can be frozen."""

from __future__ import annotations

import base64
import copy
import itertools
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from airflow_mlops.testing.vertex.filters import matcher
from airflow_mlops.testing.vertex.problems import Json, Problem, bad
from airflow_mlops.testing.vertex.schema import plain, read_mask

MESSAGES = {
    "customJobs": "CustomJob",
    "pipelineJobs": "PipelineJob",
    "hyperparameterTuningJobs": "HyperparameterTuningJob",
}
FILTERS = ("labels", "state", "create_time", "display_name")
PAGE, LARGEST_PAGE = 50, 100
UNLISTED = {"pipelineJobs": ("jobDetail",)}
"""Fields that a list never shows."""


class Run(Protocol):
    """What a job does."""

    def cancel(self) -> None:
        """Order its end."""
        ...

    def stop(self) -> None:
        """End it now and wait for that."""
        ...


@dataclass
class Entry:
    """One job: its message, which only its run changes, under the store's lock."""

    project: str
    region: str
    collection: str
    job_id: str
    message: Any
    run: Any = None
    changes: list[str] = field(default_factory=list)

    @property
    def place(self) -> tuple[str, str, str]:
        """Return project, region and collection."""
        return self.project, self.region, self.collection


class Store:
    """All jobs of all projects and regions."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.entries: list[Entry] = []
        self._numbers = itertools.count(4_000_000_000_000_000_001)
        self._frozen: list[Entry] | None = None

    def add(self, project: str, region: str, collection: str, message: Any, job_id: str = "") -> Entry:
        """Keep a new job.

        :raises Problem: the id is taken
        """
        with self.lock:
            job_id = job_id or str(next(self._numbers))
            entry = Entry(project, region, collection, job_id, message)
            if any(known.place == entry.place and known.job_id == job_id for known in self.entries):
                raise Problem("ALREADY_EXISTS", f"The {MESSAGES[collection]} {job_id} already exists.")
            message.name = f"projects/{number_of(project)}/locations/{region}/{collection}/{job_id}"
            message.create_time.GetCurrentTime()
            message.update_time.GetCurrentTime()
            self.entries.append(entry)
            return entry

    def get(self, project: str, region: str, collection: str, job_id: str) -> Entry:
        """Return a job.

        :raises Problem: there is none
        """
        with self.lock:
            for entry in self.entries:
                is_there = project in (entry.project, number_of(entry.project))
                if is_there and (entry.region, entry.collection, entry.job_id) == (region, collection, job_id):
                    return entry
        raise Problem("NOT_FOUND", f"The {MESSAGES[collection]} does not exist: {project}/{region}/{job_id}")

    def change(self, entry: Entry, change: Callable[[Any], None]) -> None:
        """Change a job's message."""
        with self.lock:
            change(entry.message)
            entry.message.update_time.GetCurrentTime()

    def shown(self, entry: Entry, fields: tuple[str, ...] = ()) -> Json:
        """Return a job as the API sends it."""
        with self.lock:
            return plain(entry.message, fields)

    def page(self, project: str, region: str, collection: str, query: Json) -> Json:
        """Return one page of a list, newest first.

        :raises Problem: filter, token, size or mask is wrong
        """
        matches, size = matcher(query.get("filter", ""), FILTERS), _size(query)
        fields = read_mask(MESSAGES[collection], query.get("readMask", ""))
        with self.lock:
            known = self.entries if self._frozen is None else self._frozen
            here = [entry for entry in known if entry.place == (project, region, collection)]
            found = [entry for entry in reversed(here) if matches(_fields(entry))]
            first = _first(query)
            hidden = UNLISTED.get(collection, ())
            shown = [self.shown(entry, fields) for entry in found[first : first + size]]
        jobs = [{key: value for key, value in job.items() if key not in hidden} for job in shown]
        page: Json = {collection: jobs} if jobs else {}
        return page | ({"nextPageToken": _token(first + size, query)} if first + size < len(found) else {})

    def freeze(self, *, is_frozen: bool) -> None:
        """Let lists show from now on what there is now, or what there really is."""
        with self.lock:
            self._frozen = [_copy(entry) for entry in self.entries] if is_frozen else None


def number_of(project: str) -> str:
    """Return the number of a project, by which the API names it."""
    return str(100_000_000_000 + zlib.crc32(project.encode()))


def _copy(entry: Entry) -> Entry:
    return Entry(entry.project, entry.region, entry.collection, entry.job_id, copy.deepcopy(entry.message))


def _fields(entry: Entry) -> Callable[[str], Any]:
    message = entry.message

    def get(name: str) -> Any:
        if name.startswith("labels."):
            return message.labels.get(name.partition(".")[2])
        if name == "create_time":
            return message.create_time.ToJsonString()
        return state_word(message) if name == "state" else message.display_name

    return get


def state_word(message: Any) -> str:
    """Return the word for a job's state; the number of one that is not in the API."""
    known = message.DESCRIPTOR.fields_by_name["state"].enum_type.values_by_number.get(message.state)
    return known.name if known else str(message.state)


def _size(query: Json) -> int:
    given = query.get("pageSize", "0")
    if not given.isdigit():
        raise bad(f"Invalid value at page_size: {given}")
    return min(int(given) or PAGE, LARGEST_PAGE)


def _token(first: int, query: Json) -> str:
    return base64.urlsafe_b64encode(f"{first}:{query.get('filter', '')}".encode()).decode()


def _first(query: Json) -> int:
    """Return where a page begins. A token is good for the same filter only."""
    if not query.get("pageToken"):
        return 0
    try:
        first, _, filtered = base64.urlsafe_b64decode(query["pageToken"]).decode().partition(":")
    except ValueError:
        first, filtered = "", ""
    if not first.isdigit() or filtered != query.get("filter", ""):
        raise bad("Invalid page token.")
    return int(first)
