"""Kubernetes: 1,000 suspended Jobs, and the trigger of a deferred KubernetesJobOperator."""

from __future__ import annotations

import datetime
import json
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.jobs.measure import CONNECTION, INTERVAL, JOBS, Scene, obey


def serve(pipe: Connection) -> None:
    """Run the API server with its Jobs."""
    from airflow_mlops.core.identity import TaskIdentity
    from airflow_mlops.testing.kubernetes import JOBS as KIND
    from airflow_mlops.testing.kubernetes import kubernetes_fake
    from airflow_mlops.training.backends.kubernetes_job import job_body
    from airflow_mlops.training.backends.kubernetes_pod import read_options
    from airflow_mlops.training.contract import TrainingSpec

    spec, options = TrainingSpec(("true",), image="busybox:1"), read_options("kubernetes", {}, {})
    true = {"status": "True", "lastTransitionTime": datetime.datetime.now(datetime.UTC).isoformat()}
    done = {"conditions": [{"type": kind, **true} for kind in ("SuccessCriteriaMet", "Complete")]}
    names = tuple(f"job-{number}" for number in range(JOBS))
    with kubernetes_fake(bookmark_seconds=30) as fake:
        for number, name in enumerate(names):
            body = job_body(spec, name, TaskIdentity("bench", "run", "train", number), options)
            body["spec"]["suspend"] = True
            fake.create(KIND, body, "default")
        connection = {"conn_type": "kubernetes", "extra": {"kube_config_path": str(fake.kubeconfig)}}
        pipe.send(Scene(names, {f"AIRFLOW_CONN_{CONNECTION.upper()}": json.dumps(connection)}))
        obey(pipe, fake.calls.count, lambda number: fake.set_status(KIND, names[number], done))


def ours(job_id: str) -> Any:
    """Return the trigger of a TrainModelOperator."""
    from airflow_mlops.triggers.training import TrainingJobTrigger

    job = {"backend": "kubernetes", "job_id": f"default/{job_id}"}
    return TrainingJobTrigger("kubernetes", job, CONNECTION, INTERVAL)


def theirs(job_id: str) -> Any:
    """Return the trigger of a KubernetesJobOperator."""
    from airflow.providers.cncf.kubernetes.triggers.job import KubernetesJobTrigger

    return KubernetesJobTrigger(
        job_name=job_id,
        job_namespace="default",
        pod_names=[],
        pod_namespace="default",
        base_container_name="main",
        kubernetes_conn_id=CONNECTION,
        poll_interval=INTERVAL,
        get_logs=False,
    )
