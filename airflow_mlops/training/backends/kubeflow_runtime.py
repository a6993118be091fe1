"""What a training runtime of Kubeflow Trainer makes of a job, as far as the job itself cannot say it. Pure.

It must never let a job through whose loss of a node could not be told, or which would be run again unasked.

https://github.com/kubeflow/trainer/blob/v2.3.0/pkg/apis/trainer/v1alpha1/trainingruntime_types.go
"""

from __future__ import annotations

from typing import Any

from airflow_mlops.core.errors import UnsupportedFeatureError
from airflow_mlops.training.backends.kubeflow_object import NODE, TrainerOptions
from airflow_mlops.training.contract import TrainingSpec

Json = dict[str, Any]

ANCESTOR = "trainer.kubeflow.org/trainjob-ancestor-step"
"""Label of the replicated job in which the trainer runs."""


def refuse_runtime(spec: TrainingSpec, runtime: Json, options: TrainerOptions) -> None:
    """Refuse a runtime whose trainer is not in ``node``, which runs failed jobs again, or would hide a lost node.

    :raises UnsupportedFeatureError: naming what the runtime lacks
    """
    jobs = {job.get("name"): job for job in _job_set(runtime).get("replicatedJobs") or []}
    trainers = [name for name, job in jobs.items() if _labels(job).get(ANCESTOR) == "trainer"]
    if trainers != [NODE]:
        told = f"its trainer runs in {', '.join(map(str, trainers)) or 'no job'}, and results are read from {NODE!r}"
        raise UnsupportedFeatureError("kubeflow", f"options.runtime={options.runtime}", told)
    if _job_set(runtime).get("ttlSecondsAfterFinished") is not None:
        told = (
            "it has ttlSecondsAfterFinished, and Kubeflow Trainer up to 2.3 starts a failed job again when its JobSet "
            "is deleted (https://github.com/kubeflow/trainer/issues/3779); take it out of the runtime"
        )
        raise UnsupportedFeatureError("kubeflow", f"options.runtime={options.runtime}", told)
    if spec.spot and not _fails_on_disruption(jobs[NODE]):
        told = (
            f"the runtime {options.runtime!r} has no podFailurePolicy with FailJob on DisruptionTarget, so that a node "
            "that is taken away would look like a failed program; choose a runtime that has it"
        )
        raise UnsupportedFeatureError("kubeflow", "spot", told)


def repeats(runtime: Json) -> str:
    """Return what the runtime does with a program that failed, if it starts it again; else an empty text."""
    jobs = [job for job in _job_set(runtime).get("replicatedJobs") or [] if job.get("name") == NODE]
    spec = (jobs[0].get("template") or {}).get("spec") or {} if jobs else {}
    limit, policy = (
        spec.get("backoffLimit", 6),
        spec.get("template", {}).get("spec", {}).get("restartPolicy", "OnFailure"),
    )
    if not limit or not jobs:
        return ""
    lost = "; then its pods are deleted with their logs" if policy == "OnFailure" else ""
    return f"starts a program that failed again, up to {limit} times (restartPolicy {policy}){lost}"


def subdomain_of(runtime: Json) -> str:
    """Return the subdomain of the nodes' names, if the runtime gives them one."""
    return str((_job_set(runtime).get("network") or {}).get("subdomain") or "")


def _job_set(runtime: Json) -> Json:
    return ((runtime.get("spec") or {}).get("template") or {}).get("spec") or {}


def _labels(job: Json) -> Json:
    return ((job.get("template") or {}).get("metadata") or {}).get("labels") or {}


def _fails_on_disruption(job: Json) -> bool:
    rules = ((job["template"].get("spec") or {}).get("podFailurePolicy") or {}).get("rules") or []
    return any(
        rule.get("action") == "FailJob"
        and any(wanted.get("type") == "DisruptionTarget" for wanted in rule.get("onPodConditions") or [])
        for rule in rules
    )
