"""The tracking run that the runs of many tasks hang below: one for each DAG run, whoever is killed and starts again.

It is found by a tag with a stable name, as the run of a job is. What changes when a task is cleared is kept in tags,
because MLflow lets nobody change a parameter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_mlops.platforms.mlflow import MLflowClient
from airflow_mlops.training.launch import flag_value
from airflow_mlops.training.search import SweepSummary

PARENT_TAG = "mlflow.parentRunId"
"""MLflow's own: https://mlflow.org/docs/latest/ml/traditional-ml/tutorials/hyperparameter-tuning/part1-child-runs/"""
SWEEP_TAG = "mlops.sweep"
BEST = "mlops.sweep.best"

_BATCH = 100  # the most parameters or tags MLflow takes in one request


@dataclass(frozen=True)
class ParentRun:
    """Parent runs of one experiment."""

    client: MLflowClient
    experiment: str

    def open(self, name: str, described_by: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        """Return the id of the run called *name*: a new one, or the one that is there, which is open again.

        :param described_by: parameters of the run, mappings as ``name.key``; those it has stay as they are
        """
        experiment_id = self.client.experiment_id(self.experiment)
        found = self.client.search_runs([experiment_id], f"tags.`{SWEEP_TAG}` = '{name}'", limit=1)
        run = found[0] if found else self.client.create_run(experiment_id, name, {SWEEP_TAG: name, **tags})
        run_id = str(run["info"]["run_id"])
        if run["info"]["status"] != "RUNNING":
            self.client.reopen_run(run_id)
        known = {param["key"] for param in run["data"].get("params", ())}
        missing = {key: value for key, value in _flat(described_by).items() if key not in known}
        for some in _batches(missing):
            self.client.log(run_id, params=some)
        return run_id


def conclude_run(client: MLflowClient, run_id: str, summary: SweepSummary) -> None:
    """Log how the sweep ended: the best value as a metric, the best trial as tags, and end the run well."""
    best = summary.best
    tags = {f"{BEST}.{name}": flag_value(value) for name, value in best.parameters.items()}
    tags |= {f"{BEST}_run_id": best.run_id, f"{BEST}_trial": str(best.number)}
    metrics = {summary.metric: best.value or 0.0, "trials_finished": summary.finished, "trials_failed": summary.failed}
    client.log(run_id, metrics=metrics)
    for some in _batches(tags):
        client.log(run_id, tags=some)
    client.finish_run(run_id)


def close_run(client: MLflowClient, run_id: str) -> bool:
    """End the run as failed if it is still open, and return whether it was."""
    still_open = bool(client.run(run_id)["info"]["status"] == "RUNNING")
    if still_open:
        client.finish_run(run_id, "FAILED")
    return still_open


def _flat(values: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in values.items():
        entries = value.items() if isinstance(value, Mapping) else [("", value)]
        found |= {f"{name}.{key}".rstrip("."): flag_value(entry) for key, entry in entries}
    return found


def _batches(values: Mapping[str, str]) -> Iterator[dict[str, str]]:
    pairs = list(values.items())
    for first in range(0, len(pairs), _BATCH):
        yield dict(pairs[first : first + _BATCH])
