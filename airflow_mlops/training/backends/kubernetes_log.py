"""What the pod with index 0 of a job printed, read on from an offset, also when Kubernetes replaced the pod.

An offset is the number of bytes read of one pod, below a mark of that pod: when it was made, and a few bits of its uid.
So a pod that is gone is passed over, and its replacement is read from its beginning. A kubelet keeps the last 10 MiB or
so: what it threw away between two looks is missed. A log that cannot be read never fails the job it belongs to.

https://kubernetes.io/docs/concepts/cluster-administration/logging/#log-rotation
"""

from __future__ import annotations

import logging
from contextlib import closing
from datetime import datetime
from typing import Any
from zlib import crc32

from airflow_mlops.core.errors import InvalidSpecError, MlopsError
from airflow_mlops.platforms.kubernetes import KubernetesApi
from airflow_mlops.training.backends.kubernetes_pod import CONTAINER

Json = dict[str, Any]

CHUNK = 1 << 20
BYTES, MARK = 34, 8
"""Bits of an offset for the position in one pod's log, and for the uid of the pod."""

TAIL_BYTES, TAIL_LINES = 4096, 20

log = logging.getLogger(__name__)


def read_on(api: KubernetesApi, job: Json, pods: list[Json], offset: int, program: str = CONTAINER) -> tuple[str, int]:
    """Return at most 1 MiB from *offset* on, and the next offset. Half lines wait for their end.

    :param pods: those with index 0
    :param program: the container that runs the program
    """
    mark, position = offset >> BYTES, offset & ((1 << BYTES) - 1)
    for pod in _from(job, pods, mark):
        start = position if _mark(job, pod) == mark else 0
        text, end = _piece(api, pod, start, program)
        if text:
            return text, (_mark(job, pod) << BYTES) + end
        if not _is_over(pod):
            break
    return "", offset


def last_lines(api: KubernetesApi, pod: Json, container: str) -> str:
    """Return the last lines that a container printed; an empty text if they cannot be had."""
    tail = b""
    try:
        for piece in api.log(*_place(pod), container, tailLines=str(TAIL_LINES)):
            tail = (tail + piece)[-TAIL_BYTES:]
    except MlopsError as error:
        log.warning("The log of pod %s cannot be read: %s", pod["metadata"]["name"], error)
    return tail.decode(errors="replace").rstrip("\n")


def _piece(api: KubernetesApi, pod: Json, start: int, program: str) -> tuple[str, int]:
    try:
        found, total = _bytes(api, pod, start, program)
        if 0 < total < start:  # it was rotated: this is another file
            found, start = _bytes(api, pod, 0, program)[0], 0
    except InvalidSpecError:  # it has not started, or is gone
        return "", start
    except MlopsError as error:
        log.warning("The log of pod %s cannot be read now: %s", pod["metadata"]["name"], error)
        return "", start
    if not _is_over(pod) or len(found) >= CHUNK:
        found = found[: found.rfind(b"\n") + 1] or (found if len(found) >= CHUNK else b"")
    return found.decode(errors="replace"), start + len(found)


def _bytes(api: KubernetesApi, pod: Json, start: int, program: str) -> tuple[bytes, int]:
    """Return at most 1 MiB from byte *start* on, and how many bytes were read to get there."""
    found, total = b"", 0
    with closing(api.log(*_place(pod), program)) as pieces:
        for piece in pieces:
            found += piece[max(0, start - total) :]
            total += len(piece)
            if len(found) >= CHUNK:
                break
    return found[:CHUNK], total


def _is_over(pod: Json) -> bool:
    return str(pod["status"].get("phase")) in ("Succeeded", "Failed")


def _place(pod: Json) -> tuple[str, str]:
    return pod["metadata"]["namespace"], pod["metadata"]["name"]


def _from(job: Json, pods: list[Json], mark: int) -> list[Json]:
    """Return the marked pod and those that were made after it; without it all that are not older."""
    ordered = sorted(pods, key=lambda pod: (_mark(job, pod) >> MARK, not _is_over(pod)))
    marks = [_mark(job, pod) for pod in ordered]
    if mark in marks:
        return ordered[marks.index(mark) :]
    return [pod for pod in ordered if _mark(job, pod) >> MARK >= mark >> MARK]


def _mark(job: Json, pod: Json) -> int:
    """Return the seconds after its Job at which a pod was made, and what tells two of one second apart."""
    job_made, pod_made = (datetime.fromisoformat(one["metadata"]["creationTimestamp"]) for one in (job, pod))
    age = min(max(0, int((pod_made - job_made).total_seconds())), (1 << 20) - 1)
    return (age << MARK) + crc32(pod["metadata"]["uid"].encode()) % (1 << MARK)
