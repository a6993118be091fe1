"""SageMaker: 1,000 training jobs that wait for machines, and the trigger of a deferred SageMakerTrainingOperator.

All jobs were made within the same two minutes. That is our worst case: our list goes back two minutes from the newest
change it has seen, so every look reads all of them.

Each official trigger makes a client of its own, for which the SDK reads the whole model of the service again: about
14 MB and a quarter of a second a trigger. So that 1,000 of them fit on a small machine, they share the SDK's loader of
models here. What they send is the same. Their logs are off below ERROR.
"""

from __future__ import annotations

import functools
import json
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.jobs.measure import CONNECTION, INTERVAL, JOBS, Scene, obey


def serve(pipe: Connection) -> None:
    """Run SageMaker with its jobs."""
    from airflow_mlops.core.identity import TaskIdentity
    from airflow_mlops.testing.sagemaker import REGION, sagemaker_fake
    from airflow_mlops.training.backends.sagemaker_job import job_request
    from airflow_mlops.training.backends.sagemaker_options import read_options
    from airflow_mlops.training.contract import TrainingSpec

    names = tuple(f"job-{number}" for number in range(JOBS))
    with sagemaker_fake() as fake:
        extras = fake.extras()
        options = read_options({}, {key: extras[key] for key in ("execution_role", "output_path")})
        for number, name in enumerate(names):
            spec = TrainingSpec(("true",), image="busybox:1")
            fake.add_job(job_request(spec, name, TaskIdentity("bench", "run", "train", number), options, REGION))
        connection = json.dumps(fake.airflow_connection())
        quiet = {"AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR"}
        pipe.send(Scene(names, {f"AIRFLOW_CONN_{CONNECTION.upper()}": connection, **quiet}))
        obey(pipe, fake.calls.count)


def ours(job_id: str) -> Any:
    """Return the trigger of a TrainModelOperator."""
    from airflow_mlops.testing.sagemaker import REGION
    from airflow_mlops.triggers.training import TrainingJobTrigger

    job = {"backend": "sagemaker", "job_id": f"{REGION}/{job_id}"}
    return TrainingJobTrigger("sagemaker", job, CONNECTION, INTERVAL)


def theirs(job_id: str) -> Any:
    """Return the trigger of a SageMakerTrainingOperator."""
    from airflow.providers.amazon.aws.triggers.sagemaker import SageMakerTrigger

    from airflow_mlops.testing.sagemaker import REGION

    _share_models()
    return SageMakerTrigger(
        job_name=job_id,
        job_type="Training",
        waiter_delay=int(INTERVAL),
        aws_conn_id=CONNECTION,
        region_name=REGION,
    )


@functools.cache
def _share_models() -> None:
    """Let all clients of this process share what they read of the SDK's models."""
    from botocore import session

    session.create_loader = functools.cache(session.create_loader)
