"""Training jobs as TrainJobs of Kubeflow Trainer: exactly one a name, on a runtime that the cluster offers.

What a TrainJob cannot carry is refused by name. It must never take for a failed program what was a node taken away, nor
call a job stopped while a pod of it lives.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from typing import Any, ClassVar, Self

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import ConflictError, InvalidSpecError, NotFoundError
from airflow_mlops.core.features import Feature
from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.platforms.kubernetes import EVENTS, JOBS, PODS, SECRETS, Kind, KubernetesApi
from airflow_mlops.training.backends import kubeflow_object as manifest
from airflow_mlops.training.backends.kubeflow_runtime import refuse_runtime, repeats, subdomain_of
from airflow_mlops.training.backends.kubeflow_status import is_over, is_preempted, is_stopping, train_job_status
from airflow_mlops.training.backends.kubernetes import KubernetesBackend, worker_values
from airflow_mlops.training.backends.kubernetes_job import secret_body
from airflow_mlops.training.backends.kubernetes_log import read_on
from airflow_mlops.training.backends.kubernetes_look import explained, first_pods, pods_of, report
from airflow_mlops.training.backends.kubernetes_reasons import culprit, why_pending
from airflow_mlops.training.backends.kubernetes_status import billed_seconds, condition, told
from airflow_mlops.training.backends.kubernetes_stream import JobStream
from airflow_mlops.training.contract import FailureReason, JobHandle, JobState, JobStatus, TrainingSpec
from airflow_mlops.training.output import Output

__all__ = ["KubeflowBackend"]

Json = dict[str, Any]

TRAIN_JOBS = Kind("trainer.kubeflow.org", "v1alpha1", "trainjobs")

DEFAULTS = ("runtime", "runtime_kind")
"""Extras of the connection that are defaults of the options of the same name."""

Look = Callable[[list[JobHandle]], Mapping[JobHandle, JobStatus]]

log = logging.getLogger(__name__)


def ending(word: str, pods: int) -> JobStatus:
    """Return the status of a job that was told to end and has not."""
    return JobStatus(JobState.RUNNING, word, f"it is being ended: {pods} pods are left")


class TrainJobStream(JobStream):
    """A stream that says nothing of an end before the pods have confirmed it: a TrainJob alone knows too little.

    :param look: asks the cluster
    """

    def __init__(self, api: KubernetesApi, kind: Kind, status: Callable[[Json], JobStatus], look: Look) -> None:
        super().__init__(api, kind, status)
        self._look = look

    def observe(self, handles: Iterable[JobHandle]) -> Mapping[JobHandle, JobStatus]:
        """Return what is known about jobs, with a look at those that failed or were cancelled."""
        found = super().observe(handles)
        ended = [handle for handle, status in found.items() if status.state in (JobState.FAILED, JobState.CANCELLED)]
        return {**found, **self._look(ended)} if ended else found


class KubeflowBackend(KubernetesBackend):
    """Runs jobs as TrainJobs in the namespace of a connection. What becomes of their pods is told by the Job below."""

    name: ClassVar[str] = "kubeflow"
    lacks: ClassVar[Mapping[Feature, str]] = {}
    kind: ClassVar[Kind] = TRAIN_JOBS
    unclear: ClassVar[tuple[JobState, ...]] = (JobState.CANCELLED, JobState.PENDING, JobState.FAILED)

    @classmethod
    def from_connection(cls, info: ConnectionInfo) -> Self:
        """Build it from a connection; nothing is asked yet."""
        return cls(KubernetesApi(info, DEFAULTS))

    def submit(self, spec: TrainingSpec, *, name: str, owner: TaskIdentity) -> JobHandle:
        """Make the TrainJob called *name*, or find it, and then the Secret that belongs to it.

        :raises UnsupportedFeatureError: a TrainJob, or this runtime, cannot do what the spec asks for
        """
        options = manifest.read_options(self.name, spec.options, self._api.further)
        body, values = manifest.train_job(spec, name, owner, options), worker_values(spec)
        train_job = self._made(spec, body, options[0])
        if values and not is_over(train_job):
            self._put(SECRETS, secret_body(train_job, values))
        return self._handle(train_job)

    def observe(self, handles: Iterable[JobHandle]) -> Mapping[JobHandle, JobStatus]:
        """Look at many jobs at once. One that is gone counts as running while pods of it live, if asked for alone."""
        wanted = list(handles)
        found = super().observe(wanted)
        if len(wanted) == 1 and not found:
            with suppress(InvalidSpecError):  # pods may not be listed: then it is gone as far as anybody can tell
                if alive := self._alive(*self._place(wanted[0])):
                    return {wanted[0]: ending("Deleting", alive)}
        return found

    def cancel(self, handle: JobHandle) -> None:
        """Mark the TrainJob as cancelled and suspend it; one that somebody else would resume is deleted.

        So is one that the webhook lets nobody change, and one whose deadline did not end its pods.
        """
        namespace, name = self._place(handle)
        train_job = self._find(namespace, name)
        if train_job is None or (is_over(train_job) and not self._leaks(train_job)):
            return
        if not manifest.is_queued(train_job) and not is_over(train_job):
            try:
                self._api.patch(TRAIN_JOBS, namespace, name, manifest.CANCEL)
            except NotFoundError:
                return
            except InvalidSpecError as error:
                log.warning("TrainJob %s cannot be suspended, so it is deleted: %s", handle.job_id, error)
            else:
                return
        with suppress(NotFoundError):
            self._api.delete(TRAIN_JOBS, namespace, name, uid=train_job["metadata"]["uid"])

    def read_log(self, handle: JobHandle, offset: int) -> tuple[str, int]:
        """Return what node 0 printed from *offset* on, and the offset to go on from."""
        train_job = self._find(*self._place(handle))
        job = None if train_job is None else self._job(train_job)
        if job is None:
            return "", offset
        return read_on(self._api, job, first_pods(self._api, job), offset, manifest.NODE)

    @contextmanager
    def stream(self) -> Iterator[JobStream]:
        """Open a stream, which asks only about jobs that seem to have failed or to be stopped."""
        with closing(TrainJobStream(self._api, self.kind, self._status, self.observe)) as stream:
            yield stream

    def _made(self, spec: TrainingSpec, body: Json, options: manifest.TrainerOptions) -> Json:
        """Return the TrainJob, which is made unless it is there. The runtime is only asked for a new one."""
        name, namespace = body["metadata"]["name"], self._api.namespace
        if self._find(namespace, name) is not None:
            return self._same(name, spec)
        runtime = self._runtime(spec, options)
        if runtime is not None:
            refuse_runtime(spec, runtime, options)
            if again := repeats(runtime):
                log.warning("The runtime %r %s. See docs/howto/kubeflow.md.", options.runtime, again)
            manifest.set_subdomain(body, subdomain_of(runtime))
        try:
            return self._api.create(TRAIN_JOBS, namespace, body)
        except ConflictError:
            return self._same(name, spec)

    def _runtime(self, spec: TrainingSpec, options: manifest.TrainerOptions) -> Json | None:
        """Return the runtime, or ``None`` if it may not be read and the spec does not depend on it.

        :raises NotFoundError: there is none of that name
        """
        plural, is_of_cluster = manifest.RUNTIMES[options.runtime_kind]
        namespace = "" if is_of_cluster else self._api.namespace
        try:
            return self._api.get(Kind(TRAIN_JOBS.group, TRAIN_JOBS.version, plural), namespace, options.runtime)
        except NotFoundError as error:
            raise NotFoundError(
                f"There is no {options.runtime_kind} {options.runtime!r}: {error} Set the option 'runtime', or "
                "'runtime_kind', or the extra of that name, or have Kubeflow Trainer and its runtimes installed."
            ) from error
        except InvalidSpecError:
            if spec.spot:
                raise
            return None

    def _status(self, job: Json) -> JobStatus:
        return train_job_status(job)

    def _explained(self, job: Json, status: JobStatus) -> JobStatus:
        """Return the status with what the Job below and its pods say; only they know preemption and a full stop."""
        try:
            below = self._job(job)
            found = self._judged(job, below, status)
        except InvalidSpecError as error:  # a right is missing, or the pod went away: what is known is known
            return replace(status, detail=f"{status.detail} (its pods cannot be read: {error})".strip())
        if below is None or not found.state.terminal:
            return found
        return replace(found, billed_seconds=billed_seconds(below))

    def _judged(self, job: Json, below: Json | None, status: JobStatus) -> JobStatus:
        if status.state is JobState.CANCELLED or status.reason is FailureReason.TIMEOUT:
            return self._stopped(job, below, status)
        if below is None:
            return self._unmade(job, status)
        if status.state is JobState.FAILED and self._is_preempted(below):
            return JobStatus(JobState.PREEMPTED, "Preempted", told(below) or status.detail)
        return explained(self._api, below, status, manifest.NODE)

    def _stopped(self, train_job: Json, below: Json | None, status: JobStatus) -> JobStatus:
        """Return the end only when no pod is left that may still run."""
        alive = self._alive(train_job["metadata"]["namespace"], train_job["metadata"]["name"])
        if not alive and (below is None or is_stopping(below)):
            return status
        return ending("Suspending" if status.state is JobState.CANCELLED else status.native, alive)

    def _leaks(self, train_job: Json) -> bool:
        """Say whether pods go on after the deadline: Trainer 2.3 tries only once to delete them (its issue 3833)."""
        below = self._job(train_job) if condition(train_job, "Failed").get("reason") == "DeadlineExceeded" else None
        return below is not None and not is_stopping(below)

    def _alive(self, namespace: str, name: str) -> int:
        """Count the pods of a TrainJob that may still run, whoever owns them by now."""
        pods = self._api.list(PODS, namespace, labels=f"{manifest.JOB_SET}={name}")[0]
        return sum((pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed") for pod in pods)

    def _unmade(self, train_job: Json, status: JobStatus) -> JobStatus:
        """Return why there is no Job: none could be made, or it was deleted with the deadline."""
        if status.state is not JobState.PENDING or status.native == "Suspended":
            return status
        metadata = train_job["metadata"]
        selector = f"involvedObject.uid={metadata['uid']}"
        events = self._api.list(EVENTS, metadata["namespace"], fields=selector)[0]
        return replace(status, detail=why_pending([], events))

    def _is_preempted(self, below: Json) -> bool:
        if is_preempted(below):
            return True
        first = culprit(pods_of(self._api, below))
        return first is not None and bool(condition(first, "DisruptionTarget"))

    def _report(self, job: Json) -> Output:
        below = self._job(job)
        if below is None:
            raise NotFoundError(
                f"TrainJob {job['metadata']['name']!r} succeeded, but its Job is gone and with it what it reported."
            )
        return report(self._api, below, manifest.NODE)

    def _billed(self, job: Json) -> float | None:
        below = self._job(job)
        return None if below is None else billed_seconds(below)

    def _variables(self, job: Json) -> list[Json]:
        return job["spec"]["trainer"].get("env") or []

    def _job(self, train_job: Json) -> Json | None:
        """Return the Job of the nodes, unless it is that of an older TrainJob of the same name."""
        metadata = train_job["metadata"]
        try:
            found = self._api.get(JOBS, metadata["namespace"], f"{metadata['name']}-{manifest.NODE}-0")
        except NotFoundError:
            return None
        return found if found["metadata"]["creationTimestamp"] >= metadata["creationTimestamp"] else None
