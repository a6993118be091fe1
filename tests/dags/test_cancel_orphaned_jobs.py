"""The janitor's template on a real Airflow database: what the server says about tasks decides which jobs end."""

from __future__ import annotations

import json
import os
import runpy
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.training.backends.local import LocalBackend
from airflow_mlops.training.contract import JobState, TrainingSpec

ROOT = Path(__file__).resolve().parents[2]
OWNERS = """
from airflow.sdk import DAG, task

with DAG("owners", schedule=None) as dag:

    @task
    def train(number: int = 0) -> int:
        return number

    train()
    train.override(task_id="many").expand(number=[0, 1, 2])
    train.override(task_id="many_2")()
"""


@pytest.fixture
def backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalBackend]:
    """Give a place with jobs, and leave none running."""
    connection = {"conn_type": "mlops_local", "extra": {"workdir": str(tmp_path / "jobs"), "grace": 0.3}}
    monkeypatch.setenv("AIRFLOW_CONN_JANITOR_JOBS", json.dumps(connection))
    found = LocalBackend(tmp_path / "jobs", grace=0.3)
    yield found
    for handle, _ in found.managed():
        found.cancel(handle)


def dag_of(file: Path) -> Any:
    """Put a DAG file where ``dag.test()`` looks for what it runs, and return its DAG."""
    dags = Path(os.environ["AIRFLOW_HOME"]) / "dags"
    dags.mkdir(exist_ok=True)
    (dags / file.name).write_text(file.read_text())
    if (file.parent / "backends.json").exists():
        (dags / "backends.json").write_text((file.parent / "backends.json").read_text())
    return runpy.run_path(str(dags / file.name))["dag"]


def give_state(run_id: str, task_id: str, map_index: int, state: str | None) -> None:
    """Let a task instance be in a state, as if it had come there."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import update

    which = (TaskInstance.run_id == run_id, TaskInstance.task_id == task_id, TaskInstance.map_index == map_index)
    with create_session() as session:
        session.execute(update(TaskInstance).where(TaskInstance.dag_id == "owners", *which).values(state=state))


@pytest.mark.slow
def test_the_template_stops_the_jobs_of_ended_and_deleted_tasks(
    backend: LocalBackend, airflow_database: None, tmp_path: Path
) -> None:
    """Ended and absent tasks lose their jobs; one that waits, was cleared, or has a name like an ended one does not."""
    (tmp_path / "owners.py").write_text(OWNERS)
    run_id = dag_of(tmp_path / "owners.py").test().run_id
    for task_id, map_index, state in (("many", 1, "deferred"), ("many", 2, None), ("many_2", -1, "up_for_retry")):
        give_state(run_id, task_id, map_index, state)
    expected = {
        ("train", -1): JobState.CANCELLED,
        ("many", 0): JobState.CANCELLED,
        ("many", 1): JobState.RUNNING,
        ("many", 2): JobState.RUNNING,
        ("many_2", -1): JobState.RUNNING,
        ("many", 3): JobState.CANCELLED,
        ("never", -1): JobState.CANCELLED,
    }
    handles = {}
    for number, (task_id, map_index) in enumerate(expected):
        owner = TaskIdentity("owners", run_id, task_id, map_index)
        handles[task_id, map_index] = backend.submit(TrainingSpec(("sleep", "60")), name=f"j{number}", owner=owner)
    time.sleep(0.3)
    place = {"backend": "local", "conn_id": "janitor_jobs"}
    swept = dag_of(ROOT / "dags" / "cancel_orphaned_jobs.py").test(run_conf={"backends": [place], "patience": 5})
    assert str(swept.state) == "success"
    assert {key: backend.observe([handle])[handle].state for key, handle in handles.items()} == expected
