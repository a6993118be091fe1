"""Training jobs as Kubernetes Jobs: exactly one a name, found again from anywhere, stopped without being forgotten.

The Job is made first and under the job's own name, so that a second submission meets it; what belongs to it follows,
and again with every later submission. It must never write the value of a secret into a Job, a label or a message.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, ClassVar, Self

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import (
    ConflictError,
    InvalidSpecError,
    NotFoundError,
    PlatformUnavailableError,
)
from airflow_mlops.core.features import Feature
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.core.refs import DataVersion
from airflow_mlops.platforms.kubernetes import JOBS, SECRETS, SERVICES, Kind, KubernetesApi
from airflow_mlops.training.backends import kubernetes_job as manifest
from airflow_mlops.training.backends.kubernetes_log import read_on
from airflow_mlops.training.backends.kubernetes_look import explained, first_pods, report
from airflow_mlops.training.backends.kubernetes_pod import read_options, worker_secrets
from airflow_mlops.training.backends.kubernetes_status import billed_seconds, is_over, job_status
from airflow_mlops.training.backends.kubernetes_stream import JobStream
from airflow_mlops.training.contract import JobHandle, JobState, JobStatus, TrainingResult, TrainingSpec
from airflow_mlops.training.launch import RUN_ID
from airflow_mlops.training.output import Output

__all__ = ["KubernetesBackend"]

Json = dict[str, Any]

log = logging.getLogger(__name__)

DEFAULTS = ("fetch_image", "fetch_secret")
"""Extras of the connection that are defaults of the options of the same name."""

EXPLAINED = 20
"""How many jobs of one look are asked why they are pending or failed; a worker looks at one."""


class KubernetesBackend:
    """Runs jobs as Jobs in the namespace of a connection. ``secret_env`` names ``<secret>/<key>`` or a variable.

    A backend whose jobs are objects of another kind, with pods of their own, inherits from it.
    """

    name: ClassVar[str] = "kubernetes"
    lacks: ClassVar[Mapping[Feature, str]] = {}
    kind: ClassVar[Kind] = JOBS
    unclear: ClassVar[tuple[JobState, ...]] = (JobState.PENDING, JobState.FAILED)
    """States of which the job's own description does not say enough."""

    def __init__(self, api: KubernetesApi) -> None:
        self._api = api

    @classmethod
    def from_connection(cls, info: ConnectionInfo) -> Self:
        """Build it from a connection; nothing is asked yet."""
        return cls(KubernetesApi(info, DEFAULTS))

    def submit(self, spec: TrainingSpec, *, name: str, owner: TaskIdentity) -> JobHandle:
        """Make the Job called *name*, or find it, and then what belongs to it."""
        options = read_options(self.name, spec.options, self._api.further)
        body, values = manifest.job_body(spec, name, owner, options), worker_values(spec)
        try:
            job = self._api.create(JOBS, self._api.namespace, body)
        except ConflictError:
            job = self._same(name, spec)
        if not is_over(job):
            if values:
                self._put(SECRETS, manifest.secret_body(job, values))
            if spec.nodes > 1:
                self._put(SERVICES, manifest.service_body(job))
        return self._handle(job)

    def locate(self, name: str) -> JobHandle | None:
        """Return the job called *name* in the connection's namespace."""
        job = self._find(self._api.namespace, name)
        return None if job is None else self._handle(job)

    def observe(self, handles: Iterable[JobHandle]) -> Mapping[JobHandle, JobStatus]:
        """Look at one job with a request, at many of a namespace with one list; ask at most 20 of them why."""
        jobs = self._jobs(list(handles))
        found = {handle: self._status(job) for handle, job in jobs.items()}
        unclear = [handle for handle, status in found.items() if status.state in self.unclear]
        return found | {handle: self._explained(jobs[handle], found[handle]) for handle in unclear[:EXPLAINED]}

    def cancel(self, handle: JobHandle) -> None:
        """Mark the Job as cancelled and give it one second; a suspended one, which nobody would end, is deleted."""
        namespace, name = self._place(handle)
        job = self._find(namespace, name)
        if job is None or is_over(job):
            return
        try:
            if job["spec"].get("suspend"):
                self._api.delete(JOBS, namespace, name, uid=job["metadata"]["uid"])
            else:
                self._api.patch(JOBS, namespace, name, manifest.CANCEL)
        except NotFoundError:
            return

    def collect(self, handle: JobHandle) -> TrainingResult:
        """Return what the program with rank 0 wrote to ``MLOPS_OUTPUT``. What is billed, its nodes tell.

        :raises NotFoundError: there is no such job; or its pod is gone, and it had no tracking run to be read instead
        :raises InvalidSpecError: the job has not succeeded
        :raises JobFailedError: the report is not what it should be
        """
        namespace, name = self._place(handle)
        job = self._api.get(self.kind, namespace, name)
        status = self._status(job)
        if status.state is not JobState.SUCCEEDED:
            raise InvalidSpecError(
                f"Job {handle.job_id!r} is {status.native!r}: only a job that succeeded has results."
            )
        run_id = next((str(one.get("value", "")) for one in self._variables(job) if one["name"] == RUN_ID), "")
        try:
            output = self._report(job)
        except NotFoundError as error:
            if not run_id:
                raise
            log.warning("%s What it logged to its run %s is all there is.", error, run_id)
            output = Output()
        data = manifest.read_annotation(job, manifest.DATA)
        versions = {key: DataVersion.from_dict(value) for key, value in data.items()}
        billed = self._billed(job)
        return TrainingResult(handle, output.model_uri, output.metrics, output.run_id or run_id, versions, billed)

    def managed(self) -> Iterator[tuple[JobHandle, TaskIdentity]]:
        """Yield every job of ours in the connection's namespace."""
        for job in self._api.list(self.kind, self._api.namespace, labels=manifest.SELECTOR)[0]:
            if owner := manifest.read_annotation(job, manifest.OWNER):
                yield self._handle(job), TaskIdentity.from_dict(owner)

    def read_log(self, handle: JobHandle, offset: int) -> tuple[str, int]:
        """Return what node 0 printed from *offset* on, and the offset to go on from."""
        job = self._find(*self._place(handle))
        return ("", offset) if job is None else read_on(self._api, job, first_pods(self._api, job), offset)

    @contextmanager
    def stream(self) -> Iterator[JobStream]:
        """Open a stream, which watches a namespace as soon as it is asked about a job there."""
        with closing(JobStream(self._api, self.kind, self._status)) as stream:
            yield stream

    def _status(self, job: Json) -> JobStatus:
        return job_status(job)

    def _explained(self, job: Json, status: JobStatus) -> JobStatus:
        return explained(self._api, job, status)

    def _report(self, job: Json) -> Output:
        return report(self._api, job)

    def _billed(self, job: Json) -> float | None:
        return billed_seconds(job)

    def _variables(self, job: Json) -> list[Json]:
        """Return the variables of the container that runs the program."""
        return job["spec"]["template"]["spec"]["containers"][0].get("env") or []

    def _same(self, name: str, spec: TrainingSpec) -> Json:
        """Return the Job that has the name already, if it was made for the same spec."""
        job = self._find(self._api.namespace, name)
        if job is None or job["metadata"].get("deletionTimestamp"):
            raise PlatformUnavailableError(f"The job {name!r} is being deleted. Try again when it is gone.")
        if (job["metadata"].get("annotations") or {}).get(manifest.SPEC) != spec.digest():
            raise ConflictError(
                f"The Job {self._api.namespace}/{name} exists with another spec. "
                "Clear the task to start a new job, or submit what was submitted before."
            )
        return job

    def _put(self, kind: Kind, body: Json) -> None:
        """Make what belongs to a Job, or bring it up to date. A stranger's object of that name is left alone."""
        namespace, name = self._api.namespace, body["metadata"]["name"]
        try:
            self._api.create(kind, namespace, body)
        except ConflictError:
            labels = self._api.get(kind, namespace, name)["metadata"].get("labels") or {}
            if not manifest.MANAGED.items() <= labels.items():
                raise ConflictError(
                    f"The job {name!r} needs {kind.plural} {namespace}/{name}, which exists and is not ours. Delete it."
                ) from None
            self._api.patch(kind, namespace, name, body)

    def _jobs(self, handles: list[JobHandle]) -> dict[JobHandle, Json]:
        places = {handle: self._place(handle) for handle in handles}
        known: dict[tuple[str, str], Json] = {}
        for namespace in dict.fromkeys(namespace for namespace, _ in places.values()):
            names = {name for where, name in places.values() if where == namespace}
            if len(names) == 1:
                jobs = [self._find(namespace, *names)]
            else:
                jobs = [*self._api.list(self.kind, namespace, labels=manifest.SELECTOR)[0]]
            known |= {(namespace, job["metadata"]["name"]): job for job in jobs if job is not None}
        return {handle: known[place] for handle, place in places.items() if place in known}

    def _find(self, namespace: str, name: str) -> Json | None:
        try:
            return self._api.get(self.kind, namespace, name)
        except NotFoundError:
            return None

    def _place(self, handle: JobHandle) -> tuple[str, str]:
        namespace, _, name = handle.job_id.rpartition("/")
        return namespace or self._api.namespace, name

    def _handle(self, job: Json) -> JobHandle:
        namespace, name = job["metadata"]["namespace"], job["metadata"]["name"]
        return JobHandle(self.name, f"{namespace}/{name}", self._api.console_url(namespace, name))


def worker_values(spec: TrainingSpec) -> dict[str, str]:
    """Read the worker's variables that the spec names, by the names the program sees.

    :raises InvalidSpecError: one is not set
    """
    wanted = worker_secrets(spec)
    for variable, secret in wanted.items():
        if secret not in os.environ:
            raise InvalidSpecError(
                f"The secret {secret!r} for {variable!r} is not set. Set it as an environment variable of the worker, "
                "or write '<secret>/<key>' for one that the cluster has."
            )
    return {variable: os.environ[secret] for variable, secret in wanted.items()}
