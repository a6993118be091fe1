"""The log of a pod: followed or not, the last lines, the last seconds, with or without times."""

from __future__ import annotations

import datetime
from collections.abc import Iterator

from airflow_mlops.testing.kubernetes.container import Container, Line
from airflow_mlops.testing.kubernetes.faults import Faults
from airflow_mlops.testing.kubernetes.kinds import PODS
from airflow_mlops.testing.kubernetes.kubelet import Kubelet
from airflow_mlops.testing.kubernetes.problems import Json, Problem, not_modelled
from airflow_mlops.testing.kubernetes.requests import Request
from airflow_mlops.testing.kubernetes.store import Store
from airflow_mlops.testing.wire.listener import ConnectionLost

NOT_MODELLED = ("previous", "limitBytes", "stream")


def pod_log(store: Store, kubelet: Kubelet, faults: Faults, request: Request) -> Iterator[bytes]:
    """Return the lines of a pod's log, each with its line end; empty bytes mean that none came for a while.

    :raises Problem: 404 no such pod, 400 the container has not started or has another name, 501 not modelled
    """
    pod = store.get(PODS, request.namespace, request.name)
    for key in NOT_MODELLED:
        if request.query.get(key, "").lower() not in {"", "false", "all"}:
            raise not_modelled(f"the log parameter {key}")
    _check_container(pod, request.query.get("container", ""))
    name = request.query.get("container") or pod["spec"]["containers"][0]["name"]
    container = kubelet.container(pod, name)
    if container is None:
        raise Problem("BadRequest", _why_waiting(pod))
    return _written(container, request, faults)


def _check_container(pod: Json, name: str) -> None:
    spec = pod["spec"]
    known = [container["name"] for container in [*(spec.get("initContainers") or []), *spec["containers"]]]
    if name and name not in known:
        raise Problem("BadRequest", f"container {name} is not valid for pod {pod['metadata']['name']}")


def _why_waiting(pod: Json) -> str:
    status = (pod["status"].get("containerStatuses") or [{}])[0]
    reason = status.get("state", {}).get("waiting", {}).get("reason", "ContainerCreating")
    name = pod["spec"]["containers"][0]["name"]
    return f'container "{name}" in pod "{pod["metadata"]["name"]}" is waiting to start: {reason}'


def _written(container: Container, request: Request, faults: Faults) -> Iterator[bytes]:
    since, epoch, with_times = _since(request), faults.watch_epoch, request.flag("timestamps")
    tail = request.number("tailLines")
    skip = max(0, len(container.lines) - tail) if tail is not None else 0
    for number, line in enumerate(container.follow(is_followed=request.flag("follow"))):
        if epoch != faults.watch_epoch:
            raise ConnectionLost
        if line is None:
            yield b""
        elif number >= skip and (since is None or line[0] >= since):
            yield _stamped(line) if with_times else line[1]


def _since(request: Request) -> datetime.datetime | None:
    seconds = request.number("sinceSeconds")
    if request.query.get("sinceTime"):
        return datetime.datetime.fromisoformat(request.query["sinceTime"])
    if seconds is None:
        return None
    return datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=seconds)


def _stamped(line: Line) -> bytes:
    return line[0].strftime("%Y-%m-%dT%H:%M:%S.%f000Z ").encode() + line[1]
