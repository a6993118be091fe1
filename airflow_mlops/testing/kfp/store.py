"""What the server's database holds: runs, experiments, pipelines and their versions, as the API shows them."""

from __future__ import annotations

import copy
import threading
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from airflow_mlops.testing.kfp.problems import Json, Problem, bad_input, not_found

NEVER = "1970-01-01T00:00:00Z"
FINAL = ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED")
CAN_END = ("PAUSED", "PENDING", "RUNNING", "RUNTIME_STATE_UNSPECIFIED")

RUN_FIELDS = {
    "run_id": "run_id",
    "id": "run_id",
    "display_name": "display_name",
    "name": "display_name",
    "created_at": "created_at",
    "finished_at": "finished_at",
    "description": "description",
    "scheduled_at": "scheduled_at",
    "storage_state": "storage_state",
    "experiment_id": "experiment_id",
    "state": "state",
}
EXPERIMENT_FIELDS = {"id": "experiment_id", "experiment_id": "experiment_id", "name": "display_name"}
EXPERIMENT_FIELDS |= {"display_name": "display_name", "created_at": "created_at", "namespace": "namespace"}
VERSION_FIELDS = {"id": "pipeline_version_id", "pipeline_version_id": "pipeline_version_id", "name": "name"}
VERSION_FIELDS |= {"display_name": "display_name", "created_at": "created_at", "description": "description"}


def now() -> str:
    """Return the time in whole seconds, as the server keeps it."""
    return datetime.now(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")


class Store:
    """Everything by its id; every method may be called from any thread, and answers with copies."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._runs: dict[str, Json] = {}
        self._experiments: dict[str, Json] = {}
        self._pipelines: dict[str, Json] = {}
        self._versions: dict[str, Json] = {}

    # Runs

    def add_run(self, run: Json) -> Json:
        """Keep a new run.

        :raises Problem: 500, its id is taken, in the words of the database
        """
        with self._lock:
            if run["run_id"] in self._runs:
                told = (
                    f"Failed to store run {run['display_name']} to table: Error 1062: Duplicate entry '{run['run_id']}'"
                )
                raise Problem("INTERNAL", f"Failed to create a new run: InternalServerError: {told}")
            moment = now()
            first = {"state": "PENDING", "update_time": moment}
            times = {"created_at": moment, "scheduled_at": moment, "finished_at": NEVER}
            self._runs[run["run_id"]] = {
                **copy.deepcopy(run),
                **times,
                "storage_state": "AVAILABLE",
                "state": "PENDING",
                "state_history": [first],
            }
            return self.run(run["run_id"])

    def run(self, run_id: str) -> Json:
        """Return one run.

        :raises Problem: 404
        """
        with self._lock:
            if run_id not in self._runs:
                raise not_found("Run", run_id)
            return copy.deepcopy(self._runs[run_id])

    def runs(self) -> list[Json]:
        """Return all runs, oldest first."""
        with self._lock:
            return copy.deepcopy(list(self._runs.values()))

    def report(self, run_id: str, state: str, nodes: list[Json], *, tells_errors: bool) -> bool:
        """Take over what a workflow reports, whichever workflow of the run it is; false when there is no such run."""
        with self._lock:
            if run_id not in self._runs:
                return False
            if self._runs[run_id]["state"] == "PAUSED":
                return True
            run = self._runs[run_id]
            if run["state_history"][-1]["state"] != state:
                run["state_history"].append({"state": state, "update_time": now()})
            run["state"] = state
            run["finished_at"] = now() if state in FINAL else NEVER
            details = [_task(run_id, number, node, tells_errors) for number, node in enumerate(nodes)]
            run["run_details"] = {"task_details": details}
            return True

    def change_run(self, run_id: str, **fields: Any) -> None:
        """Change fields of a run, as whoever has the right may."""
        with self._lock:
            self.run(run_id)
            self._runs[run_id].update(fields)

    def order_end(self, run_id: str) -> None:
        """Mark a run as being terminated.

        :raises Problem: 400, it is over or marked already; 404
        """
        with self._lock:
            if self.run(run_id)["state"] not in CAN_END:
                raise bad_input(f"Failed to terminate a run {run_id}. Row not found")
            self._runs[run_id]["state"] = "CANCELING"

    def remove_run(self, run_id: str) -> None:
        """Delete a run for good."""
        with self._lock:
            self.run(run_id)
            del self._runs[run_id]

    # Experiments and pipelines

    def add_experiment(self, body: Mapping[str, Any], namespace: str) -> Json:
        """Keep a new experiment.

        :raises Problem: 409, its name is taken in the namespace
        """
        with self._lock:
            name = str(body.get("display_name", ""))
            if any((one["display_name"], one["namespace"]) == (name, namespace) for one in self._experiments.values()):
                raise Problem("ALREADY_EXISTS", f"Already exist error: The name {name} already exists")
            found = {**body, "experiment_id": str(uuid.uuid4()), "namespace": namespace, "created_at": now()}
            self._experiments[found["experiment_id"]] = found
            return dict(found)

    def experiment(self, experiment_id: str) -> Json:
        """Return one experiment.

        :raises Problem: 404
        """
        if experiment_id not in self._experiments:
            raise not_found("Experiment", experiment_id)
        return dict(self._experiments[experiment_id])

    def experiments(self, namespace: str) -> list[Json]:
        """Return the experiments of a namespace."""
        return [dict(one) for one in self._experiments.values() if one["namespace"] == namespace]

    def upload(self, name: str, version: str, pipeline: Json, namespace: str) -> Json:
        """Keep a version of a pipeline, and the pipeline if it is new."""
        with self._lock:
            found = self._pipeline(name, namespace) or {"pipeline_id": str(uuid.uuid4()), "created_at": now()}
            found |= {"name": name, "display_name": name, "namespace": namespace}
            self._pipelines[found["pipeline_id"]] = found
            moment = f"2026-01-01T00:00:{len(self._versions):02}Z"
            made = {"pipeline_id": found["pipeline_id"], "pipeline_version_id": str(uuid.uuid4()), "name": version}
            made |= {"display_name": version, "created_at": moment, "pipeline_spec": pipeline}
            self._versions[made["pipeline_version_id"]] = made
            return dict(made)

    def pipeline_called(self, name: str, namespace: str) -> Json:
        """Return a pipeline of one namespace; the empty one is for all.

        :raises Problem: 404
        """
        if found := self._pipeline(name, namespace):
            return dict(found)
        raise not_found("Pipeline", name)

    def _pipeline(self, name: str, namespace: str) -> Json | None:
        there = [one for one in self._pipelines.values() if (one["name"], one["namespace"]) == (name, namespace)]
        return there[0] if there else None

    def versions(self, pipeline_id: str) -> list[Json]:
        """Return the versions of a pipeline, oldest first."""
        return [dict(one) for one in self._versions.values() if one["pipeline_id"] == pipeline_id]


def _task(run_id: str, number: int, node: Json, tells_errors: bool) -> Json:
    """Return a node as the API shows it; released servers leave its error out."""
    shown = node if tells_errors else {key: value for key, value in node.items() if key != "error"}
    return {"run_id": run_id, "task_id": str(uuid.uuid5(uuid.UUID(run_id), str(number))), **shown}
