"""The Job controller: it makes pods, counts those that ended, and writes how the Job ended.

Only the cluster's thread calls it. A pod is counted once: its finalizer ``batch.kubernetes.io/job-tracking`` is taken
away when it was. Waiting between failures is short here; a real controller waits 10 s and doubles that.
"""

from __future__ import annotations

import copy
import datetime

from airflow_mlops.testing.kubernetes.conditions import is_true, put
from airflow_mlops.testing.kubernetes.defaults import COMPLETION_INDEX, TRACKING, now, random_suffix, with_defaults
from airflow_mlops.testing.kubernetes.deletion import mark_pod
from airflow_mlops.testing.kubernetes.events import emit
from airflow_mlops.testing.kubernetes.kinds import JOBS, PODS
from airflow_mlops.testing.kubernetes.problems import Json, Problem
from airflow_mlops.testing.kubernetes.store import Store
from airflow_mlops.testing.kubernetes.verdicts import (
    FINAL,
    Verdict,
    deadline,
    done_indexes,
    expiry,
    failure_action,
    index_of,
    is_finished,
    next_index,
    pending_verdict,
    verdict,
    written_indexes,
)

Moment = datetime.datetime


class JobController:
    """Reconciles one Job at a time."""

    def __init__(self, store: Store, backoff_seconds: float) -> None:
        self._store = store
        self._refused: set[tuple[str, str]] = set()
        self._backoff = datetime.timedelta(seconds=backoff_seconds)
        self._resting: dict[str, Moment] = {}

    def reconcile(self, job: Json, pods: list[Json]) -> Moment | None:
        """Bring a Job a step further; return when to look again even if nothing changes."""
        moment = datetime.datetime.now(datetime.UTC)
        if job["metadata"].get("deletionTimestamp"):
            self._delete(job, pods)
            return None
        if is_finished(job):
            return self._expire(job, pods, moment)
        new = copy.deepcopy(job)
        self._count(new, pods)
        active = [pod for pod in pods if not _is_terminal(pod) and not pod["metadata"].get("deletionTimestamp")]
        stopping = [pod for pod in pods if not _is_terminal(pod) and pod["metadata"].get("deletionTimestamp")]
        decided = self._decide(new, moment)
        if decided or new["spec"].get("suspend"):
            self._stop(new, active, is_counted=decided is not None)
            stopping, active = stopping + active, []
        if decided and not stopping:
            self._finish(new, decided)
        if not decided:
            self._suspend_or_start(new)
        self._write(new, active, stopping)
        if decided or new["spec"].get("suspend"):
            return None
        return self._fill(new, active, stopping, moment)

    def _count(self, job: Json, pods: list[Json]) -> None:
        """Add the pods that ended since the last look to the counts."""
        for pod in pods:
            if _is_terminal(pod) and TRACKING in pod["metadata"].get("finalizers", []):
                self._count_one(job, pod)
                self._store.change(PODS, pod, _untrack)

    def _count_one(self, job: Json, pod: Json) -> None:
        status = job["status"]
        if pod["status"]["phase"] == "Succeeded":
            self._count_success(job, pod)
            return
        action, decided = failure_action(job, pod)
        if action == "Ignore":
            return
        status["failed"] = status.get("failed", 0) + 1
        self._resting[job["metadata"]["uid"]] = datetime.datetime.now(datetime.UTC) + self._backoff
        if action == "FailJob" and decided and not pending_verdict(job):
            put(job, decided.kind, True, decided.reason, decided.message)

    def _count_success(self, job: Json, pod: Json) -> None:
        status = job["status"]
        if job["spec"]["completionMode"] == "Indexed":
            done = done_indexes(job) | {index_of(pod)}
            status |= {"completedIndexes": written_indexes(done), "succeeded": len(done)}
        else:
            status["succeeded"] = status.get("succeeded", 0) + 1

    def _decide(self, job: Json, moment: Moment) -> Verdict | None:
        decided = pending_verdict(job)
        if decided is None and (decided := verdict(job, moment)):
            put(job, decided.kind, True, decided.reason, decided.message)
        return decided

    def _stop(self, job: Json, active: list[Json], *, is_counted: bool) -> None:
        """Delete running pods; those of a suspended Job do not count as failed."""
        for pod in active:
            if not is_counted:
                self._store.change(PODS, pod, _untrack)
            mark_pod(self._store, pod)
            emit(self._store, job, "job-controller", "SuccessfulDelete", f"Deleted pod: {_name(pod)}")

    def _finish(self, job: Json, decided: Verdict) -> None:
        put(job, FINAL[decided.kind], True, decided.reason, decided.message)
        if decided.kind == "SuccessCriteriaMet":
            job["status"]["completionTime"] = now()
            emit(self._store, job, "job-controller", "Completed", "Job completed")
        else:
            emit(self._store, job, "job-controller", decided.reason, decided.message, is_warning=True)

    def _suspend_or_start(self, job: Json) -> None:
        status = job["status"]
        if job["spec"].get("suspend"):
            if not is_true(job, "Suspended"):
                put(job, "Suspended", True, "JobSuspended", "Job suspended")
                emit(self._store, job, "job-controller", "Suspended", "Job suspended")
            status.pop("startTime", None)
        else:
            if is_true(job, "Suspended"):
                put(job, "Suspended", False, "JobResumed", "Job resumed")
                emit(self._store, job, "job-controller", "Resumed", "Job resumed")
            status.setdefault("startTime", now())

    def _write(self, job: Json, active: list[Json], stopping: list[Json]) -> None:
        status = job["status"]
        ready = sum(is_true(pod, "Ready") for pod in active)
        status |= {"active": len(active), "ready": ready, "terminating": len(stopping), "uncountedTerminatedPods": {}}
        if not active:
            del status["active"]
        self._store.change(JOBS, job, lambda new: new.update({"status": status}))

    def _fill(self, job: Json, active: list[Json], stopping: list[Json], moment: Moment) -> Moment | None:
        """Make the pods that are missing, unless the Job rests after a failure."""
        spec = job["spec"]
        under_way = active + (stopping if spec["podReplacementPolicy"] == "Failed" else [])
        missing = min(spec["parallelism"], spec["completions"] - job["status"].get("succeeded", 0)) - len(under_way)
        rest = self._resting.get(job["metadata"]["uid"], moment)
        if missing > 0 and rest > moment:
            return rest
        for _ in range(missing):
            try:
                under_way.append(self._make_pod(job, next_index(job, under_way)))
            except Problem as problem:
                return self._refuse(job, problem, moment)
        return deadline(job)

    def _refuse(self, job: Json, problem: Problem, moment: Moment) -> Moment:
        """Tell once that a pod could not be made, and try again later."""
        key = (job["metadata"]["uid"], problem.reason)
        if key not in self._refused:
            self._refused.add(key)
            told = f"Error creating: {problem.message}"
            emit(self._store, job, "job-controller", "FailedCreate", told, is_warning=True)
        return moment + self._backoff

    def _make_pod(self, job: Json, index: int | None) -> Json:
        namespace = job["metadata"]["namespace"]
        pod = _pod_of(job, index if job["spec"]["completionMode"] == "Indexed" else None)
        pod = with_defaults(PODS, pod, namespace)
        self._store.plants.check_quota(PODS, pod, self._store.all(PODS, namespace))
        made = self._store.create(PODS, pod)
        emit(self._store, job, "job-controller", "SuccessfulCreate", f"Created pod: {_name(made)}")
        return made

    def _delete(self, job: Json, pods: list[Json]) -> None:
        """Foreground deletion: the pods first, then the Job."""
        release(self._store, pods)
        if not pods:
            self._store.remove(JOBS, job)

    def _expire(self, job: Json, pods: list[Json], moment: Moment) -> Moment | None:
        for pod in pods:
            self._store.change(PODS, pod, _untrack)
        end = expiry(job)
        if end is not None and moment >= end:
            self._store.remove(JOBS, job)
        return end


def release(store: Store, pods: list[Json]) -> None:
    """Delete pods nobody counts any more."""
    for pod in pods:
        if not pod["metadata"].get("deletionTimestamp"):
            mark_pod(store, pod)
        store.change(PODS, pod, _untrack)


def _is_terminal(pod: Json) -> bool:
    return pod["status"].get("phase") in {"Succeeded", "Failed"}


def _name(pod: Json) -> str:
    return str(pod["metadata"]["name"])


def _untrack(pod: Json) -> None:
    left = [one for one in pod["metadata"].get("finalizers", []) if one != TRACKING]
    pod["metadata"].pop("finalizers", None)
    if left:
        pod["metadata"]["finalizers"] = left


def _pod_of(job: Json, index: int | None) -> Json:
    template, metadata = copy.deepcopy(job["spec"]["template"]), job["metadata"]
    prefix = f"{metadata['name']}-" if index is None else f"{metadata['name']}-{index}-"
    own = template.get("metadata", {})
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": metadata["uid"]}
    pod_metadata: Json = {
        "generateName": prefix,
        "name": prefix + random_suffix(),
        "labels": own.get("labels", {}),
        "annotations": own.get("annotations", {}),
        "ownerReferences": [owner | {"controller": True, "blockOwnerDeletion": True}],
        "finalizers": [TRACKING],
    }
    if index is not None:
        _add_index(pod_metadata, template["spec"], prefix.rstrip("-"), index)
    return {"metadata": pod_metadata, "spec": template["spec"]}


def _add_index(metadata: Json, spec: Json, host: str, index: int) -> None:
    metadata["annotations"][COMPLETION_INDEX] = str(index)
    metadata["labels"][COMPLETION_INDEX] = str(index)
    spec["hostname"] = host
    path = {"fieldPath": f"metadata.annotations['{COMPLETION_INDEX}']"}
    for container in [*(spec.get("initContainers") or []), *spec["containers"]]:
        container.setdefault("env", []).append({"name": "JOB_COMPLETION_INDEX", "valueFrom": {"fieldRef": path}})
