"""What each request does, by a verb for each: Azure Resource Manager's and the data plane's."""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_mlops.testing.azureml.command import Surroundings
from airflow_mlops.testing.azureml.faults import Faults
from airflow_mlops.testing.azureml.life import Life
from airflow_mlops.testing.azureml.problems import Json, Problem, bad, not_found
from airflow_mlops.testing.azureml.schema import ENVIRONMENT, check
from airflow_mlops.testing.azureml.store import Store
from airflow_mlops.testing.azureml.sweep import SweepLife
from airflow_mlops.testing.azureml.sweep_schema import check as check_job
from airflow_mlops.testing.azureml.tracking import logged

VERSION = "2024-10-01"
PAGE = 10
NAME = r"[a-zA-Z0-9][a-zA-Z0-9\-_]{0,254}"

ARM_ROUTES = (
    ("GET", "jobs", "ListJobs"),
    ("GET", "jobs/([^/]+)", "GetJob"),
    ("PUT", "jobs/([^/]+)", "PutJob"),
    ("POST", "jobs/([^/]+)/cancel", "CancelJob"),
    ("GET", "environments/([^/]+)/versions/([^/]+)", "GetEnvironment"),
    ("PUT", "environments/([^/]+)/versions/([^/]+)", "PutEnvironment"),
    ("GET", "components/([^/]+)/versions/([^/]+)", "GetComponent"),
)
HISTORY_ROUTES = (
    ("GET", "runs/([^/]+)/details", "GetDetails"),
    ("GET", "runs/([^/]+)/children", "GetChildren"),
    ("GET", "experiments/([^/]+)/runs/([^/]+)/artifacts/contentinfo", "GetArtifact"),
)
QUERIES = {
    "ListJobs": {"$skip", "jobType", "tag", "listViewType", "properties"},
    "GetChildren": {"continuationtoken"},
    "GetArtifact": {"path"},
}


def route(method: str, path: str, routes: tuple[tuple[str, str, str], ...]) -> tuple[str, list[str]]:
    """Return the verb of a request and the names in its path.

    :raises Problem: 404, there is none
    """
    for known, pattern, verb in routes:
        if known == method and (found := re.fullmatch(pattern, path)):
            return verb, list(found.groups())
    raise Problem(404, "InvalidResourceType", f"There is no resource at {path}.")


@dataclass
class Api:
    """The workspace behind the wire. *computes* are its compute targets: name -> whether it is of low priority.

    *issue* gives a token for the run of a job.
    """

    store: Store
    faults: Faults
    folder: Path
    workspace: str
    address: str
    around: Surroundings
    pending: float
    finalizing: float
    computes: Mapping[str, bool]
    issue: Callable[[str], Json]
    lives: dict[str, Life | SweepLife] = field(default_factory=dict)
    _files: dict[str, Path] = field(default_factory=dict)
    _kept: list[Json] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def act(self, verb: str, names: list[str], query: Mapping[str, str], body: Any) -> tuple[int, Json]:
        """Carry out one request; return the status and the body of the answer.

        :raises Problem: it is refused
        """
        if unknown := set(query) - QUERIES.get(verb, set()):
            raise bad(f"The query parameter {unknown.pop()!r} is not known.")
        handler: Callable[..., tuple[int, Json]] = getattr(self, f"_{re.sub(r'(?<!^)(?=[A-Z])', '_', verb).lower()}")
        return handler(*names, query, body)

    def sign(self, file: Path) -> str:
        """Return an address that opens a file without a token."""
        key = secrets.token_urlsafe(16)
        self._files[key] = file
        return f"https://{self.address}/blob/{file.name}?sig={key}"

    def blob(self, signature: str) -> Path:
        """Return the file of a signed address.

        :raises Problem: 403, or 404
        """
        if signature not in self._files:
            raise Problem(403, "AuthenticationFailed", "The signature is not valid.")
        if not self._files[signature].exists():
            raise Problem(404, "BlobNotFound", "The specified blob does not exist.")
        return self._files[signature]

    # Jobs

    def _put_job(self, name: str, query: Mapping[str, str], body: Any) -> tuple[int, Json]:
        if not re.fullmatch(NAME, name):
            raise bad(f"The job name {name!r} does not match {NAME}.")
        if not isinstance(body, dict) or set(body) != {"properties"}:
            raise bad("The body of a job has 'properties' and nothing else.")
        properties = body["properties"]
        check_job(properties)
        if properties["jobType"] == "Pipeline":
            properties = self._resolved(properties)
        else:
            self._known_environment(properties.get("trial", properties)["environmentId"])
        if compute := properties.get("computeId"):
            self._known_compute(compute)
        with self._lock:
            job, is_new = self.store.put_job(name, properties)
            if is_new:
                self._start(job)
        return (201 if is_new else 200), job

    def _start(self, job: Json) -> None:
        times = {"pending": self.pending, "finalizing": self.finalizing}
        kind = SweepLife if job["properties"]["jobType"] == "Sweep" else Life
        life = kind(job, self.store, self.folder, self.around, self.sign, **times)
        self.lives[job["name"]] = life
        life.start()

    def _known_environment(self, identifier: str) -> None:
        if identifier.startswith("azureml://registries/"):
            return
        if identifier not in self.store.environments:
            raise not_found(f"Environment {identifier}")

    def _known_compute(self, identifier: str) -> None:
        name = identifier.removeprefix(f"{self.workspace}/computes/")
        if name not in self.computes:
            raise bad(f"Compute with id {identifier} cannot be found in the workspace.")

    def _resolved(self, properties: Json) -> Json:
        """Return a pipeline job with the commands of its steps, taken from their components."""
        known = properties
        if identifier := properties.get("componentId"):
            spec = self._component(identifier)
            known = {"jobs": spec.get("jobs", {}), "inputs": spec.get("inputs", {})}
        if not known.get("jobs"):
            raise bad("A pipeline job needs 'jobs', or the component of a pipeline.")
        for key in properties.get("inputs", {}):
            if key not in known.get("inputs", {}):
                raise bad(f"The pipeline has no input {key!r}.")
        steps = {key: self._step(key, step) for key, step in known["jobs"].items()}
        return {**properties, "jobs": steps}

    def _step(self, key: str, step: Json) -> Json:
        if step.get("type", "command") != "command" or set(step) - {"type", "componentId", "inputs", "command"}:
            raise bad(f"This fake runs steps that are a command component with inputs; {key!r} has {sorted(step)}.")
        return {**step, "command": self._component(step.get("componentId", ""))["command"]}

    def _component(self, identifier: str) -> Json:
        if identifier not in self.store.components:
            raise not_found(f"Component {identifier}")
        return dict(self.store.components[identifier]["properties"]["componentSpec"])

    def _get_job(self, name: str, query: Mapping[str, str], body: Any) -> tuple[int, Json]:
        return 200, self.store.job(name)

    def _list_jobs(self, query: Mapping[str, str], body: Any) -> tuple[int, Json]:
        if not self.faults.stale_lists or self._kept is None:
            self._kept = self.store.jobs()
        found = [job for job in self._kept if _fits(job["properties"], query)]
        start = int(query.get("$skip", "0"))
        answer: Json = {"value": found[start : start + PAGE]}
        if start + PAGE < len(found):
            kept = "".join(f"&{key}={value}" for key, value in query.items() if key != "$skip")
            where = f"https://{self.address}{self.workspace}/jobs"
            answer["nextLink"] = f"{where}?api-version={VERSION}{kept}&$skip={start + PAGE}"
        return 200, answer

    def _cancel_job(self, name: str, query: Mapping[str, str], body: Any) -> tuple[int, Json]:
        self.store.order_end(name)
        self.life(name).stop("cancel")
        return 202, {}

    def life(self, name: str) -> Life | SweepLife:
        """Return the life of a job, or of a trial of a sweep."""
        if name in self.lives:
            return self.lives[name]
        sweep = self.lives[name.rpartition("_")[0]]
        return sweep.trials[name] if isinstance(sweep, SweepLife) else sweep

    # Assets

    def _get_environment(self, name: str, version: str, query: Mapping[str, str], body: Any) -> tuple[int, Json]:
        return 200, _known(self.store.environments, f"{self.workspace}/environments/{name}/versions/{version}")

    def _put_environment(self, name: str, version: str, query: Mapping[str, str], body: Any) -> tuple[int, Json]:
        check(ENVIRONMENT, body.get("properties"))
        identifier = f"{self.workspace}/environments/{name}/versions/{version}"
        kept = self.store.environments.get(identifier)
        if kept is not None and kept["properties"].get("image") != body["properties"].get("image"):
            raise Problem(409, "UserError", f"{identifier} exists and cannot be changed.", inner=("Immutable",))
        made = {"id": identifier, "name": version, "properties": body["properties"]}
        self.store.environments[identifier] = made
        return (201 if kept is None else 200), made

    def _get_component(self, name: str, version: str, query: Mapping[str, str], body: Any) -> tuple[int, Json]:
        return 200, _known(self.store.components, f"{self.workspace}/components/{name}/versions/{version}")

    # The data plane

    def _get_details(self, name: str, query: Mapping[str, str], body: Any) -> tuple[int, Json]:
        return 200, {key: value for key, value in self.store.run(name).items() if key not in ("children", "trials")}

    def _get_children(self, name: str, query: Mapping[str, str], body: Any) -> tuple[int, Json]:
        found, start = self.store.children(name), int(query.get("continuationtoken", "0"))
        following = {"continuationToken": str(start + PAGE)} if start + PAGE < len(found) else {}
        return 200, {"value": found[start : start + PAGE], **following}

    def _get_artifact(self, experiment: str, name: str, query: Mapping[str, str], body: Any) -> tuple[int, Json]:
        if self.store.job(name)["properties"]["experimentName"] != experiment:
            raise not_found(f"Run {name} in experiment {experiment}")
        file = self.life(name).file(query["path"])
        if file is None:
            raise not_found(f"Artifact {query['path']}")
        return 200, {"contentUri": self.sign(file), "path": query["path"], "origin": "ExperimentRun"}

    # What a job itself asks, with the token of its run

    def _log_batch(self, run: str, query: Mapping[str, str], body: Any) -> tuple[int, Json]:
        self.store.log(run, *logged(run, body))
        return 200, {}

    def _get_run_token(self, run: str, query: Mapping[str, str], body: Any) -> tuple[int, Json]:
        return 200, {"token": self.issue(run)["access_token"]}


def _fits(properties: Json, query: Mapping[str, str]) -> bool:
    view = query.get("listViewType", "ActiveOnly")
    if view != "All" and properties["isArchived"] is not (view == "ArchivedOnly"):
        return False
    if "jobType" in query and properties["jobType"] != query["jobType"]:
        return False
    return "tag" not in query or query["tag"] in properties["tags"]


def _known(kept: Mapping[str, Json], identifier: str) -> Json:
    if identifier not in kept:
        raise not_found(identifier)
    return dict(kept[identifier])
