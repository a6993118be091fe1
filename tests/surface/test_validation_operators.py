"""The validation operator, run as a worker runs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core.errors import GateFailedError, InvalidSpecError, NotFoundError, PlatformUnavailableError
from airflow_mlops.operators.validation import ValidateDataOperator
from airflow_mlops.testing.git_dvc import GitDvcRepository
from airflow_mlops.testing.task_runner import TaskRun, run_task
from airflow_mlops.validation.contract import CheckStatus, ValidationReport

AGE = {"type": "expect_column_values_to_be_between", "kwargs": {"column": "age", "min_value": 0, "max_value": 120}}
NAMED = {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "name"}}
MANY = {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 10}}


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """Give a folder with one file: twenty rows, one of which has an age of 200."""
    import pandas as pd

    folder = tmp_path / "data" / "people"
    folder.mkdir(parents=True)
    ages = [*range(19), 200]
    pd.DataFrame({"age": ages, "name": [f"n{age}" for age in ages]}).to_parquet(folder / "train.parquet")
    return folder


def check(data: Any, *checks: dict[str, Any], folder: Path, **kwargs: Any) -> TaskRun:
    """Run the operator with a suite of *checks*."""
    suite = folder / "suite.json"
    suite.write_text(json.dumps({"name": "people", "expectations": list(checks)}))
    arguments = {"task_id": "check", "file": "train.parquet", "engine": "sql", "suite": str(suite), **kwargs}
    return run_task(ValidateDataOperator(data=data, **arguments))


@pytest.mark.parametrize("engine", ["sql", "great_expectations"])
def test_good_data_passes(people: Path, tmp_path: Path, engine: str) -> None:
    """The result is a report on the data that may go on; the log has one line a check."""
    run = check({"path": str(people), "version": {}}, NAMED, MANY, folder=tmp_path, engine=engine)
    report = ValidationReport.from_dict(run.result)
    assert (report.status, report.rows, report.engine) == (CheckStatus.PASS, 20, engine)
    assert report.data == str(people / "train.parquet")
    assert "0 of 20 rows broke expect_column_values_to_not_be_null" in run.log


def test_bad_data_fails_for_good(people: Path, tmp_path: Path) -> None:
    """A failed check ends the task without a retry; the decision names it; no value is in the log."""
    run = check(str(people), AGE, NAMED, folder=tmp_path, retries=3)
    assert run.state == "failed"
    assert isinstance(run.error, GateFailedError)
    assert [reason.rule for reason in run.error.decision.reasons] == ["rows", AGE["type"]]
    assert "1 of 20 rows broke" in str(run.error)
    assert "200" not in run.log


def test_a_quarantine_lets_the_rest_go_on(people: Path, tmp_path: Path) -> None:
    """Bad rows are put aside with the reason, the rest is checked again, and the input stays as it was."""
    import pandas as pd

    before = (people / "train.parquet").read_bytes()
    run = check(str(people), AGE, NAMED, MANY, folder=tmp_path, on_failure="quarantine")
    report = ValidationReport.from_dict(run.result)
    assert (report.status, report.rows, report.bad_rows) == (CheckStatus.WARN, 19, 1)
    assert pd.read_parquet(report.data)["age"].max() == 18
    away = pd.read_parquet(report.quarantine)
    assert away["age"].tolist() == [200]
    assert "expect_column_values_to_be_between" in away["reason"][0]
    assert (people / "train.parquet").read_bytes() == before
    assert [path.name for path in people.iterdir()] == ["train.parquet"]


def test_a_quarantine_has_bounds(people: Path, tmp_path: Path) -> None:
    """Too many bad rows, or a failed check that rows cannot cure, fail the task in spite of the quarantine."""
    many = {**MANY, "kwargs": {"min_value": 1000}}
    too_many = check(str(people), AGE, folder=tmp_path, on_failure="quarantine", max_bad_share=0.01)
    assert isinstance(too_many.error, GateFailedError)
    assert "1 of 20 rows are bad; a quarantine may take 1.00%" in str(too_many.error)
    incurable = check(str(people), AGE, many, folder=tmp_path, on_failure="quarantine", max_bad_share=0.5)
    assert isinstance(incurable.error, GateFailedError)
    table_only = check(str(people), many, folder=tmp_path, on_failure="quarantine")
    assert isinstance(table_only.error, GateFailedError)


def test_the_rest_is_checked_again(people: Path, tmp_path: Path) -> None:
    """Rows that are left and break another rule now fail: nobody is told that unchecked data is good."""
    exactly = {"type": "expect_table_row_count_to_equal", "kwargs": {"value": 20}}
    run = check(str(people), AGE, exactly, folder=tmp_path, on_failure="quarantine")
    assert isinstance(run.error, GateFailedError)
    assert "expect_table_row_count_to_equal" in str(run.error)


def test_warn_and_skip(people: Path, tmp_path: Path) -> None:
    """With warn the task goes on and the report says FAIL; with skip the task is skipped."""
    warned = check(str(people), AGE, folder=tmp_path, on_failure="warn")
    assert (warned.state, warned.result["status"]) == ("success", "fail")
    assert check(str(people), AGE, folder=tmp_path, on_failure="skip").state == "skipped"


def test_a_warning_passes(people: Path, tmp_path: Path) -> None:
    """A failed check of severity warning does not stop anything."""
    run = check(str(people), {**AGE, "severity": "warning"}, folder=tmp_path)
    assert (run.state, run.result["status"]) == ("success", "warn")


@pytest.mark.parametrize("on_failure", ["fail", "warn", "skip", "quarantine"])
def test_a_missing_column_is_final(people: Path, tmp_path: Path, on_failure: str) -> None:
    """A missing column is an error of the request in every mode; the message has a close one."""
    missing = {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "nme"}}
    run = check(str(people), missing, folder=tmp_path, retries=3, on_failure=on_failure)
    assert (run.state, type(run.error)) == ("failed", NotFoundError)
    assert "did you mean 'name'" in str(run.error)


def test_an_engine_fault_is_tried_again(people: Path, tmp_path: Path) -> None:
    """A check that could not be computed is no verdict: the task is tried again, even with warn."""
    odd = {"type": "expect_column_values_to_be_between", "kwargs": {"column": "name", "min_value": 0}}
    run = check(str(people), odd, folder=tmp_path, retries=1, on_failure="warn")
    assert (run.state, type(run.error)) == ("up_for_retry", PlatformUnavailableError)


def test_no_rows_are_no_pass(tmp_path: Path) -> None:
    """A file without rows fails the gate, though every check holds over nothing."""
    import pandas as pd

    pd.DataFrame({"age": pd.array([], "int64"), "name": pd.array([], "str")}).to_parquet(tmp_path / "x.parquet")
    run = check(str(tmp_path), AGE, folder=tmp_path, file="x.parquet")
    assert isinstance(run.error, GateFailedError)
    assert "no rows" in str(run.error)


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"on_failure": "ignore"}, "It is one of"),
        ({"min_expectations": 2}, "at least 2 are required"),
        ({"file": "../other.parquet"}, "not below"),
        ({"suite": "nowhere.json"}, "no suite at"),
        ({"engine": "sqll"}, "did you mean 'sql'"),
        ({"file": "nothing.parquet"}, "no data at"),
    ],
)
def test_wrong_requests_are_final(people: Path, tmp_path: Path, kwargs: dict[str, Any], says: str) -> None:
    """A request that cannot work is refused by name and not tried again."""
    run = check(str(people), AGE, folder=tmp_path, retries=3, **kwargs)
    assert run.state == "failed"
    assert isinstance(run.error, InvalidSpecError)
    assert says in str(run.error)


def test_the_whole_report_is_kept(people: Path, tmp_path: Path) -> None:
    """With a report_dir the report is a JSON file, and the result says where."""
    run = check(str(people), NAMED, folder=tmp_path, report_dir=str(tmp_path / "reports"))
    kept = json.loads((tmp_path / "reports" / "people.json").read_text())
    assert kept == run.result
    assert kept["report_uri"].startswith("file:///")


def test_the_suite_comes_from_the_commit_of_the_data(
    people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A suite in git is read at the data's commit, unless a revision is asked for."""
    repository = GitDvcRepository(tmp_path / "server")
    suites = [json.dumps({"name": f"s{number}", "expectations": [NAMED]}) for number in range(2)]
    commit = repository.commit({"suites/people.json": suites[0]}, "First", tag="old")
    repository.commit({"suites/people.json": suites[1]}, "Second")
    connection = {"conn_type": "dvc", "host": repository.address, "extra": {"workdir": str(tmp_path / "worker")}}
    monkeypatch.setenv("AIRFLOW_CONN_GIT", json.dumps(connection))
    data = {"path": str(people), "version": {"commit": commit}}
    named = {"suite": "suites/people.json", "dvc_conn_id": "git", "folder": tmp_path}
    assert check(data, **named).result["suite"] == "s0"
    assert check(data, suite_rev="main", **named).result["suite"] == "s1"
    assert check(str(people), **named).result["suite"] == "s1"
