"""What the pod with index 0 of a job printed, read on from an offset, also when Kubernetes replaced the pod.

An offset is the number of bytes, and above its 40 lower bits the seconds after the Job's at which the pod was made: a
pod that is gone is passed over, and its replacement is read from its beginning. A kubelet keeps the last 10 MiB or so:
what it threw away between two looks is missed. A log that cannot be read never fails the job it belongs to.

https://kubernetes.io/docs/concepts/cluster-administration/logging/#log-rotation
"""

from __future__ import annotations

import logging
from contextlib import closing
from datetime import datetime
from typing import Any

from airflow_mlops.core.errors import InvalidSpecError, MlopsError
from airflow_mlops.platforms.kubernetes import KubernetesApi
from airflow_mlops.training.backends.kubernetes_pod import CONTAINER

Json = dict[str, Any]

CHUNK = 1 << 20
BYTES = 40
TAIL_BYTES, TAIL_LINES = 4096, 20

log = logging.getLogger(__name__)


def read_on(api: KubernetesApi, job: Json, pods: list[Json], offset: int, program: str = CONTAINER) -> tuple[str, int]:
    """Return at most 1 MiB from *offset* on, and the next offset. Half lines wait for their end.

    :param pods: those with index 0
    :param program: the container that runs the program
    """
    age, position = offset >> BYTES, offset & ((1 << BYTES) - 1)
    for pod in sorted(pods, key=lambda pod: _age(job, pod)):
        if _age(job, pod) < age:
            continue
        start = position if _age(job, pod) == age else 0
        text, end = _piece(api, pod, start, program)
        if text:
            return text, (_age(job, pod) << BYTES) + end
        if pod["status"].get("phase") not in ("Succeeded", "Failed"):
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
    is_active = pod["status"].get("phase") not in ("Succeeded", "Failed")
    if is_active or len(found) >= CHUNK:
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


def _place(pod: Json) -> tuple[str, str]:
    return pod["metadata"]["namespace"], pod["metadata"]["name"]


def _age(job: Json, pod: Json) -> int:
    """Return how many seconds after its Job a pod was made."""
    job_made, pod_made = (datetime.fromisoformat(one["metadata"]["creationTimestamp"]) for one in (job, pod))
    return max(0, int((pod_made - job_made).total_seconds()))
