"""Scheduler and kubelet in one: it places pods, runs their command, reports what became of it, and ends them.

Only the cluster's thread calls it. What it writes is what a real kubelet writes: phase, conditions, container
statuses with reasons, and events.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from airflow_mlops.testing.kubernetes.conditions import condition, put
from airflow_mlops.testing.kubernetes.container import Container
from airflow_mlops.testing.kubernetes.defaults import now
from airflow_mlops.testing.kubernetes.environment import ConfigError, command, environment
from airflow_mlops.testing.kubernetes.events import emit
from airflow_mlops.testing.kubernetes.kinds import PODS
from airflow_mlops.testing.kubernetes.problems import Json
from airflow_mlops.testing.kubernetes.store import Store

NODE = "fake-node-1"
NO_ROOM = "0/1 nodes are available: 1 Insufficient cpu. preemption: No preemption victims found for incoming pod."


class Kubelet:
    """The one node of the cluster.

    :param image_env: what every image brings along as environment
    """

    def __init__(self, store: Store, folder: Path, image_env: Mapping[str, str]) -> None:
        self._store = store
        self._folder = folder
        self._image_env = dict(image_env)
        self.is_full = False
        self.containers: dict[str, Container] = {}
        self._told: set[tuple[str, str]] = set()

    def sync(self, pod: Json) -> bool:
        """Bring one pod a step further; say whether it must be looked at again without a change of it."""
        phase, uid = pod["status"].get("phase"), pod["metadata"]["uid"]
        if pod["metadata"].get("deletionTimestamp"):
            return self._stop(pod)
        if phase == "Pending":
            return self._start(pod)
        return phase == "Running" and uid in self.containers and self._look(pod, self.containers[uid])

    def end_all(self) -> None:
        """Kill every process and wait for it."""
        for container in self.containers.values():
            container.signal(signal.SIGKILL)
        for container in self.containers.values():
            container.process.wait(10)

    def _start(self, pod: Json) -> bool:
        if self.is_full and "nodeName" not in pod["spec"]:
            self._unschedulable(pod)
            return True
        try:
            self._run(self._bind(pod))
        except ConfigError as error:
            is_command = "command" in str(error)
            self._wait(pod, "CreateContainerError" if is_command else "CreateContainerConfigError", str(error))
            return True
        except OSError as error:
            self._ended(pod, 128, "StartError", f"failed to start container: {error}")
        return False

    def _unschedulable(self, pod: Json) -> None:
        self._store.change(PODS, pod, lambda new: _keep_false(new, "PodScheduled", "Unschedulable", NO_ROOM))
        self._tell_once(pod, "default-scheduler", "FailedScheduling", NO_ROOM)

    def _bind(self, pod: Json) -> Json:
        if "nodeName" in pod["spec"]:
            return pod

        def place(new: Json) -> None:
            new["spec"]["nodeName"] = NODE
            new["status"] |= {"startTime": now(), "hostIP": "127.0.0.1"}
            put(new, "PodScheduled", True)

        name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        emit(self._store, pod, "default-scheduler", "Scheduled", f"Successfully assigned {name} to {NODE}")
        return self._store.change(PODS, pod, place) or pod

    def _run(self, pod: Json) -> None:
        spec, uid = pod["spec"]["containers"][0], pod["metadata"]["uid"]
        home = self._folder / uid
        home.mkdir(exist_ok=True)
        values = environment(self._store, pod, spec, {"HOME": str(home), **self._image_env})
        where = Path(spec["workingDir"]) if spec.get("workingDir") else home
        self.containers[uid] = Container(command(spec, values), values, where, self._store.wake)
        state = {"running": {"startedAt": now()}}
        self._report(pod, "Running", state, is_ready=True)
        emit(self._store, pod, "kubelet", "Started", f"Started container {spec['name']}")

    def _wait(self, pod: Json, reason: str, message: str) -> None:
        self._report(pod, "Pending", {"waiting": {"reason": reason, "message": message}}, is_ready=False)
        self._tell_once(pod, "kubelet", "Failed", f"Error: {message}")

    def _look(self, pod: Json, container: Container) -> bool:
        if container.exit_code is None:
            return True
        reason = container.reason or ("Error" if container.exit_code else "Completed")
        self._ended(pod, container.exit_code, reason, "")
        return False

    def _stop(self, pod: Json) -> bool:
        """End a pod that is being deleted; without process and finalizers it is removed."""
        container, phase = self.containers.get(pod["metadata"]["uid"]), pod["status"].get("phase")
        if phase == "Running" and container is not None:
            self._terminate(pod, container)
            return self._look(pod, container)
        if phase == "Pending":
            self._store.change(PODS, pod, _never_started)
        elif not pod["metadata"].get("finalizers"):
            self.containers.pop(pod["metadata"]["uid"], None)
            self._store.remove(PODS, pod)
        return False

    def _terminate(self, pod: Json, container: Container) -> None:
        grace = pod["metadata"]["deletionGracePeriodSeconds"]
        end = time.monotonic() + grace
        if container.kill_at is None and grace:
            emit(self._store, pod, "kubelet", "Killing", "Stopping container")
            container.signal(signal.SIGTERM)
        container.kill_at = min(end, container.kill_at or end)
        if time.monotonic() >= container.kill_at:
            container.signal(signal.SIGKILL)

    def _ended(self, pod: Json, code: int, reason: str, message: str) -> None:
        status = (pod["status"].get("containerStatuses") or [{}])[0]
        started = status.get("state", {}).get("running", {}).get("startedAt", now())
        state: Json = {"exitCode": code, "reason": reason, "startedAt": started, "finishedAt": now()}
        if message:
            state["message"] = message
        self._report(pod, "Failed" if code else "Succeeded", {"terminated": state}, is_ready=False)

    def _report(self, pod: Json, phase: str, state: Json, *, is_ready: bool) -> None:
        spec = pod["spec"]["containers"][0]
        status = {"name": spec["name"], "image": spec["image"], "imageID": "", "restartCount": 0, "lastState": {}}
        status |= {"ready": is_ready, "started": is_ready, "state": state}
        ended = "PodFailed" if phase == "Failed" else "PodCompleted" if phase == "Succeeded" else "ContainersNotReady"

        def write(new: Json) -> None:
            new["status"] |= {"phase": phase, "containerStatuses": [status]}
            for kind in ("ContainersReady", "Ready"):
                if is_ready:
                    put(new, kind, True)
                else:
                    _keep_false(new, kind, ended, "")

        self._store.change(PODS, pod, write)

    def _tell_once(self, pod: Json, source: str, reason: str, message: str) -> None:
        key = (pod["metadata"]["uid"], reason)
        if key not in self._told:
            self._told.add(key)
            emit(self._store, pod, source, reason, message, is_warning=True)


def _keep_false(pod: Json, kind: str, reason: str, message: str) -> None:
    """Set a condition to False, without touching one that already says so for the same reason."""
    found = condition(pod, kind)
    if (found.get("status"), found.get("reason")) != ("False", reason):
        put(pod, kind, False, reason, message)


def _never_started(pod: Json) -> None:
    pod["status"]["phase"] = "Failed"


IMAGE_ENV = {"PATH": os.environ.get("PATH", os.defpath)}
