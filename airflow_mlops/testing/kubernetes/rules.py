"""What a real server checks beyond the shape: names, labels, and the rules of Jobs and Pods.

Pure: each function returns the causes of a 422, empty if all is well. The rules are those of
https://kubernetes.io/docs/concepts/workloads/controllers/job/ and .../overview/working-with-objects/names/.
What the fake does not model is refused by ``not_modelled`` and never ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from airflow_mlops.testing.kubernetes.kinds import JOBS, NAMESPACES, PODS, SERVICES, Kind
from airflow_mlops.testing.kubernetes.problems import Json, cause, not_modelled, required

DNS_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
SUBDOMAIN = re.compile(rf"{DNS_LABEL}(\.{DNS_LABEL})*")
LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
LABEL_NAME = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
ACTIONS = {"FailJob", "Ignore", "Count"}
JOB_NOT_MODELLED = ("backoffLimitPerIndex", "maxFailedIndexes", "successPolicy", "managedBy", "manualSelector")
POD_NOT_MODELLED = ("ephemeralContainers", "schedulingGates")
NOT_NEGATIVE = ("parallelism", "completions", "backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished")
MAX_ANNOTATIONS = 256 * 1024


def broken_rules(kind: Kind, item: Json) -> list[Json]:
    """Return what is wrong with a complete object.

    :raises Problem: 501, it asks for something the fake does not model
    """
    causes = list(_metadata(kind, item["metadata"]))
    if kind == JOBS:
        causes += _job(item["spec"])
    if kind == PODS:
        causes += _pod(item["spec"], "spec")
    if kind == SERVICES:
        causes += _service(item)
    return causes


def changed_immutables(kind: Kind, old: Json, new: Json) -> list[Json]:
    """Return the fields that may not change and did: a Job's template and counts, almost all of a Pod's spec."""
    fixed: tuple[str, ...] = ()
    if kind == JOBS:
        fixed = ("template", "selector", "completionMode", "podFailurePolicy", "completions")
    if kind == PODS:
        fixed = ("containers", "restartPolicy", "volumes", "nodeName", "serviceAccountName")
    before, after = old.get("spec", {}), new.get("spec", {})
    causes = [_bad(f"spec.{key}", "field is immutable") for key in fixed if before.get(key) != after.get(key)]
    names = ("name", "namespace", "uid", "creationTimestamp")
    meta = [key for key in names if old["metadata"].get(key) != new["metadata"].get(key)]
    return causes + [_bad(f"metadata.{key}", "field is immutable") for key in meta]


def _bad(field: str, message: str) -> Json:
    return cause("FieldValueInvalid", field, f"Invalid value: {message}")


def _metadata(kind: Kind, metadata: Json) -> Iterator[Json]:
    name = metadata["name"]
    limit = 63 if kind in {JOBS, NAMESPACES} else 253
    if not SUBDOMAIN.fullmatch(name) or (kind == NAMESPACES and "." in name):
        told = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.'"
        yield _bad("metadata.name", f'"{name}": {told}, and must start and end with an alphanumeric character')
    if len(name) > limit:
        yield _bad("metadata.name", f'"{name}": must be no more than {limit} characters')
    yield from _labels(metadata.get("labels") or {}, "metadata.labels")
    annotations = metadata.get("annotations") or {}
    yield from _keys(annotations, "metadata.annotations")
    if sum(len(key) + len(value) for key, value in annotations.items()) > MAX_ANNOTATIONS:
        yield cause("FieldValueTooLong", "metadata.annotations", f"Too long: may not be more than {MAX_ANNOTATIONS}")


def _labels(labels: dict[str, str], field: str) -> Iterator[Json]:
    yield from _keys(labels, field)
    for value in labels.values():
        if len(value) > 63 or not LABEL_VALUE.fullmatch(value):
            yield _bad(field, f"\"{value}\": a valid label must be at most 63 alphanumeric characters, '-', '_' or '.'")


def _keys(labels: dict[str, str], field: str) -> Iterator[Json]:
    for key in labels:
        prefix, slash, name = key.rpartition("/")
        wrong_prefix = slash and (not SUBDOMAIN.fullmatch(prefix) or len(prefix) > 253)
        if wrong_prefix or len(name) > 63 or not LABEL_NAME.fullmatch(name):
            yield _bad(field, f'"{key}": not a qualified name')


def _job(spec: Json) -> Iterator[Json]:
    for key in JOB_NOT_MODELLED:
        if spec.get(key) is not None:
            raise not_modelled(f"spec.{key} of a Job")
    if spec.get("completions") is None:
        raise not_modelled("a Job without spec.completions (a work queue)")
    for key in NOT_NEGATIVE:
        if (spec.get(key) or 0) < 0:
            yield _bad(f"spec.{key}", f"{spec[key]}: must be greater than or equal to 0")
    if spec["completionMode"] not in {"Indexed", "NonIndexed"}:
        yield cause("FieldValueNotSupported", "spec.completionMode", f'Unsupported value: "{spec["completionMode"]}"')
    pod = spec["template"].get("spec") or {}
    yield from _labels(spec["template"].get("metadata", {}).get("labels") or {}, "spec.template.metadata.labels")
    yield from _restart_policy(pod, spec)
    for container in pod.get("initContainers") or []:
        if container.get("restartPolicy"):
            raise not_modelled("init containers with a restart policy of their own")
    yield from _pod(pod, "spec.template.spec")
    if spec.get("podFailurePolicy") and spec["podReplacementPolicy"] != "Failed":
        yield _bad("spec.podReplacementPolicy", 'only "Failed" is supported when podFailurePolicy is specified')
    yield from _failure_policy(spec.get("podFailurePolicy") or {}, pod)


def _restart_policy(pod: Json, spec: Json) -> Iterator[Json]:
    policy, field = pod.get("restartPolicy"), "spec.template.spec.restartPolicy"
    if policy is None:
        yield required(f'{field}: valid values: "OnFailure", "Never"')
    elif policy not in {"OnFailure", "Never"}:
        yield cause("FieldValueNotSupported", field, f'Unsupported value: "{policy}": supported: "OnFailure", "Never"')
    elif policy != "Never" and spec.get("podFailurePolicy"):
        yield _bad(field, f'"{policy}": only "Never" is supported when podFailurePolicy is specified')


def _failure_policy(policy: Json, pod: Json) -> Iterator[Json]:
    names = {container["name"] for container in pod.get("containers", [])}
    for index, rule in enumerate(policy.get("rules", [])):
        field = f"spec.podFailurePolicy.rules[{index}]"
        if rule["action"] == "FailIndex":
            raise not_modelled("the pod failure action FailIndex")
        if rule["action"] not in ACTIONS:
            yield cause("FieldValueNotSupported", f"{field}.action", f'Unsupported value: "{rule["action"]}"')
        if bool(rule.get("onExitCodes")) == bool(rule.get("onPodConditions")):
            yield _bad(field, "specifying one of OnExitCodes and OnPodConditions is required")
        yield from _exit_codes(rule.get("onExitCodes"), f"{field}.onExitCodes", names)


def _exit_codes(wanted: Json | None, field: str, names: set[str]) -> Iterator[Json]:
    if wanted is None:
        return
    if wanted["operator"] not in {"In", "NotIn"}:
        yield cause("FieldValueNotSupported", f"{field}.operator", f'Unsupported value: "{wanted["operator"]}"')
    if not wanted["values"] or wanted["values"] != sorted(set(wanted["values"])):
        yield _bad(f"{field}.values", "must be ordered, without duplicates, and at least one")
    if wanted["operator"] == "In" and 0 in wanted["values"]:
        yield _bad(f"{field}.values", "0: must not be 0 for the In operator")
    if wanted.get("containerName") and wanted["containerName"] not in names:
        yield _bad(f"{field}.containerName", f'"{wanted["containerName"]}": must be one of the container names')


def _pod(spec: Json, field: str) -> Iterator[Json]:
    containers = spec.get("containers") or []
    if not containers:
        yield required(f"{field}.containers")
    for key in POD_NOT_MODELLED:
        if spec.get(key):
            raise not_modelled(f"{field}.{key}")
    if len(containers) > 1:
        raise not_modelled("more than one container in a pod")
    if spec.get("restartPolicy") in {"OnFailure", "Always"} and field == "spec":
        raise not_modelled(f"restartPolicy {spec['restartPolicy']}")
    if spec.get("restartPolicy") == "OnFailure":
        raise not_modelled("restartPolicy OnFailure")
    yield from _volumes(spec.get("volumes") or [], f"{field}.volumes")
    for key in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(key) or []):
            yield from _container(container, f"{field}.{key}[{index}]")
            yield from _mounts(container, spec, f"{field}.{key}[{index}].volumeMounts")


def _volumes(volumes: list[Json], field: str) -> Iterator[Json]:
    names = [volume["name"] for volume in volumes]
    if len(set(names)) < len(names):
        yield cause("FieldValueDuplicate", field, f"Duplicate value: {names}")
    for volume in volumes:
        if set(volume) - {"name"} and not {"emptyDir", "persistentVolumeClaim"} & set(volume):
            raise not_modelled(f"volumes other than claims and empty folders: {volume['name']}")


def _mounts(container: Json, spec: Json, field: str) -> Iterator[Json]:
    names = {volume["name"] for volume in spec.get("volumes") or []}
    paths = [mount["mountPath"] for mount in container.get("volumeMounts") or []]
    for mount in container.get("volumeMounts") or []:
        if mount["name"] not in names:
            yield cause("FieldValueNotFound", field, f'Not found: "{mount["name"]}"')
        if ".." in (mount.get("subPath") or "").split("/"):
            yield _bad(f"{field}.subPath", "must not contain '..'")
    if len(set(paths)) < len(paths):
        yield _bad(f"{field}.mountPath", "must be unique")


def _service(item: Json) -> Iterator[Json]:
    name, spec = item["metadata"]["name"], item.get("spec") or {}
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name) or len(name) > 63:
        yield _bad("metadata.name", f'"{name}": a DNS-1035 label must start with a letter')
    if spec.get("clusterIP") != "None" or spec.get("type", "ClusterIP") != "ClusterIP":
        raise not_modelled("Services with an address of their own: clusterIP must be None")


def _container(container: Json, field: str) -> Iterator[Json]:
    if not re.fullmatch(DNS_LABEL, container["name"]) or len(container["name"]) > 63:
        yield _bad(f"{field}.name", f'"{container["name"]}": a lowercase RFC 1123 label is required')
    if not container.get("image"):
        yield required(f"{field}.image")
    for index, variable in enumerate(container.get("env") or []):
        yield from _variable(variable, f"{field}.env[{index}]")


def _variable(variable: Json, field: str) -> Iterator[Json]:
    name: Any = variable["name"]
    source = variable.get("valueFrom")
    if not name or "=" in name:
        yield _bad(f"{field}.name", f'"{name}": a valid environment variable name must not be empty or contain "="')
    if source is None:
        return
    if variable.get("value"):
        yield _bad(f"{field}.valueFrom", "may not be specified when `value` is not empty")
    if len(source) != 1:
        yield _bad(f"{field}.valueFrom", "must specify one of: `fieldRef`, `secretKeyRef` and the like")
    if not {"fieldRef", "secretKeyRef"} & set(source):
        raise not_modelled(f"{field}.valueFrom other than fieldRef and secretKeyRef")
