"""A tracking run of its own for each job: made before the job starts, closed when it is over, also when it failed.

The run is found again by the job's name, so a worker killed in between leaves no second run. Credentials travel as
names of variables, never as values.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.refs import DataVersion
from airflow_mlops.platforms.mlflow import MLflowClient
from airflow_mlops.training.contract import JobState, TrainingResult, TrainingSpec
from airflow_mlops.training.cost import PREFIX as COST
from airflow_mlops.training.launch import RUN_ID, flag_value

JOB_TAG = "mlops.job"
_OPEN = "RUNNING"
_STATUS = {JobState.SUCCEEDED: "FINISHED", JobState.FAILED: "FAILED"}  # everything else was stopped: KILLED
_BATCH = 100  # the most parameters or tags MLflow takes in one request


@dataclass(frozen=True)
class MLflowTracking:
    """Tracks jobs in one experiment.

    :param experiment: name of the experiment, made if it is absent
    :param tags: further tags of every run
    :param env: plain variables that the job needs besides
    :param secret_env: variables with the server's credentials that the job needs, by the names of their secrets
    """

    client: MLflowClient
    experiment: str
    tags: Mapping[str, str] = field(default_factory=dict)
    secret_env: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)

    def open(self, name: str, spec: TrainingSpec) -> tuple[TrainingSpec, str]:
        """Return *spec* with the variables MLflow's own client reads, and the run's id. Same name, same run.

        What the spec itself says of the server's address and of secrets counts more: a job may be somewhere else.
        """
        experiment_id = self.client.experiment_id(self.experiment)
        run_id = self._find(experiment_id, name) or self._create(experiment_id, name, spec)
        run = {"MLFLOW_EXPERIMENT_ID": experiment_id, RUN_ID: run_id}
        env = {**self.env, "MLFLOW_TRACKING_URI": self.client.address, **spec.env, **run}
        return replace(spec, env=env, secret_env={**self.secret_env, **spec.secret_env}), run_id

    def complete(self, run_id: str, result: TrainingResult) -> TrainingResult:
        """Return *result* with the metrics and the model that the program logged to its run and did not report itself.

        The model is the last one that the run logged; of each metric the last value, finite ones only. The other way
        round, the run gets the metrics that the program reported and did not log.
        """
        run = self.client.run(run_id)
        points = [point for point in run["data"].get("metrics", ()) if not point["key"].startswith(COST)]
        logged = {point["key"]: float(point["value"]) for point in points}
        told = {name: value for name, value in result.metrics.items() if name not in logged and math.isfinite(value)}
        if told:
            self.client.log(run_id, metrics=told)
        metrics = {name: value for name, value in logged.items() if math.isfinite(value)}
        models = run.get("outputs", {}).get("model_outputs", ())
        model_uri = f"models:/{models[-1]['model_id']}" if models else ""
        return replace(result, metrics=result.metrics or metrics, model_uri=result.model_uri or model_uri)

    def close(self, run_id: str, state: JobState) -> None:
        """End the run, unless the job's own program has ended it well."""
        status = _STATUS.get(state, "KILLED")
        if self.client.run(run_id)["info"]["status"] != status:
            self.client.finish_run(run_id, status)

    def url(self, run_id: str) -> str:
        """Return the page of a run."""
        experiment_id = self.client.run(run_id)["info"]["experiment_id"]
        return f"{self.client.address}/#/experiments/{experiment_id}/runs/{run_id}"

    def _find(self, experiment_id: str, name: str) -> str:
        found = self.client.search_runs([experiment_id], f"tags.`{JOB_TAG}` = '{name}'", limit=1)
        return str(found[0]["info"]["run_id"]) if found else ""

    def _create(self, experiment_id: str, name: str, spec: TrainingSpec) -> str:
        tags = {JOB_TAG: name, **self.tags, **data_tags(spec.inputs)}
        run = self.client.create_run(experiment_id, name, tags)
        run_id = str(run["info"]["run_id"])
        params = [(key, flag_value(value)) for key, value in spec.parameters.items()]
        for first in range(0, len(params), _BATCH):
            self.client.log(run_id, params=dict(params[first : first + _BATCH]))
        return run_id


@contextmanager
def exported(variables: Mapping[str, str]) -> Iterator[None]:
    """Set *variables* in this process for as long as the block lasts, for backends that read secrets from there."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def data_tags(inputs: Mapping[str, DataVersion]) -> dict[str, str]:
    """Return the tags that say which bytes a run was trained on, and where they have to stay, for each input."""
    names = ("digest", "commit", "uri", "residency")
    told = {f"mlops.data.{key}.{name}": getattr(version, name) for key, version in inputs.items() for name in names}
    return {tag: value for tag, value in told.items() if value or not tag.endswith(".residency")}


def credentials(info: ConnectionInfo) -> dict[str, str]:
    """Return the variables that MLflow's own client reads its credentials from.

    https://mlflow.org/docs/latest/self-hosting/security/basic-http-auth/
    """
    if info.login:
        return {"MLFLOW_TRACKING_USERNAME": info.login, "MLFLOW_TRACKING_PASSWORD": info.password}
    return {"MLFLOW_TRACKING_TOKEN": info.password} if info.password else {}


def trust(info: ConnectionInfo) -> dict[str, str]:
    """Return the variables that say whose certificate MLflow's own client accepts. They are no secrets."""
    verify = info.extra.get("verify", True)
    if verify is True:
        return {}
    if verify is False:
        return {"MLFLOW_TRACKING_INSECURE_TLS": "true"}
    return {"MLFLOW_TRACKING_SERVER_CERT_PATH": str(verify)}
