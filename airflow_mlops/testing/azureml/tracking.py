"""What a job itself asks: the REST API of MLflow for its own run, and another token for it.

https://mlflow.org/docs/latest/api_reference/rest-api.html#log-batch
"""

from __future__ import annotations

import math
import re
from typing import Any

from airflow_mlops.testing.azureml.problems import Json, bad
from airflow_mlops.testing.azureml.schema import TAGS, check

_FIELDS = {"run_id", "metrics", "tags", "params"}


def tracking_verb(method: str, path: str, workspace: str) -> tuple[str, str] | None:
    """Return the verb of a request of a job and the run that its path names, if it is one."""
    if (method, path) == ("POST", f"/mlflow/v1.0{workspace}/api/2.0/mlflow/runs/log-batch"):
        return "LogBatch", ""
    found = re.fullmatch(rf"/history/v1\.0{re.escape(workspace)}/experimentids/[^/]+/runs/([^/]+)/token", path)
    return ("GetRunToken", found[1]) if found and method == "GET" else None


def logged(run: str, body: Any) -> tuple[Json, Json]:
    """Return the metrics and tags of a batch.

    :raises Problem: 400, it is not for this run, or not of the API's shape
    """
    if not isinstance(body, dict) or set(body) - _FIELDS or body.get("run_id") != run:
        raise bad(f"The batch is not for the run {run!r}, or has unknown fields.")
    if body.get("params"):
        raise bad("This fake keeps metrics and tags.")
    metrics = {one["key"]: _value(one) for one in body.get("metrics", ())}
    tags = {one["key"]: one["value"] for one in body.get("tags", ())}
    check(TAGS, tags, "tags")
    return metrics, tags


def _value(one: Json) -> float:
    is_whole = type(one.get("timestamp")) is int and type(one.get("step")) is int
    value = one.get("value")
    if set(one) != {"key", "value", "timestamp", "step"} or not is_whole or isinstance(value, bool):
        raise bad(f"A metric is {one!r}.")
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise bad(f"A metric is {one!r}.")
    return float(value)
