"""The how-tos about training jobs, run as they stand in the documents."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.operators.janitor import places
from airflow_mlops.testing.task_runner import DagRunMemory, run_task

HOWTO = Path(__file__).resolve().parents[2] / "docs" / "howto"


def blocks(document: str, language: str) -> list[str]:
    """Return the blocks of a document in one language."""
    return re.findall(rf"```{language}\n(.*?)```", (HOWTO / document).read_text(), re.DOTALL)


def dag_of(document: str, folder: Path) -> Any:
    """Return the DAG of a document, from a file: the source of its functions is read."""
    (code,) = blocks(document, "python")
    file = folder / "dag.py"
    file.write_text(code)
    names: dict[str, Any] = {"__name__": "howto"}
    exec(compile(code, str(file), "exec"), names)
    return names["dag"]


@pytest.fixture(autouse=True)
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the jobs in the test's own folder, where they find a ``python``."""
    import os
    import sys

    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


def test_the_function_of_the_how_to_trains(tmp_path: Path) -> None:
    """The how-to's function runs as a job with the result of the task before it, and its metrics are the result."""
    dag = dag_of("task-train.md", tmp_path)
    memory = DagRunMemory(xcoms={("choose", "return_value"): {"columns": ["a", "b"], "rows": 1}})
    run = run_task(dag.get_task("fit"), memory=memory)
    assert run.state == "success", run.error
    assert 0 < run.result["metrics"]["loss"] < 1
    assert "2 columns" in run.log


def test_the_janitor_of_the_how_to_sweeps(tmp_path: Path) -> None:
    """The how-to's DAG looks through the jobs of this machine, and every entry of its file is a place."""
    run = run_task(dag_of("janitor.md", tmp_path).get_task("sweep"))
    assert (run.state, run.result["unreachable"]) == ("success", {})
    (entries,) = blocks("janitor.md", "json")
    assert set(places(json.loads(entries))) == {
        "local",
        "kubernetes:k8s",
        "pipeline:kubeflow:kubeflow_pipelines_default",
        "tuning:sagemaker:aws",
    }
