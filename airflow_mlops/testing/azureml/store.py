"""What the service keeps: jobs with their states and runs, environments, components. Methods answer with copies."""

from __future__ import annotations

import copy
import threading
from datetime import UTC, datetime
from typing import Any

from airflow_mlops.testing.azureml.problems import Json, bad, immutable, not_found
from airflow_mlops.testing.azureml.sweep_schema import IMMUTABLE

DEFAULTS = {"experimentName": "Default"}
FINAL = ("Completed", "Failed", "Canceled")


def now() -> str:
    """Return the time as the service writes it."""
    return datetime.now(UTC).isoformat()


class Store:
    """Everything by its name. *workspace* is the id that all ids begin with, *address* that of the data plane."""

    def __init__(self, workspace: str, address: str) -> None:
        self._workspace, self._address = workspace, address
        self._lock = threading.RLock()
        self._jobs: dict[str, Json] = {}
        self._runs: dict[str, Json] = {}
        self._trials: set[str] = set()
        self.environments: dict[str, Json] = {}
        self.components: dict[str, Json] = {}

    def put_job(self, name: str, properties: Json) -> tuple[Json, bool]:
        """Keep a job, or change the little that can be changed of it; say whether it is new.

        :raises Problem: 400, something else is to be changed
        """
        with self._lock:
            if name not in self._jobs:
                self._jobs[name] = self._new(name, properties)
                self._runs[name] = {"runId": name, "logFiles": {}, "children": []}
                return self.job(name), True
            kept = self._jobs[name]["properties"]
            asked = {**DEFAULTS, **properties}
            if changed := [key for key in IMMUTABLE if asked.get(key) != kept.get(key)]:
                raise immutable(changed)
            for key, value in properties.get("properties", {}).items():
                if kept["properties"].setdefault(key, value) != value:
                    raise bad(f"The property {key!r} cannot be altered.")
            for key in ("tags", "description", "displayName", "isArchived"):
                if key in properties:
                    kept[key] = copy.deepcopy(properties[key])
            return self.job(name), False

    def _new(self, name: str, properties: Json) -> Json:
        studio = f"https://ml.azure.com/runs/{name}?wsid={self._workspace}"
        services = {
            "Tracking": {
                "jobServiceType": "Tracking",
                "endpoint": f"azureml://{self._address}/mlflow/v1.0{self._workspace}?",
            },
            "Studio": {"jobServiceType": "Studio", "endpoint": studio},
        }
        own = {"status": "NotStarted", "services": services, "isArchived": False}
        return {
            "id": f"{self._workspace}/jobs/{name}",
            "name": name,
            "type": "Microsoft.MachineLearningServices/workspaces/jobs",
            "properties": {
                "tags": {},
                "properties": {},
                **DEFAULTS,
                **copy.deepcopy(properties),
                **own,
            },
            "systemData": {"createdAt": now(), "createdBy": "fake", "createdByType": "Application"},
        }

    def job(self, name: str) -> Json:
        """Return one job.

        :raises Problem: 404
        """
        with self._lock:
            if name not in self._jobs:
                raise not_found(f"Job {name}")
            return copy.deepcopy(self._jobs[name])

    def jobs(self) -> list[Json]:
        """Return all jobs, newest first. Trials of a sweep are told of by their sweep alone."""
        with self._lock:
            return copy.deepcopy([job for name, job in reversed(self._jobs.items()) if name not in self._trials])

    def put_trial(self, sweep: str, name: str, properties: Json) -> Json:
        """Keep the job of a sweep's trial, and name it among the sweep's children."""
        with self._lock:
            self._trials.add(name)
            self._runs[sweep].setdefault("trials", []).append(name)
            return self.put_job(name, properties)[0]

    def children(self, name: str) -> list[Json]:
        """Return the runs of a pipeline's steps or of a sweep's trials.

        :raises Problem: 404
        """
        with self._lock:
            run = self.run(name)
            return [self.run(trial) for trial in run.get("trials", ())] or list(run["children"])

    def log(self, name: str, metrics: Json, tags: Json) -> None:
        """Keep what a job logged to its run; of a metric the last value.

        :raises Problem: 404
        """
        with self._lock:
            kept = self.run(name)
            self._runs[name] |= {
                "metrics": {**kept.get("metrics", {}), **metrics},
                "tags": {**kept.get("tags", {}), **tags},
            }

    def name_best(self, name: str, trials: list[str]) -> None:
        """Write which trial of a sweep is the best, if any logged the metric and completed."""
        with self._lock:
            kept = self._jobs[name]["properties"]
            metric, goal = kept["objective"]["primaryMetric"], kept["objective"]["goal"]
            values = {
                trial: self._runs[trial]["metrics"][metric]
                for trial in trials
                if self.status(trial) == "Completed" and metric in self._runs[trial].get("metrics", {})
            }
            if values:
                best = (max if goal == "Maximize" else min)(values, key=lambda trial: values[trial])
                kept["properties"] |= {"best_child_run_id": best, "score": str(values[best])}

    def status(self, name: str) -> str:
        """Return the word for what a job is doing, an empty one when it is gone."""
        with self._lock:
            return str(self._jobs[name]["properties"]["status"]) if name in self._jobs else ""

    def move(self, name: str, status: str, **run: Any) -> bool:
        """Write a job's state and what its run history then knows; what has ended stays as it is."""
        with self._lock:
            if name not in self._jobs or self.status(name) in FINAL:
                return False
            if status in ("Preparing", "Queued", "Running") and self.status(name) == "CancelRequested":
                return False
            self._jobs[name]["properties"]["status"] = status
            self._runs[name] |= run
            return True

    def order_end(self, name: str) -> None:
        """Note that a job is to end.

        :raises Problem: 400, it is over; 404
        """
        with self._lock:
            if self.job(name)["properties"]["status"] in FINAL:
                raise bad(f"The job {name} is in a terminal state and cannot be canceled.")
            self._jobs[name]["properties"]["status"] = "CancelRequested"

    def change(self, name: str, **fields: Any) -> None:
        """Write properties of a job as the service would, whatever they were."""
        with self._lock:
            self.job(name)
            self._jobs[name]["properties"].update(fields)

    def remove(self, name: str) -> None:
        """Forget a job."""
        with self._lock:
            self._jobs.pop(name, None)

    def run(self, name: str) -> Json:
        """Return what the run history knows of a job or of a step.

        :raises Problem: 404
        """
        with self._lock:
            if name not in self._runs:
                raise not_found(f"Run {name}")
            status = {"status": self.status(name)} if name in self._jobs else {}
            return copy.deepcopy({**self._runs[name], **status})

    def keep_run(self, name: str, **fields: Any) -> None:
        """Write what the run history knows of a job or of a step of a pipeline."""
        with self._lock:
            self._runs.setdefault(name, {"runId": name, "logFiles": {}, "children": []}).update(fields)
