"""One DAG with one training task for each cell of the stop matrix, from the file that ``STOP_CELLS`` names."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG

from airflow_mlops.operators.janitor import CancelOrphanedJobsOperator
from airflow_mlops.operators.training import TrainModelOperator


def build(cell: dict[str, Any]) -> DAG:
    """Return the DAG of one cell. Times come in seconds."""
    times = {key: timedelta(seconds=value) for key, value in cell["times"].items()}
    run_limit = times.pop("dagrun_timeout", None)
    with DAG(cell["dag_id"], schedule=None, dagrun_timeout=run_limit) as dag:
        TrainModelOperator(task_id="train", **cell["arguments"], **times)
    return dag


_cells = json.loads(Path(os.environ["STOP_CELLS"]).read_text())
for _cell in _cells:
    globals()[_cell["dag_id"]] = build(_cell)

with DAG("janitor", schedule=None):
    _places = {cell["arguments"]["conn_id"]: cell["arguments"]["backend"] for cell in _cells}
    _backends = [{"backend": backend, "conn_id": conn_id} for conn_id, backend in _places.items()]
    CancelOrphanedJobsOperator(task_id="sweep", backends=_backends, patience=5)
