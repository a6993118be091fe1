"""Kubeflow Trainer 2.3 in the Kubernetes fake: TrainJobs whose nodes really run, and the runtimes they refer to.

``kubernetes_fake(*TRAINER_KINDS)`` serves them, ``fake.create(CLUSTER_RUNTIMES, training_runtime())`` adds a runtime.
Unlike those that Kubeflow ships, a runtime here must say ``restartPolicy: Never``: the fake restarts no container.
"""

from __future__ import annotations

import copy

from airflow_mlops.testing.kubernetes.kinds import Kind
from airflow_mlops.testing.kubernetes.problems import Json
from airflow_mlops.testing.kubernetes.trainer_admission import ANCESTOR, GROUP, NODE, RUNTIMES, admit_train_job
from airflow_mlops.testing.kubernetes.trainer_controller import TrainJobController
from airflow_mlops.testing.kubernetes.trainer_schema import TRAIN_JOB

__all__ = ["CLUSTER_RUNTIMES", "RUNTIMES_OF_NAMESPACES", "TRAINER_KINDS", "TRAIN_JOBS", "training_runtime"]

TRAIN_JOBS: Kind = Kind(
    *(GROUP, "v1alpha1", "trainjobs", "TrainJob"),
    schema=TRAIN_JOB,
    admit=admit_train_job,
    controller=lambda store: TrainJobController(store, TRAIN_JOBS),
)
CLUSTER_RUNTIMES = RUNTIMES["ClusterTrainingRuntime"]
RUNTIMES_OF_NAMESPACES = RUNTIMES["TrainingRuntime"]
TRAINER_KINDS = (TRAIN_JOBS, CLUSTER_RUNTIMES, RUNTIMES_OF_NAMESPACES)

PREEMPTED_FAILS = {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}


def training_runtime(
    name: str = "torch-distributed",
    *,
    kind: Kind = CLUSTER_RUNTIMES,
    is_torch: bool = True,
    fails_on_disruption: bool = True,
    network: Json | None = None,
) -> Json:
    """Return a runtime of one job that never runs a program twice.

    :param fails_on_disruption: a node that is taken away fails the job with a reason of its own
    """
    job: Json = {
        "backoffLimit": 0,
        "podReplacementPolicy": "Failed",
        "template": {
            "spec": {
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 1,
                "containers": [{"name": NODE, "image": "pytorch/pytorch:2.13.0"}],
            }
        },
    }
    if fails_on_disruption:
        job["podFailurePolicy"] = {"rules": [copy.deepcopy(PREEMPTED_FAILS)]}
    template = {"metadata": {"labels": {ANCESTOR: "trainer"}}, "spec": job}
    spec: Json = {"replicatedJobs": [{"name": NODE, "template": template}], **({"network": network} if network else {})}
    policy: Json = {"numNodes": 1, **({"torch": {}} if is_torch else {})}
    return {
        "apiVersion": kind.api_version,
        "kind": kind.name,
        "metadata": {"name": name},
        "spec": {"mlPolicy": policy, "template": {"spec": spec}},
    }
