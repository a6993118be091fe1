"""One machine of a training job: its folders, its files, its one process, and what that printed.

``/opt/ml`` is a private folder: every variable whose value begins with it is turned to that folder. A program that has
the path in its own text does not find it here.

https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo-running-container.html
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from airflow_mlops.testing.sagemaker.problems import Json
from airflow_mlops.testing.sagemaker.world import World

ROOT = "/opt/ml"
GROUP = "/aws/sagemaker/TrainingJobs"


class Node:
    """The machine ``algo-<number>`` of a job."""

    def __init__(self, world: World, region: str, job: Json, number: int) -> None:
        self._world, self._region, self._job = world, region, job
        self.host = f"algo-{number}"
        self.folder = world.folder / "machines" / region / job["TrainingJobName"] / self.host
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None

    def prepare(self, hosts: list[str]) -> None:
        """Make the folders and files, with inputs and checkpoints.

        :raises FileNotFoundError: an input has no object
        """
        for name in ("input/config", "input/data", "model", "output/data"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        world = {"current_host": self.host, "current_instance_type": self._job["ResourceConfig"]["InstanceType"]}
        groups = [{"instance_group_name": "homogeneousCluster", "hosts": hosts}]
        world |= {"hosts": hosts, "instance_groups": groups, "network_interface_name": "eth0"}
        self._config("resourceconfig", world)
        self._config("hyperparameters", self._job.get("HyperParameters", {}))
        for channel in self._job.get("InputDataConfig", []):
            source = channel["DataSource"]["S3DataSource"]["S3Uri"]
            self._world.storage.fetch(source, self.folder / "input" / "data" / channel["ChannelName"])
        self._link_checkpoints()

    def start(self) -> None:
        """Start the program; one that cannot be started has ended with 127."""
        algorithm = self._job["AlgorithmSpecification"]
        words = [*algorithm.get("ContainerEntrypoint", []), *algorithm.get("ContainerArguments", [])]
        self._process = subprocess.Popen(
            words or ["train"],
            cwd=self.folder,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        stream = f"{self._job['TrainingJobName']}/{self.host}-{int(time.time() * 1000)}"
        source = (GROUP, stream, self._process.stdout)
        self._reader = threading.Thread(target=self._world.log_of(self._region).copy, args=source, daemon=True)
        self._reader.start()

    def poll(self) -> int | None:
        """Return the exit code, if the program has ended."""
        return None if self._process is None else self._process.poll()

    def end(self, grace: float) -> None:
        """Send SIGTERM to the first process, and after *grace* seconds SIGKILL to all; return when it is over."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace)
        self.finish()

    def finish(self) -> None:
        """End what the program left behind, and read what it printed to its end."""
        if self._process is None or self._reader is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join(5)

    def told_failure(self) -> str:
        """Return what the program wrote to ``/opt/ml/output/failure``."""
        file = self.folder / "output" / "failure"
        return file.read_text(errors="replace")[:1024] if file.exists() else ""

    def _config(self, name: str, value: Json) -> None:
        (self.folder / "input" / "config" / f"{name}.json").write_text(json.dumps(value))

    def _link_checkpoints(self) -> None:
        """Let the folder of checkpoints be the place in S3 itself: the two are always the same."""
        found = self._job.get("CheckpointConfig")
        if not found:
            return
        place = self._world.storage.path(found["S3Uri"])
        place.mkdir(parents=True, exist_ok=True)
        local = self.folder / found.get("LocalPath", f"{ROOT}/checkpoints").removeprefix(f"{ROOT}/").strip("/")
        if not local.exists():
            local.symlink_to(place, target_is_directory=True)

    def _environment(self) -> dict[str, str]:
        role, secret = self._world.new_key()
        given = {key: self._local(value) for key, value in self._job.get("Environment", {}).items()}
        return {
            "PATH": f"{self._world.folder / 'image'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "TRAINING_JOB_NAME": self._job["TrainingJobName"],
            "TRAINING_JOB_ARN": self._job["TrainingJobArn"],
            "AWS_ACCESS_KEY_ID": role,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_ENDPOINT_URL": self._world.address,
            "NO_PROXY": "127.0.0.1",
            **given,
        }

    def _local(self, value: str) -> str:
        return value.replace(ROOT, str(self.folder), 1) if value.startswith(ROOT) else value
