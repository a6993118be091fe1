"""Vertex AI: 1,000 CustomJobs that are queued, and the trigger of a deferred CreateCustomJobOperator.

The official trigger is as it is installed. It knows no endpoint but Google's own and speaks gRPC with TLS, so it is led
here by what gRPC itself reads from the environment: a proxy, and the certificates that it trusts. Behind the proxy,
:mod:`benchmarks.jobs.vertex_grpc` puts each of its calls to the fake as the same request over REST, where calls are
counted. Our own side asks the fake over REST. Logs are off below ERROR on both sides.
"""

from __future__ import annotations

import json
import tempfile
import urllib.request
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.jobs.measure import CONNECTION, INTERVAL, JOBS, Scene, obey

FOR_EVER = 1e6
"""Seconds that a job is queued."""


def serve(pipe: Connection) -> None:
    """Run Vertex AI with its jobs, and the gRPC face of it."""
    from airflow_mlops.testing.vertex import REGION, vertex_fake
    from benchmarks.jobs.vertex_grpc import grpc_face

    host = f"{REGION}-aiplatform.googleapis.com"
    with vertex_fake(pending_seconds=FOR_EVER) as fake, tempfile.TemporaryDirectory() as folder:
        ids = tuple(_create(fake.address, body) for body in _bodies())
        roots, planted = Path(folder) / "roots.pem", fake.calls.count()
        with grpc_face(host, fake.address, roots) as proxy:
            # The official connection with our fields: each side reads its own.
            connection = json.dumps({"conn_type": "google_cloud_platform", "extra": fake.extras()})
            led = {"https_proxy": proxy, "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(roots)}
            quiet = {"AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR"}
            pipe.send(Scene(ids, {f"AIRFLOW_CONN_{CONNECTION.upper()}": connection, **led, **quiet}))
            obey(pipe, lambda: fake.calls.count() - planted)


def _bodies() -> Iterator[dict[str, Any]]:
    from airflow_mlops.core.identity import TaskIdentity
    from airflow_mlops.testing.vertex import BUCKET, PROJECT
    from airflow_mlops.training.backends.vertex_job import Place, custom_job
    from airflow_mlops.training.backends.vertex_options import read_options
    from airflow_mlops.training.contract import TrainingSpec

    spec, options = TrainingSpec(("true",), image="busybox:1"), read_options("vertex", {})
    for number in range(JOBS):
        owner = TaskIdentity("bench", "run", "train", number)
        yield custom_job(spec, f"job-{number}", owner, options, Place(PROJECT, f"gs://{BUCKET}/jobs"))


def _create(address: str, body: dict[str, Any]) -> str:
    """Create a CustomJob and return its number."""
    from airflow_mlops.testing.vertex import PROJECT, REGION

    url = f"{address}/v1/projects/{PROJECT}/locations/{REGION}/customJobs"
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return str(json.load(answer)["name"]).rpartition("/")[2]


def ours(job_id: str) -> Any:
    """Return the trigger of a TrainModelOperator."""
    from airflow_mlops.testing.vertex import PROJECT, REGION
    from airflow_mlops.triggers.training import TrainingJobTrigger

    job = {"backend": "vertex", "job_id": f"{PROJECT}/{REGION}/{job_id}"}
    return TrainingJobTrigger("vertex", job, CONNECTION, INTERVAL)


def theirs(job_id: str) -> Any:
    """Return the trigger of a CreateCustomJobOperator."""
    from airflow.providers.google.cloud.triggers.vertex_ai import CustomJobTrigger

    from airflow_mlops.testing.vertex import PROJECT, REGION

    return CustomJobTrigger(
        project_id=PROJECT,
        location=REGION,
        custom_job_id=job_id,
        gcp_conn_id=CONNECTION,
        poll_interval=int(INTERVAL),
    )
