"""The whole fake as one object: where it is, what it saw, and what a test can do to it."""

from __future__ import annotations

import contextlib
import copy
import importlib
import json
import secrets
import signal
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from airflow_mlops.core.extras import extra
from airflow_mlops.testing.kubernetes.api import Api
from airflow_mlops.testing.kubernetes.cluster import Cluster
from airflow_mlops.testing.kubernetes.conditions import put
from airflow_mlops.testing.kubernetes.defaults import with_defaults
from airflow_mlops.testing.kubernetes.deletion import mark_pod
from airflow_mlops.testing.kubernetes.events import emit
from airflow_mlops.testing.kubernetes.faults import Faults
from airflow_mlops.testing.kubernetes.front import Front
from airflow_mlops.testing.kubernetes.kinds import BUILT_IN, NAMESPACES, PODS, Kind
from airflow_mlops.testing.kubernetes.kubelet import IMAGE_ENV
from airflow_mlops.testing.kubernetes.listing import Listing
from airflow_mlops.testing.kubernetes.problems import Json
from airflow_mlops.testing.kubernetes.requests import Request
from airflow_mlops.testing.kubernetes.store import Store
from airflow_mlops.testing.wire.calls import Calls
from airflow_mlops.testing.wire.certificates import write_certificates
from airflow_mlops.testing.wire.listener import Listener


class KubernetesFake:
    """A running fake: ``configuration()`` and ``kubeconfig`` lead to it, ``calls`` counts, ``faults`` disturbs."""

    def __init__(
        self,
        folder: Path,
        kinds: tuple[Kind, ...],
        *,
        image_env: Mapping[str, str],
        backoff_seconds: float,
        bookmark_seconds: float,
    ) -> None:
        self.token = secrets.token_urlsafe(24)
        self.ca_file, certificate = write_certificates(folder)
        self.kubeconfig = folder / "kubeconfig"
        self.calls = Calls()
        self.faults = Faults()
        self._store = Store()
        self._cluster = Cluster(self._store, folder, image_env=image_env, backoff_seconds=backoff_seconds)
        self._cluster.controllers = [kind.controller(self._store) for kind in kinds if kind.controller]
        listing = Listing(self._store, self.faults, bookmark_seconds)
        known, kubelet = [*BUILT_IN, *kinds], self._cluster.kubelet
        front = Front(self.token, self._store, kubelet, listing, self.faults, self.calls, known)
        self._listener = Listener(front, certificate)

    @property
    def address(self) -> str:
        """Return such as ``https://127.0.0.1:40123``."""
        return f"https://127.0.0.1:{self._listener.port}"

    def configuration(self) -> Any:
        """Return a ``kubernetes.client.Configuration`` with the address, the authority and the token."""
        with extra("kubernetes"):
            client = importlib.import_module("kubernetes.client")
        configuration = client.Configuration(host=self.address)
        configuration.ssl_ca_cert = str(self.ca_file)
        configuration.api_key = {"authorization": f"Bearer {self.token}"}
        return configuration

    def start(self) -> None:
        """Serve, with the namespaces ``default`` and ``kube-system``, and write the kubeconfig."""
        for name in ("default", "kube-system"):
            self._store.create(NAMESPACES, with_defaults(NAMESPACES, {"metadata": {"name": name}}, ""))
        self._listener.start()
        self._cluster.start()
        self.kubeconfig.touch(mode=0o600)
        self.kubeconfig.write_text(json.dumps(self._kubeconfig()))

    def stop(self) -> None:
        """End the server and every process of a pod.

        :raises RuntimeError: the cluster broke during the test
        """
        self._listener.crash()
        self._cluster.stop()

    def crash(self) -> None:
        """Let the API server die: connections break, new ones are refused; pods and their Jobs go on."""
        self._listener.crash()

    def restart(self) -> None:
        """Start the API server again on the same port, with the same objects and resource versions."""
        self._listener.crash()
        self._listener.start()

    def drop_watches(self) -> None:
        """Cut the open watches and followed logs off, without a proper end."""
        self.faults.watch_epoch += 1
        self._store.wake()

    def compact_history(self) -> None:
        """Forget the history: a watch from a version known until now gets 410; an open one goes on."""
        self._store.compact()

    def fill_node(self, is_full: bool = True) -> None:
        """Leave new pods unscheduled (Pending, with an event) until there is room again."""
        self._cluster.kubelet.is_full = is_full

    def hide_image(self, image: str, is_hidden: bool = True) -> None:
        """Let new pods wait for an image that cannot be pulled (ErrImagePull, with an event) until it is there."""
        images = self._store.plants.missing_images
        (images.add if is_hidden else images.discard)(image)

    def limit(self, kind: Kind, most: int | None, namespace: str = "default") -> None:
        """Set a quota on the number of Jobs (403 to the client) or Pods (FailedCreate); None takes it away."""
        self._store.plants.limit(kind, namespace, most)

    def preempt(self, pod: str, namespace: str = "default") -> None:
        """Take the node away from a pod: condition DisruptionTarget, then its deletion with its own grace."""
        found = self._store.get(PODS, namespace, pod)
        why = "default-scheduler: preempting to accommodate a higher priority pod"
        self._store.change(PODS, found, lambda new: put(new, "DisruptionTarget", True, "PreemptionByScheduler", why))
        emit(self._store, found, "default-scheduler", "Preempted", "Preempted by another pod")
        mark_pod(self._store, found)

    def out_of_memory(self, pod: str, namespace: str = "default") -> None:
        """Kill a running pod's process as the kernel does when memory runs out: OOMKilled, exit code 137."""
        container = self._cluster.kubelet.containers[self._store.get(PODS, namespace, pod)["metadata"]["uid"]]
        container.reason = "OOMKilled"
        container.signal(signal.SIGKILL)

    def process_id(self, pod: str, namespace: str = "default") -> int:
        """Return the process id of a pod's command, which also leads its process group."""
        uid = self._store.get(PODS, namespace, pod)["metadata"]["uid"]
        return self._cluster.kubelet.containers[uid].process.pid

    def create(self, kind: Kind, item: Json, namespace: str = "") -> Json:
        """Create an object as an administrator does: every check is made, nothing is counted.

        :raises Problem: it is refused
        """
        return Api(self._store).answer(Request("create", kind, namespace, "", body=item))[1]

    def set_status(self, kind: Kind, name: str, status: Json, namespace: str = "default") -> None:
        """Write the status of an object as its controller would."""
        found = self._store.get(kind, namespace, name)
        self._store.change(kind, found, lambda new: new.update({"status": copy.deepcopy(status)}))

    def _kubeconfig(self) -> Json:
        cluster = {"server": self.address, "certificate-authority": str(self.ca_file)}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": cluster}],
            "users": [{"name": "test", "user": {"token": self.token}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "test", "namespace": "default"}}],
        }


@contextlib.contextmanager
def kubernetes_fake(
    *kinds: Kind,
    image_env: Mapping[str, str] = IMAGE_ENV,
    backoff_seconds: float = 0.05,
    bookmark_seconds: float = 0.5,
) -> Iterator[KubernetesFake]:
    """Run a fake for the length of the block; nothing it started outlives it.

    :param kinds: custom kinds, made by ``custom_kind``
    :param image_env: environment that every image brings along; by default this process's PATH and nothing else
    :param backoff_seconds: pause of a Job after a failed pod (a real one begins with 10 s and doubles)
    :param bookmark_seconds: time between bookmarks (a real server: about a minute)
    """
    with tempfile.TemporaryDirectory(prefix="kubernetes-fake-", ignore_cleanup_errors=True) as folder:
        fake = KubernetesFake(
            Path(folder),
            kinds,
            image_env=image_env,
            backoff_seconds=backoff_seconds,
            bookmark_seconds=bookmark_seconds,
        )
        try:
            fake.start()
            yield fake
        finally:
            fake.stop()
