"""What the server adds to an object before it is kept: identity, defaults of specs, labels that tie pods to Jobs.

A client that compares its spec with the stored one must bear these additions; they are those a real server makes.
"""

from __future__ import annotations

import base64
import datetime
import secrets
import uuid

from airflow_mlops.testing.kubernetes.kinds import JOBS, NAMESPACES, PODS, SECRETS, SERVICES, Kind
from airflow_mlops.testing.kubernetes.problems import Json

LETTERS = "bcdfghjklmnpqrstvwxz2456789"
COMPLETION_INDEX = "batch.kubernetes.io/job-completion-index"
TRACKING = "batch.kubernetes.io/job-tracking"


def now() -> str:
    """Return the time as Kubernetes writes it, to the second."""
    return stamp(datetime.datetime.now(datetime.UTC))


def stamp(moment: datetime.datetime) -> str:
    """Return a moment as Kubernetes writes it, to the second."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def random_suffix() -> str:
    """Return five letters as ``generateName`` adds them: no vowels, so no words."""
    return "".join(secrets.choice(LETTERS) for _ in range(5))


def with_defaults(kind: Kind, item: Json, namespace: str) -> Json:
    """Complete *item*, which has the right shape, in place and return it."""
    metadata = item.setdefault("metadata", {})
    if not metadata.get("name") and metadata.get("generateName"):
        metadata["name"] = metadata["generateName"] + random_suffix()
    metadata.update({"uid": str(uuid.uuid4()), "creationTimestamp": now()})
    if kind.namespaced:
        metadata["namespace"] = namespace
    for key in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"):
        metadata.pop(key, None)
    item.update({"apiVersion": kind.api_version, "kind": kind.name})
    _of_kind(kind, item)
    return item


def _of_kind(kind: Kind, item: Json) -> None:
    if kind == JOBS:
        _job(item)
    elif kind == PODS:
        pod_spec(item.setdefault("spec", {}))
        item["spec"].setdefault("restartPolicy", "Always")
        item["status"] = {"phase": "Pending", "qosClass": "BestEffort"}
    elif kind == SECRETS:
        _secret(item)
    elif kind == SERVICES:
        item["status"] = {"loadBalancer": {}}
    elif kind == NAMESPACES:
        item["status"] = {"phase": "Active"}
    elif not kind.model:
        item["metadata"]["generation"] = 1
        item.pop("status", None)


def _job(item: Json) -> None:
    spec, metadata = item["spec"], item["metadata"]
    metadata["generation"] = 1
    item["status"] = {}
    if spec.get("parallelism") is None and spec.get("completions") is None:
        spec["completions"] = 1
    policy = "Failed" if spec.get("podFailurePolicy") else "TerminatingOrFailed"
    defaults = {"parallelism": 1, "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": False}
    for key, value in (defaults | {"podReplacementPolicy": policy}).items():
        if spec.get(key) is None:
            spec[key] = value
    ties = {"controller-uid": metadata["uid"], "job-name": metadata.get("name", "")}
    ties |= {f"batch.kubernetes.io/{key}": value for key, value in ties.items()}
    labels = spec["template"].setdefault("metadata", {}).setdefault("labels", {})
    labels.update(ties)
    spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": metadata["uid"]}}
    pod_spec(spec["template"].setdefault("spec", {}))


def pod_spec(spec: Json) -> None:
    """Complete a pod's spec in place."""
    defaults = {"dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler", "securityContext": {}}
    for key, value in (defaults | {"terminationGracePeriodSeconds": 30}).items():
        if spec.get(key) is None:
            spec[key] = value
    for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
        tag = container.get("image", "").rpartition("/")[2].partition(":")[2] or "latest"
        container.setdefault("imagePullPolicy", "Always" if tag == "latest" else "IfNotPresent")
        container.setdefault("resources", {})
        container.setdefault("terminationMessagePath", "/dev/termination-log")
        container.setdefault("terminationMessagePolicy", "File")


def _secret(item: Json) -> None:
    given = item.pop("stringData", None) or {}
    data = {key: base64.b64encode(value.encode()).decode() for key, value in given.items()}
    item["data"] = (item.get("data") or {}) | data
    item.setdefault("type", "Opaque")
