"""The cluster behind the API: one thread that looks after Jobs and pods whenever something changed or is due.

It goes on while the API server is down, as a real cluster does.
"""

from __future__ import annotations

import datetime
import threading
from collections.abc import Mapping
from pathlib import Path

from airflow_mlops.testing.kubernetes.job_controller import JobController, release
from airflow_mlops.testing.kubernetes.kinds import JOBS, PODS, SECRETS, SERVICES, Controller
from airflow_mlops.testing.kubernetes.kubelet import Kubelet
from airflow_mlops.testing.kubernetes.problems import Json, Problem
from airflow_mlops.testing.kubernetes.store import Change, Store

IDLE_SECONDS = 0.05


class Cluster:
    """Kubelet and controller on one thread, from ``start()`` to ``stop()``."""

    def __init__(self, store: Store, folder: Path, *, image_env: Mapping[str, str], backoff_seconds: float) -> None:
        self.kubelet = Kubelet(store, folder, image_env)
        self.failure: BaseException | None = None
        self.controllers: list[Controller] = []
        self._store = store
        self._controller = JobController(store, backoff_seconds)
        self._seen = 0
        self._restless: set[tuple[str, str]] = set()
        self._due: dict[tuple[str, str], datetime.datetime] = {}
        self._owned: dict[str, dict[str, tuple[str, str]]] = {}
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="kubernetes-fake-cluster", daemon=True)

    def start(self) -> None:
        """Begin to look after the cluster."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and kill every pod's process.

        :raises RuntimeError: the cluster broke during the test
        """
        self._is_stopping = True
        self._store.wake()
        if self._thread.ident is not None:
            self._thread.join(10)
        self.kubelet.end_all()
        if self.failure is not None:
            raise RuntimeError("The cluster of the Kubernetes fake broke.") from self.failure

    def _run(self) -> None:
        try:
            while not self._is_stopping:
                self._step()
        except BaseException as error:  # noqa: BLE001 - kept and raised by stop()
            self.failure = error

    def _step(self) -> None:
        try:
            changes, self._seen = self._store.after(self._seen, IDLE_SECONDS)
        except Problem:
            changes = self._relist()
        jobs, pods = self._touched(changes)
        for key in pods:
            self._sync(key)
        for key in jobs:
            self._reconcile(key)
        for controller in self.controllers:
            controller.step()

    def _relist(self) -> list[Change]:
        """Look at everything anew, as a controller does whose watch was too old."""
        with self._store.changed:
            self._seen = self._store.version
            jobs = {job["metadata"]["uid"]: job for job in self._store.all(JOBS)}
            pods = self._store.all(PODS)
        self._owned.clear()
        for pod in pods:
            if _owner(pod) and _owner(pod) not in jobs:
                release(self._store, [pod])
        found = [(PODS, pod) for pod in pods] + [(JOBS, job) for job in jobs.values()]
        return [Change(self._seen, "ADDED", kind, item, None) for kind, item in found]

    def _touched(self, changes: list[Change]) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
        """Return the Jobs and the pods to look at now."""
        jobs = {key for key, moment in self._due.items() if moment <= _now()}
        pods = set(self._restless)
        for change in changes:
            if change.kind == PODS:
                pods.add(_key(change.new))
                jobs |= self._index(change)
            elif change.kind == JOBS:
                jobs.add(_key(change.new))
                if change.type == "DELETED":
                    self._collect(change.new)
            if change.type == "DELETED" and change.kind not in {PODS, SECRETS, SERVICES}:
                self._collect_owned(change.new)
        return jobs, pods

    def _index(self, change: Change) -> set[tuple[str, str]]:
        """Note whose pod it is; return the Job, if it has one."""
        metadata = change.new["metadata"]
        for owner in metadata.get("ownerReferences", []):
            pods = self._owned.setdefault(owner["uid"], {})
            if change.type == "DELETED":
                pods.pop(metadata["uid"], None)
            else:
                pods[metadata["uid"]] = _key(change.new)
            return {(metadata["namespace"], owner["name"])}
        return set()

    def _collect(self, job: Json) -> None:
        """Delete the pods a deleted Job leaves behind."""
        release(self._store, self._pods_of(job))
        self._due.pop(_key(job), None)

    def _collect_owned(self, owner: Json) -> None:
        """Remove the Secrets and Services of an object that is gone."""
        for kind in (SECRETS, SERVICES):
            for item in self._store.owned(kind, owner):
                self._store.remove(kind, item)

    def _pods_of(self, job: Json) -> list[Json]:
        """Return the pods of a Job; the index may know some that were disowned since."""
        uid = job["metadata"]["uid"]
        found = [self._store.find(PODS, *key) for key in self._owned.get(uid, {}).values()]
        return [pod for pod in found if pod is not None and _owner(pod) == uid]

    def _sync(self, key: tuple[str, str]) -> None:
        pod = self._store.find(PODS, *key)
        if pod is not None and self.kubelet.sync(pod):
            self._restless.add(key)
        else:
            self._restless.discard(key)

    def _reconcile(self, key: tuple[str, str]) -> None:
        with self._store.changed:  # or a Job could be deleted while its pods are made, and they would be left behind
            job = self._store.find(JOBS, *key)
            due = self._controller.reconcile(job, self._pods_of(job)) if job is not None else None
        if due is None:
            self._due.pop(key, None)
        else:
            self._due[key] = due


def _key(item: Json) -> tuple[str, str]:
    return item["metadata"]["namespace"], item["metadata"]["name"]


def _owner(pod: Json) -> str:
    return next((str(owner["uid"]) for owner in pod["metadata"].get("ownerReferences", [])), "")


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
