"""The life of one training job: from its creation through every status to its end, in a thread of its own.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_SecondaryStatusTransition.html
"""

from __future__ import annotations

import math
import re
import struct
import threading
import time
from datetime import UTC, datetime

from airflow_mlops.testing.sagemaker.node import GROUP, Node
from airflow_mlops.testing.sagemaker.problems import Json
from airflow_mlops.testing.sagemaker.world import World

TICK = 0.02
SPOT_SHARE = 0.3
"""How much of the time that a spot machine runs is billed."""

OVER = ("Completed", "Failed", "Stopped")
MESSAGES = {
    "Starting": "Starting the training job",
    "Downloading": "Downloading input data",
    "Training": "Training image download completed. Training in progress.",
    "Interrupted": "Spot capacity was taken away",
    "Uploading": "Uploading generated training model",
    "Completed": "Training job completed",
    "Stopping": "Stopping the training job",
}


class Run:
    """One training job: ``job`` is its description, kept up to date."""

    def __init__(self, world: World, region: str, job: Json) -> None:
        self.job, self._world, self._region = job, world, region
        self._nodes: list[Node] = []
        self._order = ""
        self._why = ""
        self._created, self._trained = time.monotonic(), 0.0
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._enter("InProgress", "Starting")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def order(self, what: str, why: str = "") -> None:
        """Let happen from outside: ``stop``, ``interrupt``, or ``fail`` with what the job then says."""
        with self._world.lock:
            if self.job["TrainingJobStatus"] in OVER:
                return
            self._order, self._why = what, why
            if what == "stop":
                self._enter("Stopping", "Stopping")

    def end(self) -> None:
        """End it, whatever its description says."""
        self._order = "stop"

    def wait(self) -> None:
        """Wait for its end, if it was ever started."""
        if self._thread.is_alive():
            self._thread.join(30)

    def _live(self) -> None:
        limits, is_spot = self.job.get("StoppingCondition", {}), self.job.get("EnableManagedSpotTraining", False)
        while True:
            how = self._get_machine(limits, is_spot) or self._work(limits)
            if how != "interrupt":
                break
            self._enter("InProgress", "Interrupted")
        self._finish(how)

    def _get_machine(self, limits: Json, is_spot: bool) -> str:
        """Wait for machines; return why there are none, if so."""
        is_again = bool(self._nodes)
        ready = time.monotonic() + (self._world.pace.spot_wait if is_again else self._world.pace.start)
        while time.monotonic() < ready or (is_spot and not self._world.has_spot):
            if self._order in ("stop", "fail"):
                return self._order
            if is_spot and time.monotonic() > self._created + limits["MaxWaitTimeInSeconds"]:
                return "MaxWaitTimeExceeded"
            time.sleep(TICK)
        self._order = "" if self._order == "interrupt" else self._order
        return self._prepare()

    def _prepare(self) -> str:
        self._enter("InProgress", "Downloading")
        count = self.job["ResourceConfig"]["InstanceCount"]
        self._nodes = [Node(self._world, self._region, self.job, number) for number in range(1, count + 1)]
        try:
            for node in self._nodes:
                node.prepare([one.host for one in self._nodes])
        except FileNotFoundError as error:
            self._why = f"ClientError: Data download failed: NoSuchKey: {error}"
            return "fail"
        return ""

    def _work(self, limits: Json) -> str:
        """Run the program on all nodes and return how that ended: nothing if it ended well."""
        began = time.monotonic()
        self._enter("InProgress", "Training")
        try:
            for node in self._nodes:
                node.start()
            how = self._watch(began - self._trained + limits.get("MaxRuntimeInSeconds", 86400))
        except OSError as error:
            self._why, how = f"ClientError: the program cannot be started: {error}", "fail"
        grace = 0.0 if how in ("", "fail", "interrupt") else self._world.pace.grace
        enders = [threading.Thread(target=node.end, args=(grace,)) for node in self._nodes]
        for each in enders:
            each.start()
        for each in enders:
            each.join()
        self._trained += time.monotonic() - began
        return how

    def _watch(self, deadline: float) -> str:
        while not self._order:
            codes = [node.poll() for node in self._nodes]
            bad = next((number for number, code in enumerate(codes) if code), None)
            if bad is not None:
                self._why = f"AlgorithmError: {self._nodes[bad].told_failure()}, exit code: {_shell_code(codes[bad])}"
                return "fail"
            if None not in codes:
                return ""
            if time.monotonic() > deadline:
                return "MaxRuntimeExceeded"
            time.sleep(TICK)
        return self._order

    def _finish(self, how: str) -> None:
        """Upload what is there, and end."""
        if how != "stop" and self._trained:
            self._enter("InProgress", "Uploading")
        name, base = self.job["TrainingJobName"], self.job["OutputDataConfig"]["S3OutputPath"].rstrip("/")
        for folder, archive in (("model", "model"), ("output/data", "output")):
            folders = [node.folder / folder for node in self._nodes]
            self._world.storage.archive(folders, f"{base}/{name}/output/{archive}.tar.gz")
        if how in ("", "stop"):
            time.sleep(self._world.pace.upload)
        share = SPOT_SHARE if self.job.get("EnableManagedSpotTraining") else 1.0
        fields: Json = {"FinalMetricDataList": self._metrics()}
        if self._trained:
            fields["TrainingTimeInSeconds"] = math.ceil(self._trained)
            fields["BillableTimeInSeconds"] = math.ceil(self._trained * share)
        if how == "":
            self._enter("Completed", "Completed", **fields)
        elif how == "fail":
            self._enter("Failed", "Failed", FailureReason=self._why[:1024], **fields)
        else:
            self._enter("Stopped", "Stopped" if how == "stop" else how, **fields)

    def _enter(self, status: str, detail: str, **fields: object) -> None:
        """Note a new status, unless it was told to stop and has not ended yet."""
        now = datetime.now(UTC)
        with self._world.lock:
            if self._order == "stop" and status == "InProgress":
                return
            steps = self.job.setdefault("SecondaryStatusTransitions", [])
            if steps:
                steps[-1] = {**steps[-1], "EndTime": now}
            steps.append({"Status": detail, "StartTime": now, "StatusMessage": MESSAGES.get(detail, detail)})
            if status in OVER:
                fields["TrainingEndTime"] = now
            self.job |= {"TrainingJobStatus": status, "SecondaryStatus": detail, "LastModifiedTime": now, **fields}

    def _metrics(self) -> list[Json]:
        """Return the last value of each metric in the log, in the precision that the real service keeps."""
        lines = self._world.log_of(self._region).lines(GROUP, f"{self.job['TrainingJobName']}/")
        found: dict[str, Json] = {}
        for definition in self.job["AlgorithmSpecification"].get("MetricDefinitions", []):
            for line in lines:
                if match := re.search(definition["Regex"], line):
                    value = struct.unpack("f", struct.pack("f", float(match[1])))[0]
                    name = definition["Name"]
                    found[name] = {"MetricName": name, "Value": value, "Timestamp": datetime.now(UTC)}
        return list(found.values())


def _shell_code(code: int | None) -> int:
    """Return an exit code as a container tells it: killed by signal 9 is 137."""
    return 128 - code if code is not None and code < 0 else code or 0
