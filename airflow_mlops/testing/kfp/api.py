"""What each request does, by the names of the RPCs in the server's sources."""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_mlops.testing.kfp.faults import Faults
from airflow_mlops.testing.kfp.lists import page
from airflow_mlops.testing.kfp.plan import plan
from airflow_mlops.testing.kfp.problems import Json, Problem, bad_input, hidden_bad_input
from airflow_mlops.testing.kfp.schema import check
from airflow_mlops.testing.kfp.store import EXPERIMENT_FIELDS, RUN_FIELDS, VERSION_FIELDS, Store
from airflow_mlops.testing.kfp.workflow import Workflow

ROUTES = (
    ("GET", r"healthz", "Healthz"),
    ("POST", r"runs", "CreateRun"),
    ("GET", r"runs", "ListRuns"),
    ("GET", r"runs/([^/:]+)", "GetRun"),
    ("DELETE", r"runs/([^/:]+)", "DeleteRun"),
    ("POST", r"runs/([^/:]+):terminate", "TerminateRun"),
    ("POST", r"runs/([^/:]+):archive", "ArchiveRun"),
    ("POST", r"experiments", "CreateExperiment"),
    ("GET", r"experiments", "ListExperiments"),
    ("GET", r"experiments/([^/:]+)", "GetExperiment"),
    ("GET", r"pipelines/names/([^/]+)", "GetPipelineByName"),
    ("GET", r"pipelines/([^/]+)/versions", "ListPipelineVersions"),
)
SERVER_FIELDS = ("storage_state", "created_at", "scheduled_at", "finished_at", "state", "run_details", "state_history")
"""Of a run, which only the server writes. A real one ignores them in a new run; here sending them is refused."""


def route(method: str, path: str) -> tuple[str, list[str]]:
    """Return the RPC of a request and the ids in its path.

    :raises Problem: 404, there is none
    """
    for verb, pattern, name in ROUTES:
        if verb == method and (found := re.fullmatch(f"/apis/v2beta1/{pattern}", path)):
            return name, list(found.groups())
    raise Problem("NOT_FOUND", "Not Found")


@dataclass
class Api:
    """The server behind the wire. *multi_user* makes namespaces matter."""

    store: Store
    faults: Faults
    folder: Path
    multi_user: bool
    tells_errors: bool
    pending_seconds: float
    takes_run_ids: bool = True
    workflows: list[tuple[str, Workflow]] = field(default_factory=list)
    _kept: list[Json] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def act(self, rpc: str, ids: list[str], query: Mapping[str, str], body: Any) -> Json:
        """Carry out one request and return the answer's body.

        :raises Problem: it is refused
        """
        handler: Callable[..., Json] = getattr(self, f"_{re.sub(r'(?<!^)(?=[A-Z])', '_', rpc).lower()}")
        return handler(*ids, query, body)

    def _healthz(self, query: Mapping[str, str], body: Any) -> Json:
        return {"commit_sha": "fake", "tag_name": "2.17.0", "multi_user": self.multi_user}

    def _create_run(self, query: Mapping[str, str], body: Any) -> Json:
        check("V2beta1Run", body)
        if wrong := [key for key in SERVER_FIELDS if key in body]:
            raise bad_input(f"{wrong} are the server's own")
        if not body.get("display_name"):
            raise hidden_bad_input("Failed to convert a API run", "Run name cannot be empty")
        parameters = body.get("runtime_config", {}).get("parameters", {})
        steps = plan(self._source(body), parameters)
        given = body.get("run_id", "") if self.takes_run_ids else ""
        run = {**body, "run_id": given or str(uuid.uuid4()), "experiment_id": self._experiment_of(body)}
        if not run.get("runtime_config"):
            run.pop("runtime_config", None)
        # As the server does: the workflow exists before the database is asked.
        self._start(run["run_id"], steps, parameters)
        return self.store.add_run(run)

    def _source(self, body: Json) -> Json:
        """Return the pipeline to run."""
        if "pipeline_spec" in body:
            return dict(body["pipeline_spec"])
        reference = body.get("pipeline_version_reference", {})
        for found in reversed(self.store.versions(reference.get("pipeline_id", ""))):
            if reference.get("pipeline_version_id") in {None, found["pipeline_version_id"]}:
                return dict(found["pipeline_spec"])
        raise hidden_bad_input("Failed to create a run due to error fetching manifest", "empty pipeline spec manifest")

    def _experiment_of(self, body: Json) -> str:
        if body.get("experiment_id"):
            return str(self.store.experiment(body["experiment_id"])["experiment_id"])
        if self.multi_user:
            raise bad_input("Experiment id can not be empty in multi-user mode")
        return str(self.store.experiments("")[0]["experiment_id"])

    def _start(self, run_id: str, steps: Any, parameters: Json) -> None:
        with self._lock:
            folder = self.folder / f"{len(self.workflows)}-{run_id}"
            workflow = Workflow(
                steps,
                parameters,
                folder,
                lambda state, nodes: self.store.report(run_id, state, nodes, tells_errors=self.tells_errors),
                pause=self.pending_seconds,
            )
            self.workflows.append((run_id, workflow))
        workflow.start()

    def _get_run(self, run_id: str, query: Mapping[str, str], body: Any) -> Json:
        return _shown(self.store.run(run_id))

    def _list_runs(self, query: Mapping[str, str], body: Any) -> Json:
        namespace = self._namespace(query)
        if not self.faults.stale_lists or self._kept is None:
            self._kept = self.store.runs()
        known = {one["experiment_id"] for one in self.store.experiments(namespace)}
        there = [_shown(run) for run in self._kept if run["experiment_id"] in known]
        return page("runs", there, query, RUN_FIELDS, "run_id")

    def _namespace(self, query: Mapping[str, str]) -> str:
        """Return the namespace of a list; a server for one user has but one, whatever is asked for."""
        if self.multi_user and not query.get("namespace"):
            raise bad_input("A run cannot have an empty namespace in multi-user mode")
        return query.get("namespace", "") if self.multi_user else ""

    def _terminate_run(self, run_id: str, query: Mapping[str, str], body: Any) -> Json:
        self.store.order_end(run_id)
        next(workflow for known, workflow in self.workflows if known == run_id).terminate()
        return {}

    def _archive_run(self, run_id: str, query: Mapping[str, str], body: Any) -> Json:
        self.store.change_run(run_id, storage_state="ARCHIVED")
        return {}

    def _delete_run(self, run_id: str, query: Mapping[str, str], body: Any) -> Json:
        self.store.remove_run(run_id)
        for known, workflow in self.workflows:
            if known == run_id:
                workflow.terminate()
        return {}

    def _create_experiment(self, query: Mapping[str, str], body: Any) -> Json:
        check("V2beta1Experiment", body)
        return self.store.add_experiment(body, body.get("namespace", "") if self.multi_user else "")

    def _get_experiment(self, experiment_id: str, query: Mapping[str, str], body: Any) -> Json:
        return self.store.experiment(experiment_id)

    def _list_experiments(self, query: Mapping[str, str], body: Any) -> Json:
        found = self.store.experiments(self._namespace(query))
        return page("experiments", found, query, EXPERIMENT_FIELDS, "experiment_id")

    def _get_pipeline_by_name(self, name: str, query: Mapping[str, str], body: Any) -> Json:
        return self.store.pipeline_called(name, query.get("namespace", "") if self.multi_user else "")

    def _list_pipeline_versions(self, pipeline_id: str, query: Mapping[str, str], body: Any) -> Json:
        found = self.store.versions(pipeline_id)
        return page("pipeline_versions", found, query, VERSION_FIELDS, "pipeline_version_id")


def _shown(run: Json) -> Json:
    """Return a run as the API shows it: what has its default value is left out."""
    return {key: value for key, value in run.items() if value and value != "RUNTIME_STATE_UNSPECIFIED"}
