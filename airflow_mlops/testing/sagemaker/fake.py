"""The whole fake as one object: where it is, what it saw, and what a test can do to it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.testing.sagemaker.faults import Faults
from airflow_mlops.testing.sagemaker.front import Front
from airflow_mlops.testing.sagemaker.problems import Json
from airflow_mlops.testing.sagemaker.storage import Storage
from airflow_mlops.testing.sagemaker.world import ACCOUNT, Pace, World
from airflow_mlops.testing.wire.listener import Listener

REGION, BUCKET = "eu-test-1", "s3://ml-bucket"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/sagemaker-training"


class SageMakerFake:
    """A running fake: ``connection()`` leads to it, ``calls`` counts requests by operation, ``faults`` disturbs."""

    def __init__(self, folder: Path, pace: Pace) -> None:
        self.world = World(folder, Storage(folder / "buckets"), pace)
        self.faults = Faults()
        self._front = Front(self.world, self.faults)
        self._listener = Listener(self._front)
        self.calls = self._front.calls
        self.access_key, self.secret_key = self.world.new_key()

    @property
    def address(self) -> str:
        """Return such as ``http://127.0.0.1:40123``."""
        return f"http://127.0.0.1:{self._listener.port}"

    def extras(self, **more: Any) -> Json:
        """Return the extras of a connection to the fake: those of the official one, a role and a place for outputs."""
        own = {"execution_role": ROLE, "output_path": f"{BUCKET}/jobs"}
        return {"region_name": REGION, "endpoint_url": self.address, **own, **more}

    def connection(self, **more: Any) -> ConnectionInfo:
        """Return a connection to the fake."""
        return ConnectionInfo("aws", login=self.access_key, password=self.secret_key, extra=self.extras(**more))

    def airflow_connection(self, **more: Any) -> Json:
        """Return the same as Airflow writes it."""
        keys = {"login": self.access_key, "password": self.secret_key}
        return {"conn_type": "aws", **keys, "extra": self.extras(**more)}

    def start(self) -> None:
        """Serve."""
        self._listener.start()
        self.world.address = self.address

    def stop(self) -> None:
        """End the server and every process of a job."""
        self._listener.crash()
        self.world.pace.grace = 0.2
        for tuning in self._front.tunings.values():
            tuning.end()
        for training, pipelines in self._front.regions():
            for execution in pipelines.executions.values():
                execution.stop()
            for execution in pipelines.executions.values():
                execution.wait()
            for run in list(training.runs.values()):
                run.end()
            for run in list(training.runs.values()):
                run.wait()

    def crash(self) -> None:
        """Let the services die: connections break, new ones are refused; jobs go on."""
        self._listener.crash()

    def restart(self) -> None:
        """Start them again on the same port, with what they stored."""
        self._listener.crash()
        self._listener.start()

    def jobs(self, region: str = REGION) -> dict[str, Json]:
        """Return every training job that was ever made, by name, as ``DescribeTrainingJob`` tells it, and its tags."""
        return {name: dict(run.job) for name, run in self._front.region(region)[0].runs.items()}

    def add_job(self, body: Json) -> None:
        """Keep a job that never gets machines and costs none here, for a crowd of jobs.

        :param body: as for ``CreateTrainingJob``
        """
        self._front.region(REGION)[0].add(body)

    def set_job(self, name: str, **fields: Any) -> None:
        """Write fields of a job, such as ``TrainingJobStatus``, as the service would."""
        self._front.region(REGION)[0].runs[name].job.update(fields)

    def interrupt(self, name: str) -> None:
        """Take the machines of a spot job away; it goes on when there are others."""
        self._front.region(REGION)[0].runs[name].order("interrupt")

    def fail(self, name: str, why: str) -> None:
        """Let a job fail by the platform's fault, with what it then says."""
        self._front.region(REGION)[0].runs[name].order("fail", why)

    def executions(self) -> list[Json]:
        """Return every pipeline execution, oldest first."""
        return [dict(one.told) for one in self._front.region(REGION)[1].executions.values()]

    def add_pipeline(self, name: str, scripts: dict[str, str], parameters: list[Json] | None = None) -> None:
        """Keep a pipeline with a training step for each shell script; each sees all parameters as variables."""
        known = parameters or []
        steps = [{"Name": step, "Type": "Training", "Arguments": _step(scripts[step], known)} for step in scripts]
        definition = {"Version": "2020-12-01", "Parameters": known, "Steps": steps}
        self._front.region(REGION)[1].add(name, definition)

    def searches(self) -> dict[str, Json]:
        """Return every tuning job that was ever made, by name, as ``DescribeHyperParameterTuningJob`` tells it."""
        return {name: search.told() for name, search in self._front.tuning(REGION).searches.items()}

    def set_search(self, name: str, **fields: Any) -> None:
        """Write fields of a tuning job, such as ``HyperParameterTuningJobStatus``, as the service would."""
        self._front.tuning(REGION).searches[name].set_fields(**fields)

    def add_program(self, name: str, script: str) -> None:
        """Put a program into the images of all jobs, such as the ``train`` that tuning jobs start."""
        file = self.world.folder / "image" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(script)
        file.chmod(0o755)

    def forget_tokens(self) -> None:
        """Forget which requests started an execution, as the service does after a while."""
        self._front.region(REGION)[1].tokens.clear()


def _step(script: str, parameters: list[Json]) -> Json:
    return {
        "AlgorithmSpecification": {
            "TrainingImage": "train:1",
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["sh", "-c", script],
        },
        "Environment": {one["Name"]: {"Get": f"Parameters.{one['Name']}"} for one in parameters},
        "RoleArn": ROLE,
        "OutputDataConfig": {"S3OutputPath": f"{BUCKET}/pipelines"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 30},
        "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
    }


@contextlib.contextmanager
def sagemaker_fake(**pace: float) -> Iterator[SageMakerFake]:
    """Run a fake for the length of the block; nothing it started outlives it.

    :param pace: how long things take, see :class:`~airflow_mlops.testing.sagemaker.world.Pace`
    """
    with tempfile.TemporaryDirectory(prefix="sagemaker-fake-", ignore_cleanup_errors=True) as folder:
        fake = SageMakerFake(Path(folder), Pace(**pace))
        try:
            fake.start()
            yield fake
        finally:
            fake.stop()
