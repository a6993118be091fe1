"""Why a Job is not running, or has failed: from its pods, their events and the last lines of their log. Pure.

Pods: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from airflow_mlops.training.backends.kubernetes_status import condition
from airflow_mlops.training.contract import FailureReason

Json = dict[str, Any]

CONTAINER_REASONS = {
    "Error": FailureReason.USER_CODE,  # an exit code other than 0
    "OOMKilled": FailureReason.OUT_OF_MEMORY,
    "StartError": FailureReason.USER_CODE,  # no such program in the image
    "ContainerCannotRun": FailureReason.USER_CODE,
    "ContainerStatusUnknown": FailureReason.PLATFORM,  # its node was lost
}
"""Reasons of a terminated container."""

POD_REASONS = {
    "NodeLost": FailureReason.PLATFORM,
    "NodeShutdown": FailureReason.PLATFORM,
    "Terminated": FailureReason.PLATFORM,  # its node was shut down
    "Shutdown": FailureReason.PLATFORM,
    "Evicted": FailureReason.PLATFORM,  # its node ran out of something
    "Preempting": FailureReason.PLATFORM,
    "UnexpectedAdmissionError": FailureReason.PLATFORM,  # its node could not take it
    "OutOfcpu": FailureReason.PLATFORM,
    "OutOfmemory": FailureReason.PLATFORM,
}
"""Reasons of a failed pod itself, which go before those of its container."""

NO_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")
"""Reasons of a waiting container that mean that its image cannot be had."""

LAST_EVENTS = 3


def culprit(pods: list[Json]) -> Json | None:
    """Return the pod that failed first, before those that were ended because of it."""
    failed = [pod for pod in pods if (pod.get("status") or {}).get("phase") == "Failed"]
    by_itself = [pod for pod in failed if not pod["metadata"].get("deletionTimestamp")]
    return min(by_itself or failed, key=_ended, default=None)


def failure_reason(pod: Json) -> FailureReason:
    """Return what kind of failure that of a pod is."""
    told = POD_REASONS.get(str(pod["status"].get("reason", "")))
    if told is not None or condition(pod, "DisruptionTarget"):
        return told or FailureReason.PLATFORM
    container, ended = terminated(pod)
    if container.startswith("fetch-"):
        return FailureReason.PLATFORM  # the program never began: an input could not be fetched
    return CONTAINER_REASONS.get(str(ended.get("reason", "")), FailureReason.NONE)


def terminated(pod: Json) -> tuple[str, Json]:
    """Return the container of a pod that ended badly, with its end; empty ones if none did."""
    for status in _containers(pod):
        found = (status.get("state") or {}).get("terminated")
        if found and found.get("exitCode"):
            return str(status["name"]), found
    return "", {}


def why_failed(pod: Json, log: str, events: list[Json]) -> str:
    """Return exit code, place, the pod's own words and its last lines."""
    container, ended = terminated(pod)
    parts = [f"exit code {ended['exitCode']} ({ended.get('reason', '')}) of container {container!r}"] if ended else []
    parts += [str(pod["status"][key]) for key in ("reason", "message") if pod["status"].get(key)]
    parts += [str(ended["message"])] if ended.get("reason") == "StartError" and ended.get("message") else []
    parts += warnings(events)
    where = f"Pod {pod['metadata']['namespace']}/{pod['metadata']['name']}"
    lines = f" Its last lines:\n{log}" if log else ""
    return f"{'; '.join(parts) or 'it failed without a word'}. {where}.{lines}"


def why_pending(pods: list[Json], events: list[Json]) -> str:
    """Return why no pod runs: none could be made, placed or started.

    :param events: of the first pod; of the Job if there is no pod
    """
    if not pods:
        return "; ".join(["no pod was made yet", *warnings(events)])
    first = pods[0]
    unplaced = condition(first, "PodScheduled", "False")
    if unplaced:
        return f"{unplaced.get('reason', '')}: {unplaced.get('message', '')}"
    for status in _containers(first):
        waiting = (status.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in NO_IMAGE:
            told = "; ".join([f"{waiting['reason']}: {waiting.get('message', '')}", *warnings(events)])
            return f"the image {status.get('image')!r} cannot be pulled, so the job cannot start: {told}"
        if waiting.get("message"):
            return f"{waiting['reason']}: {waiting['message']}"
        if "running" in (status.get("state") or {}) and status["name"].startswith("fetch-"):
            return f"the inputs are being fetched ({status['name']})"
    return ""


def warnings(events: list[Json]) -> list[str]:
    """Return the last warnings, each once."""
    found = [event for event in events if event.get("type") == "Warning"]
    found.sort(key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))
    texts = dict.fromkeys(f"{event.get('reason')}: {event.get('message')}" for event in found)
    return list(texts)[-LAST_EVENTS:]


def _containers(pod: Json) -> Iterator[Json]:
    status = pod.get("status") or {}
    yield from status.get("initContainerStatuses") or []
    yield from status.get("containerStatuses") or []


def _ended(pod: Json) -> str:
    return str(terminated(pod)[1].get("finishedAt") or "9999")
