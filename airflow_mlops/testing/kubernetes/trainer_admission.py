"""What Kubeflow Trainer's CRD defaults, rules and webhooks do with a TrainJob before it is kept.

The webhook's refusals are 403 with its own words, as controller-runtime sends them: a client must not take one for a
missing right. Source: https://github.com/kubeflow/trainer/tree/v2.3.0/pkg/webhooks and the JobSet and torch plugins.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from airflow_mlops.testing.kubernetes.defaults import now
from airflow_mlops.testing.kubernetes.kinds import Kind
from airflow_mlops.testing.kubernetes.problems import Json, Problem, cause, invalid, not_modelled
from airflow_mlops.testing.kubernetes.store import Store
from airflow_mlops.testing.kubernetes.trainer_schema import RUNTIME

GROUP = "trainer.kubeflow.org"
RUNTIMES = {
    "ClusterTrainingRuntime": Kind(
        *(GROUP, "v1alpha1", "clustertrainingruntimes", "ClusterTrainingRuntime"),
        schema=RUNTIME,
        namespaced=False,
        admit=lambda _store, _old, new: _admit_runtime(new),
    ),
    "TrainingRuntime": Kind(
        *(GROUP, "v1alpha1", "trainingruntimes", "TrainingRuntime"),
        schema=RUNTIME,
        admit=lambda _store, _old, new: _admit_runtime(new),
    ),
}
NODE = "node"
ANCESTOR = "trainer.kubeflow.org/trainjob-ancestor-step"
RESERVED = {"PET_NNODES", "PET_NPROC_PER_NODE", "PET_NODE_RANK", "PET_MASTER_ADDR", "PET_MASTER_PORT"}
DEFAULTS = {"suspend": False, "managedBy": "trainer.kubeflow.org/trainjob-controller"}
IMMUTABLE = ("runtimeRef", "trainer", "activeDeadlineSeconds", "managedBy")


def admit_train_job(store: Store, old: Json | None, new: Json) -> None:
    """Complete a TrainJob in place and check it.

    :raises Problem: 422 by a rule of the CRD, 403 by the webhook
    """
    spec = new["spec"]
    for key, value in DEFAULTS.items():
        spec.setdefault(key, value)
    spec["runtimeRef"] = {"apiGroup": GROUP, "kind": "ClusterTrainingRuntime", **spec["runtimeRef"]}
    for patch in spec.get("runtimePatches", []):
        patch.setdefault("time", now())
    causes = [*_name(new), *(_changed(old["spec"], spec) if old else ())]
    if causes:
        raise invalid("TrainJob", new["metadata"]["name"], causes)
    told = list(_refusals(store, old, new))
    if told:
        hook = 'admission webhook "validator.trainjob.trainer.kubeflow.org" denied the request: '
        raise Problem("Forbidden", hook + (told[0] if len(told) == 1 else f"[{', '.join(told)}]"))


def runtime_of(store: Store, train_job: Json) -> Json | None:
    """Return the runtime that a TrainJob refers to, or None if there is none."""
    reference = train_job["spec"]["runtimeRef"]
    kind = RUNTIMES.get(reference["kind"])
    if kind is None or reference["apiGroup"] != GROUP:
        return None
    return store.find(kind, train_job["metadata"]["namespace"] if kind.namespaced else "", reference["name"])


def _name(item: Json) -> Iterator[Json]:
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", item["metadata"]["name"]):
        yield cause("FieldValueInvalid", "", "Invalid value: metadata.name must match RFC 1035 DNS label format")
    if len(item["metadata"]["name"]) > 63:
        yield cause("FieldValueInvalid", "", "Invalid value: metadata.name must be no more than 63 characters")


def _changed(old: Json, new: Json) -> Iterator[Json]:
    for key in IMMUTABLE:
        if key in old and key in new and old[key] != new[key]:
            yield cause("FieldValueInvalid", f"spec.{key}", "Invalid value: field is immutable")


def _refusals(store: Store, old: Json | None, new: Json) -> Iterator[str]:
    reference = new["spec"]["runtimeRef"]
    kind = RUNTIMES.get(reference["kind"])
    if kind is None or reference["apiGroup"] != GROUP:
        yield f"unsupported runtime: {reference['kind']}.{reference['apiGroup']}"
        return
    runtime = runtime_of(store, new)
    if runtime is None:
        word = reference["kind"][0].lower() + reference["kind"][1:]
        path = "spec.runtimeRef" if kind.namespaced else "spec.RuntimeRef"
        missing = f'{kind.plural}.{GROUP} "{reference["name"]}" not found'
        told = f"specified {word} must be created before the TrainJob is created"
        yield f"{path}: Invalid value: {reference}: {missing}: {told}"
        return
    yield from _patches(old, new, runtime)
    used = {one["name"] for one in new["spec"].get("trainer", {}).get("env", [])} & RESERVED
    if used and "torch" in runtime["spec"].get("mlPolicy", {}):
        told = f"must not have reserved envs, invalid envs configured: {sorted(used)}"
        yield f"spec.trainer.env: Invalid value: {told}"


def _patches(old: Json | None, new: Json, runtime: Json) -> Iterator[str]:
    patches = new["spec"].get("runtimePatches", [])
    if (
        old
        and old["spec"].get("runtimePatches", []) != patches
        and not (old["spec"]["suspend"] or new["spec"]["suspend"])
    ):
        told = "RuntimePatches can only be modified when the TrainJob is suspended before or after the update"
        yield f"spec.runtimePatches: Forbidden: {told}"
    for patch in patches:
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[^/]+", patch["manager"]):
            yield f'spec.runtimePatches.manager: Invalid value: "{patch["manager"]}": must be a domain-prefixed path'
        jobs = patch.get("trainingRuntimeSpec", {}).get("template", {}).get("spec", {}).get("replicatedJobs", [])
        for job in jobs:
            yield from (f"spec.runtimePatches: Invalid value: {told}" for told in _job_patch(job, runtime))


def _job_patch(patch: Json, runtime: Json) -> Iterator[str]:
    jobs = {job["name"]: job for job in runtime["spec"]["template"]["spec"]["replicatedJobs"]}
    if patch["name"] not in jobs:
        yield "must not have replicated job that doesn't exist in the runtime job template"
        return
    pod = patch.get("template", {}).get("spec", {}).get("template", {}).get("spec", {})
    known = {one["name"] for one in jobs[patch["name"]]["template"]["spec"]["template"]["spec"]["containers"]}
    for container in pod.get("containers", []):
        if container["name"] not in known:
            yield f"must not have container that doesn't exist in the runtime job {patch['name']}"
        elif container.get("env") and container["name"] == NODE:
            yield "must not have envs for the dataset-initializer, model-initializer, node containers"


def _admit_runtime(runtime: Json) -> None:
    """Refuse what the fake would not run as a cluster does.

    :raises Problem: 501
    """
    jobs = runtime["spec"]["template"]["spec"].get("replicatedJobs", [])
    if [job["name"] for job in jobs] != [NODE]:
        raise not_modelled("a runtime whose replicated jobs are not one, called 'node'")
    template = jobs[0]["template"]
    if (template.get("metadata") or {}).get("labels", {}).get(ANCESTOR) != "trainer":
        raise not_modelled(f"a runtime whose job 'node' has no label {ANCESTOR}=trainer")
    pod = template["spec"]["template"]["spec"]
    if [one["name"] for one in pod["containers"]] != [NODE]:
        raise not_modelled("a runtime whose containers are not one, called 'node'")
    if pod.get("restartPolicy") != "Never":
        raise not_modelled("a runtime without restartPolicy Never (JobSet's default is OnFailure)")
