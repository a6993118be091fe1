"""Look behind a Job at its pods: why it waits or failed, and what its program reported."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from airflow_mlops.core.errors import InvalidSpecError, JobFailedError, NotFoundError
from airflow_mlops.platforms.kubernetes import EVENTS, PODS, KubernetesApi
from airflow_mlops.platforms.kubernetes_answers import is_quota
from airflow_mlops.training.backends.kubernetes_job import JOB_NAME
from airflow_mlops.training.backends.kubernetes_log import last_lines
from airflow_mlops.training.backends.kubernetes_pod import CONTAINER, INDEX, OUTPUT_FILE
from airflow_mlops.training.backends.kubernetes_reasons import (
    culprit,
    failure_reason,
    terminated,
    warnings,
    why_failed,
    why_pending,
)
from airflow_mlops.training.contract import FailureReason, JobState, JobStatus
from airflow_mlops.training.output import Output

Json = dict[str, Any]

LONGEST_REPORT = 4096
"""Bytes of a report that Kubernetes keeps."""


def explained(api: KubernetesApi, job: Json, status: JobStatus, program: str = CONTAINER) -> JobStatus:
    """Return the status of a pending or failed Job with what its pods and events say about it.

    :param program: the container that runs the program
    """
    try:
        return _pending(api, job, status) if status.state is JobState.PENDING else _failed(api, job, status, program)
    except InvalidSpecError as error:  # a right is missing, or the pod went away: what is known is known
        return replace(status, detail=f"{status.detail} (its pods cannot be read: {error})".strip())


def report(api: KubernetesApi, job: Json, program: str = CONTAINER) -> Output:
    """Return what the pod with index 0 reported; nothing when it reported nothing.

    :raises NotFoundError: the pod is gone
    :raises JobFailedError: the report cannot be used
    """
    name = job["metadata"]["name"]
    for pod in first_pods(api, job):
        for container in pod["status"].get("containerStatuses") or []:
            ended = (container.get("state") or {}).get("terminated")
            if pod["status"].get("phase") == "Succeeded" and container["name"] == program and ended:
                return _read(str(ended.get("message") or ""), name)
    raise NotFoundError(
        f"Job {name!r} succeeded, but its pod with index 0 is gone and with it what it reported. Clear the task to "
        "train again, or give the job a tracking run, which outlives its pods."
    )


def first_pods(api: KubernetesApi, job: Json) -> list[Json]:
    """Return the pods with index 0: one, and those that it replaced."""
    return pods_of(api, job, f",{INDEX}=0")


def _read(text: str, name: str) -> Output:
    if not text:
        return Output()
    where = f"{OUTPUT_FILE} of job {name!r}"
    try:
        return Output.read(text, where)
    except JobFailedError as error:
        if len(text.encode()) < LONGEST_REPORT:
            raise
        raise JobFailedError(
            f"{error} Kubernetes keeps {LONGEST_REPORT} bytes of it: log metrics to the tracking run, report a few."
        ) from error


def _pending(api: KubernetesApi, job: Json, status: JobStatus) -> JobStatus:
    if status.native == "Suspended":
        return replace(status, detail="it is suspended, as a queue does with a Job whose turn has not come")
    pods = pods_of(api, job)
    return replace(status, detail=why_pending(pods, _events(api, pods[0] if pods else job)))


def _failed(api: KubernetesApi, job: Json, status: JobStatus, program: str) -> JobStatus:
    pods = pods_of(api, job)
    pod = culprit(pods)
    if status.reason is not FailureReason.NONE or pod is None:
        events = _events(api, job)
        starved = not pods and not any(event.get("reason") == "SuccessfulCreate" for event in events)
        if starved and any(is_quota(text) for text in warnings(events)):
            status = replace(status, reason=FailureReason.QUOTA)
        told = [text for text in warnings(events) if status.native not in text]
        told += _unplaced(api, job) if status.reason is FailureReason.TIMEOUT else []
        return replace(status, detail="; ".join([status.detail, *told]))
    container = terminated(pod)[0] or program
    detail = why_failed(pod, last_lines(api, pod, container), _events(api, pod))
    return replace(status, detail=detail, reason=failure_reason(pod))


def _unplaced(api: KubernetesApi, job: Json) -> list[str]:
    """Return why pods of a Job that is out of time had to wait for a node: it counts, and the pods are gone."""
    metadata = job["metadata"]
    found = api.list(EVENTS, metadata["namespace"], fields="reason=FailedScheduling,involvedObject.kind=Pod")[0]
    prefix = f"{metadata['name']}-"
    return warnings([event for event in found if event["involvedObject"].get("name", "").startswith(prefix)])[-1:]


def pods_of(api: KubernetesApi, job: Json, more: str = "") -> list[Json]:
    """Return the pods of a Job, oldest first. *more* narrows the selector of labels."""
    metadata = job["metadata"]
    found = api.list(PODS, metadata["namespace"], labels=f"{JOB_NAME}={metadata['name']}{more}")[0]
    own = [pod for pod in found if _belongs(pod, metadata["uid"])]
    return sorted(own, key=lambda pod: str(pod["metadata"].get("creationTimestamp")))


def _belongs(pod: Json, uid: str) -> bool:
    return any(owner.get("uid") == uid for owner in pod["metadata"].get("ownerReferences") or [])


def _events(api: KubernetesApi, about: Json) -> list[Json]:
    metadata = about["metadata"]
    return api.list(EVENTS, metadata["namespace"], fields=f"involvedObject.uid={metadata['uid']}")[0]
