"""The Trainer and JobSet controllers in one: they make the Job of a TrainJob and tell in its status what becomes of it.

Source: https://github.com/kubeflow/trainer/blob/v2.3.0/pkg/controller/trainjob_controller.go and ``Status`` of its
JobSet plugin. Only the cluster's thread calls it. Not modelled: JobSet's restarts, success policies and TTL, runtime
patches that change while a TrainJob is suspended, foreground deletion (it is as in the background), and ``managedBy``
another controller (such a TrainJob is left alone).
"""

from __future__ import annotations

import copy
import datetime

from airflow_mlops.testing.kubernetes.conditions import condition, is_true
from airflow_mlops.testing.kubernetes.defaults import now, with_defaults
from airflow_mlops.testing.kubernetes.events import emit
from airflow_mlops.testing.kubernetes.kinds import JOBS, Kind
from airflow_mlops.testing.kubernetes.problems import Json
from airflow_mlops.testing.kubernetes.store import Store
from airflow_mlops.testing.kubernetes.trainer_admission import DEFAULTS, NODE, runtime_of
from airflow_mlops.testing.kubernetes.trainer_job import JOB_SET, belongs, job_name, job_of, job_set_uid

TOO_LONG = "TrainJob exceeded its active deadline"


class TrainJobController:
    """Reconciles all TrainJobs at each step.

    :param kind: the kind that is the TrainJob
    """

    def __init__(self, store: Store, kind: Kind) -> None:
        self._store = store
        self._kind = kind

    def step(self) -> None:
        """Bring every TrainJob a step further, and delete the Jobs of those that are gone."""
        with self._store.changed:
            train_jobs = self._store.all(self._kind)
            for train_job in train_jobs:
                if train_job["spec"]["managedBy"] == DEFAULTS["managedBy"]:
                    self._reconcile(train_job)
            self._collect({job_set_uid(train_job) for train_job in train_jobs})

    def _reconcile(self, train_job: Json) -> None:
        new = copy.deepcopy(train_job)
        status = new.setdefault("status", {})
        job = self._job(train_job)
        if not _is_finished(new):
            job = self._bring(train_job, job)
        _suspended(new)
        if job is not None:
            _follow(new, job)
        if not _is_finished(new) and _is_over(new):
            _put(new, "Failed", True, "DeadlineExceeded", TOO_LONG)
            if job is not None:
                self._store.remove(JOBS, job)
        if status:
            self._store.change(self._kind, train_job, lambda kept: kept.update({"status": status}))

    def _job(self, train_job: Json) -> Json | None:
        found = self._store.find(JOBS, train_job["metadata"]["namespace"], job_name(train_job))
        return found if found is not None and belongs(found, train_job) else None

    def _bring(self, train_job: Json, job: Json | None) -> Json | None:
        """Make the Job, or tell an existing one to stop or to go on."""
        suspend = train_job["spec"]["suspend"]
        if job is not None:
            return self._store.change(JOBS, job, lambda new: new["spec"].update({"suspend": suspend}))
        runtime = runtime_of(self._store, train_job)
        taken = self._store.find(JOBS, train_job["metadata"]["namespace"], job_name(train_job))
        if runtime is None or taken is not None:
            return None
        made = with_defaults(JOBS, job_of(train_job, runtime), train_job["metadata"]["namespace"])
        emit(self._store, train_job, "jobset-controller", "SuccessfulCreate", f"created job {job_name(train_job)}")
        return self._store.create(JOBS, made)

    def _collect(self, known: set[str]) -> None:
        for job in self._store.all(JOBS):
            uid = job["metadata"].get("labels", {}).get(f"{JOB_SET}/jobset-uid")
            if uid is not None and uid not in known:
                self._store.remove(JOBS, job)


def _is_finished(train_job: Json) -> bool:
    return is_true(train_job, "Complete") or is_true(train_job, "Failed")


def _suspended(train_job: Json) -> None:
    if train_job["spec"]["suspend"]:
        _put(train_job, "Suspended", True, "Suspended", "TrainJob is suspended")
    elif is_true(train_job, "Suspended"):
        _put(train_job, "Suspended", False, "Resumed", "TrainJob is resumed")


def _follow(train_job: Json, job: Json) -> None:
    """Write what the JobSet's status says, which follows that of its one Job."""
    if is_true(job, "Complete"):
        _put(train_job, "Complete", True, "AllJobsCompleted", "jobset completed successfully")
    if is_true(job, "Failed"):
        told = f"jobset failed due to one or more job failures (first failed job: {job['metadata']['name']})"
        _put(train_job, "Failed", True, "FailedJobs", told)
    status, is_over = job["status"], is_true(job, "Complete") or is_true(job, "Failed")
    ready = status.get("succeeded", 0) + status.get("ready", 0) >= job["spec"]["parallelism"]
    counts = {
        "ready": not is_over and ready,
        "succeeded": is_true(job, "Complete"),
        "failed": is_true(job, "Failed"),
        "active": not is_over and status.get("active", 0) > 0,
        "suspended": not is_over and bool(job["spec"].get("suspend")),
    }
    train_job["status"]["jobsStatus"] = [{"name": NODE, **{key: int(value) for key, value in counts.items()}}]


def _is_over(train_job: Json) -> bool:
    """Say whether the TrainJob was active for longer than it may be; it begins anew when it is resumed."""
    seconds = train_job["spec"].get("activeDeadlineSeconds")
    if seconds is None or train_job["spec"]["suspend"]:
        return False
    resumed = condition(train_job, "Suspended").get("lastTransitionTime")
    start = datetime.datetime.fromisoformat(resumed or train_job["metadata"]["creationTimestamp"])
    return datetime.datetime.now(datetime.UTC) > start + datetime.timedelta(seconds=seconds)


def _put(item: Json, kind: str, status: bool, reason: str, message: str) -> None:
    """Set a condition in place, as ``meta.SetStatusCondition`` does."""
    before, told = condition(item, kind), "True" if status else "False"
    moved = before["lastTransitionTime"] if before.get("status") == told else now()
    new = {"type": kind, "status": told, "reason": reason, "message": message, "lastTransitionTime": moved}
    conditions = item["status"].setdefault("conditions", [])
    item["status"]["conditions"] = [one if one["type"] != kind else new for one in conditions]
    if not before:
        item["status"]["conditions"].append(new)
