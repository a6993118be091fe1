"""Scheduler and kubelet in one: it places pods, runs their commands, reports what became of them, and ends them.

Init containers run one after the other before the command; a pod that is deleted meanwhile loses them at once.

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
from airflow_mlops.testing.kubernetes.mounts import message, private_paths, translated
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
        self._inits: dict[str, list[Container]] = {}
        self._told: set[tuple[str, str]] = set()

    def sync(self, pod: Json) -> bool:
        """Bring one pod a step further; say whether it must be looked at again without a change of it."""
        phase, uid = pod["status"].get("phase"), pod["metadata"]["uid"]
        if pod["metadata"].get("deletionTimestamp"):
            return self._stop(pod)
        if phase == "Pending":
            return self._start(pod)
        return phase == "Running" and uid in self.containers and self._look(pod, self.containers[uid])

    def container(self, pod: Json, name: str) -> Container | None:
        """Return a container of a pod that has started, also an init container."""
        uid = pod["metadata"]["uid"]
        inits = [one["name"] for one in pod["spec"].get("initContainers") or []]
        if name not in inits:
            return self.containers.get(uid)
        return dict(zip(inits, self._inits.get(uid, []), strict=False)).get(name)

    def end_all(self) -> None:
        """Kill every process and wait for it."""
        every = [*self.containers.values(), *(one for inits in self._inits.values() for one in inits)]
        for container in every:
            container.signal(signal.SIGKILL)
        for container in every:
            container.process.wait(10)

    def _start(self, pod: Json) -> bool:
        if self.is_full and "nodeName" not in pod["spec"]:
            self._unschedulable(pod)
            return True
        pod = self._bind(pod)
        if missing := self._missing_image(pod):
            self._without_image(pod, missing)
            return True
        try:
            if not self._prepared(pod):
                return True
            self._run(pod)
        except ConfigError as error:
            is_command = "command" in str(error)
            self._wait(pod, "CreateContainerError" if is_command else "CreateContainerConfigError", str(error))
            return True
        except OSError as error:
            self._ended(pod, 128, "StartError", f"failed to start container: {error}")
        return False

    def _prepared(self, pod: Json) -> bool:
        """Say whether all init containers have succeeded; start the next, or fail the pod with the one that failed."""
        specs = pod["spec"].get("initContainers") or []
        ran = self._inits.setdefault(pod["metadata"]["uid"], [])
        if specs:
            self._report_inits(pod, specs, ran)
        if ran and ran[-1].exit_code is None:
            return False
        if ran and ran[-1].exit_code:
            self._report(pod, "Failed", {"waiting": {"reason": "PodInitializing"}}, is_ready=False)
            return False
        if len(ran) < len(specs):
            ran.append(self._process(pod, specs[len(ran)]))
            return False
        return True

    def _report_inits(self, pod: Json, specs: list[Json], ran: list[Container]) -> None:
        states = [self._init_state(pod, spec, ran[at] if at < len(ran) else None) for at, spec in enumerate(specs)]
        self._store.change(PODS, pod, lambda new: new["status"].update({"initContainerStatuses": states}))

    def _init_state(self, pod: Json, spec: Json, container: Container | None) -> Json:
        code = None if container is None else container.exit_code
        state: Json = {"waiting": {"reason": "PodInitializing"}} if container is None else {"running": {}}
        if code is not None:
            state = {"terminated": self._end_of(pod, spec, code, "Error" if code else "Completed")}
        status = {"name": spec["name"], "image": spec["image"], "imageID": "", "restartCount": 0, "lastState": {}}
        return status | {"ready": code == 0, "started": container is not None and code is None, "state": state}

    def _missing_image(self, pod: Json) -> str:
        every = [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]
        return next((one["image"] for one in every if one["image"] in self._store.plants.missing_images), "")

    def _without_image(self, pod: Json, image: str) -> None:
        told = f'Back-off pulling image "{image}"'
        self._report(pod, "Pending", {"waiting": {"reason": "ImagePullBackOff", "message": told}}, is_ready=False)
        self._tell_once(pod, "kubelet", "Failed", f'Failed to pull image "{image}": not found')

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
        self.containers[uid] = self._process(pod, spec)
        state = {"running": {"startedAt": now()}}
        self._report(pod, "Running", state, is_ready=True)
        emit(self._store, pod, "kubelet", "Started", f"Started container {spec['name']}")

    def _process(self, pod: Json, spec: Json) -> Container:
        """Start the command of a container, with what it sees at its paths.

        :raises ConfigError: a Secret, key or the command is missing
        :raises OSError: there is no such program
        """
        home = self._folder / pod["metadata"]["uid"]
        home.mkdir(exist_ok=True)
        values = environment(self._store, pod, spec, {"HOME": str(home), **self._image_env})
        values = translated(values, private_paths(self._folder, pod, spec))
        where = Path(spec["workingDir"]) if spec.get("workingDir") else home
        return Container(command(spec, values), values, where, self._store.wake)

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
            for init in self._inits.get(pod["metadata"]["uid"], []):
                init.signal(signal.SIGKILL)
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
        state = self._end_of(pod, pod["spec"]["containers"][0], code, reason, message) | {"startedAt": started}
        self._report(pod, "Failed" if code else "Succeeded", {"terminated": state}, is_ready=False)

    def _end_of(self, pod: Json, spec: Json, code: int, reason: str, told: str = "") -> Json:
        told = told or message(self._folder, pod, spec)
        state: Json = {"exitCode": code, "reason": reason, "startedAt": now(), "finishedAt": now()}
        return state | ({"message": told} if told else {})

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
