"""The how-to's own code, run as it stands in the document."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core.errors import InvalidSpecError, JobFailedError
from airflow_mlops.groups import training_pipeline
from airflow_mlops.testing.task_runner import run_task

ROOT = Path(__file__).resolve().parents[2]
REPORT = """printf '{"metrics": {"train_auc": %s}}' > "$MLOPS_OUTPUT" """


def code_of(document: str) -> list[str]:
    """Return the Python blocks of a document, in order."""
    return re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def extended() -> dict[str, Any]:
    """Give the names that the how-to "extend an operator" defines, all blocks run one after the other."""
    names: dict[str, Any] = {"__name__": "howto"}
    exec("\n".join(code_of("docs/howto/extend-an-operator.md")), names)
    return names


@pytest.mark.parametrize(("auc", "state"), [("0.71", "success"), ("0.97", "failed")])
def test_the_subclass_looks_at_the_result(
    extended: dict[str, Any], auc: str, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The how-to's operator trains as ours does and refuses a result that is too good, without another try."""
    monkeypatch.setenv("AIRFLOW_CONN_JOBS", f'{{"conn_type": "mlops_local", "extra": {{"workdir": "{tmp_path}"}}}}')
    task = extended["CarefulTrainModelOperator"](
        task_id="train", command=["sh", "-c", REPORT % auc], conn_id="jobs", highest_auc=0.95, retries=2
    )
    run = run_task(task)
    assert run.state == state
    assert isinstance(run.error, JobFailedError) == (state == "failed")


def test_the_step_is_swapped_and_the_new_one_is_between(extended: dict[str, Any]) -> None:
    """In the how-to's DAG the subclass is the step, with its own argument, and the new task is before the promotion."""
    dag = extended["dag"]
    train = dag.get_task("train")
    assert (type(train).__name__, train.highest_auc) == ("CarefulTrainModelOperator", 0.95)
    assert dag.get_task("announce").downstream_task_ids == {"promote"}
    assert "register" in dag.get_task("announce").upstream_task_ids


def test_an_unknown_step_is_refused_by_name() -> None:
    """Swapping a step that does not exist says so and names the closest one."""
    from airflow.sdk import DAG

    with DAG("typo"), pytest.raises(InvalidSpecError, match="did you mean 'train'"):
        training_pipeline(
            model_name="m", data_path="d", suite="s", command=["c"], target="t", operators={"tran": object}
        )


def test_the_readme_has_a_dag_of_fifteen_lines_that_works() -> None:
    """The README's DAG is at most 15 lines long, can be parsed and has every step from data to rollout."""
    block, _ = code_of("README.md")
    assert len([line for line in block.splitlines() if line]) <= 15
    names: dict[str, Any] = {}
    exec(block, names)
    dag = names["trained"].materialise.dag
    steps = ["materialise", "validate", "train", "register", "profile", "evaluate", "promote"]
    assert set(steps) | {"deploy", "canary", "rollback_model", "rolled_out"} == set(dag.task_ids)


def test_the_readme_s_function_becomes_a_training_task(tmp_path: Path) -> None:
    """The README's second example makes a task for the backend and image that it names."""
    _, block = code_of("README.md")
    file = tmp_path / "dag.py"
    use = "from airflow.sdk import DAG\nwith DAG('readme', schedule=None) as dag:\n    fit(rate=0.1)\n"
    file.write_text(f"{block}\n{use}")
    task = runpy.run_path(str(file))["dag"].get_task("fit")
    assert (task.backend, task.image, task.conn_id) == ("kubernetes", "python:3.12-slim", "k8s")
