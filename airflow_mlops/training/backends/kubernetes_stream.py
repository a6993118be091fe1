"""What the cluster tells by itself about our Jobs: one list and one watch a namespace, answers from memory.

However many jobs wait, a look at them costs no request. A stream that broke says so at the next look, and is of no more
use. https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from airflow_mlops.core.errors import InvalidSpecError, MlopsError, PlatformUnavailableError
from airflow_mlops.platforms.kubernetes import Kind, KubernetesApi, Watch
from airflow_mlops.platforms.kubernetes_answers import ExpiredError
from airflow_mlops.training.backends.kubernetes_job import SELECTOR
from airflow_mlops.training.contract import JobHandle, JobStatus

Json = dict[str, Any]

WATCH_SECONDS = 240
"""After that the server ends a watch, and the next goes on where it ended."""

SHORTEST_WATCH = 1.0
"""Seconds between the beginnings of two watches, whatever became of the first."""


class JobStream:
    """Tells about the jobs of any namespace; it begins to watch one when it is first asked about it.

    :param kind: the objects that are jobs
    :param status: reads the status of one
    """

    def __init__(self, api: KubernetesApi, kind: Kind, status: Callable[[Json], JobStatus]) -> None:
        self._api, self._kind, self._status = api, kind, status
        self._watched: dict[str, _Namespace] = {}
        self._refused: dict[str, InvalidSpecError] = {}
        self._changed: Callable[[], object] = lambda: None

    def notify(self, changed: Callable[[], object]) -> None:
        """Call *changed* whenever a job has another status than before, or the stream broke."""
        self._changed = changed

    def observe(self, handles: Iterable[JobHandle]) -> Mapping[JobHandle, JobStatus]:
        """Return what is known about jobs, without a request.

        :raises PlatformUnavailableError: the stream is broken, or could not be opened
        :raises InvalidSpecError: the account may not list there; a second look does not ask again
        """
        found = {}
        for handle in handles:
            namespace, _, name = handle.job_id.rpartition("/")
            status = self._namespace(namespace or self._api.namespace).status(name)
            if status is not None:
                found[handle] = status
        return found

    def close(self) -> None:
        """End all watches."""
        for namespace in self._watched.values():
            namespace.close()

    def _tell(self) -> None:
        self._changed()

    def _namespace(self, name: str) -> _Namespace:
        if name in self._refused:
            raise self._refused[name]
        if name not in self._watched:
            try:
                self._watched[name] = _Namespace(self._api, name, self._kind, self._status, self._tell)
            except InvalidSpecError as error:
                self._refused[name] = error
                raise
        return self._watched[name]


class _Namespace:
    """The Jobs of one namespace as a thread keeps them up to date."""

    def __init__(
        self,
        api: KubernetesApi,
        name: str,
        kind: Kind,
        status: Callable[[Json], JobStatus],
        changed: Callable[[], object],
    ) -> None:
        self._api, self._name, self._kind, self._read, self._changed = api, name, kind, status, changed
        self._jobs: dict[str, JobStatus] = {}
        self._failure = ""
        self._watch: Watch | None = None
        self._lock, self._closed = threading.Lock(), threading.Event()
        self._version = self._list()
        self._thread = threading.Thread(target=self._run, name=f"kubernetes-{kind.plural}-{name}", daemon=True)
        self._thread.start()

    def status(self, name: str) -> JobStatus | None:
        if self._failure:
            raise PlatformUnavailableError(f"The watch of {self._kind.plural} in {self._name!r} broke: {self._failure}")
        return self._jobs.get(name)

    def close(self) -> None:
        with self._lock:
            self._closed.set()
            if self._watch is not None:
                self._watch.close()
        self._thread.join(10)

    def _run(self) -> None:
        try:
            while not self._closed.is_set():
                began = time.monotonic()
                self._follow()
                self._closed.wait(max(0.0, SHORTEST_WATCH - (time.monotonic() - began)))
        except MlopsError as error:
            self._failure = str(error)
        except Exception as error:  # noqa: BLE001 - it is not lost: the next look raises it
            self._failure = repr(error)
        finally:
            if not self._closed.is_set():
                self._changed()

    def _follow(self) -> None:
        """Read one watch to its end; list again if its version is too old."""
        try:
            for event in self._open():
                self._note(event["type"], event["object"])
        except ExpiredError:
            if not self._closed.is_set():
                self._version = self._list()

    def _open(self) -> Iterable[Json]:
        watch = self._api.watch(self._kind, self._name, labels=SELECTOR, version=self._version, seconds=WATCH_SECONDS)
        with self._lock:
            self._watch = watch
            if self._closed.is_set():
                with contextlib.suppress(OSError):
                    watch.close()
        return watch

    def _list(self) -> str:
        items, version = self._api.list(self._kind, self._name, labels=SELECTOR)
        self._jobs = {job["metadata"]["name"]: self._read(job) for job in items}
        self._changed()
        return version

    def _note(self, kind: str, job: Json) -> None:
        name, self._version = job["metadata"].get("name", ""), job["metadata"]["resourceVersion"]
        if kind == "BOOKMARK":
            return
        before, now = self._jobs.get(name), None if kind == "DELETED" else self._read(job)
        if now is None:
            self._jobs.pop(name, None)
        else:
            self._jobs[name] = now
        if now != before:
            self._changed()
