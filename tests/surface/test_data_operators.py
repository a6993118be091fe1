"""The data operators, run as a worker runs them, over a real git repository and DVC remote."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import Asset

from airflow_mlops.core.errors import ConflictError, IntegrityError, InvalidSpecError, NotFoundError
from airflow_mlops.core.refs import DataVersion
from airflow_mlops.hooks.dvc import DvcHook
from airflow_mlops.operators.data import DvcMaterialiseOperator, DvcSnapshotOperator
from airflow_mlops.testing.git_dvc import GitDvcRepository
from airflow_mlops.testing.task_runner import DagRunMemory, run_task


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GitDvcRepository:
    """Give a repository behind the connection ``dvc_default``."""
    made = GitDvcRepository(tmp_path / "server")
    connect(monkeypatch, made.address, workdir=str(tmp_path / "worker"))
    return made


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Give a folder of data."""
    root = tmp_path / "landing"
    root.mkdir()
    (root / "a.csv").write_text("x\n1\n")
    return root


def connect(monkeypatch: pytest.MonkeyPatch, host: str, *, password: str = "", **extra: Any) -> None:
    """Define the connection ``dvc_default``."""
    connection = {"conn_type": "dvc", "host": host, "login": "ci" if password else "", "password": password}
    monkeypatch.setenv("AIRFLOW_CONN_DVC_DEFAULT", json.dumps({**connection, "extra": extra}))


def keep(source: Path, **kwargs: Any) -> DvcSnapshotOperator:
    """Give a task that keeps *source*."""
    arguments = {"task_id": "keep", "path": "data/flights", "message": "New data", **kwargs}
    return DvcSnapshotOperator(source=str(source), **arguments)


def test_a_snapshot_tells_its_version_to_its_assets(repository: GitDvcRepository, source: Path) -> None:
    """The version is the task's result and the extra of the asset event; the commit leads back to the task."""
    run = run_task(keep(source, tag="{{ 'v' ~ 1 }}", outlets=[Asset("flights")]))
    assert run.state == "success", run.log
    version = DataVersion.from_dict(run.result)
    assert (version.path, version.rev, version.nfiles) == ("data/flights", "v1", 1)
    assert [event["extra"] for event in run.asset_events] == [run.result]
    message = repository.git("log", "-1", "--format=%B", "v1", cwd=repository.bare)
    assert message.startswith("New data\n\nairflow.dag_id: ")


@pytest.mark.parametrize("tag", ["v1", ""])
def test_a_retry_of_a_snapshot_is_the_same_version(repository: GitDvcRepository, source: Path, tag: str) -> None:
    """The second try finds what the first one kept, and does not take it for data that was there before."""
    memory = DagRunMemory()
    first = run_task(keep(source, tag=tag, outlets=[Asset("flights")]), memory=memory)
    second = run_task(keep(source, tag=tag, outlets=[Asset("flights")]), memory=memory, try_number=2)
    assert first.result == second.result
    assert first.asset_events[0]["extra"] == second.asset_events[0]["extra"] == first.result


def test_unchanged_data_starts_nothing(repository: GitDvcRepository, source: Path) -> None:
    """Bytes that are the newest version already skip the task and its events, unless it is told to go on."""
    first = run_task(keep(source))
    again = run_task(keep(source, outlets=[Asset("flights")]))
    assert (again.state, again.asset_events) == ("skipped", [])
    anyway = run_task(keep(source, on_unchanged="continue", outlets=[Asset("flights")]))
    assert anyway.result["commit"] == first.result["commit"]
    assert len(anyway.asset_events) == 1
    wrong = run_task(keep(source, on_unchanged="stop"))
    assert "'stop'" in str(wrong.error)


def test_a_taken_tag_is_a_conflict(repository: GitDvcRepository, source: Path) -> None:
    """Other bytes under the same tag end the task."""
    run_task(keep(source, tag="v1"))
    (source / "a.csv").write_text("other")
    assert isinstance(run_task(keep(source, tag="v1")).error, ConflictError)


def test_materialise_brings_the_version(repository: GitDvcRepository, source: Path) -> None:
    """The result names the version and the place; a second task shares the place; code comes from the same commit."""
    kept = run_task(keep(source, tag="v1"))
    repository.commit({"train.py": "print(1)\n"}, "Code")
    fetch = DvcMaterialiseOperator(task_id="fetch", path="data/flights", rev="{{ params.rev }}", params={"rev": "v1"})
    run = run_task(fetch)
    assert run.result["version"] == kept.result
    assert (Path(run.result["path"]) / "a.csv").read_text() == "x\n1\n"
    newest = DvcMaterialiseOperator(task_id="fetch", path="data/flights", export_code=True)
    again = run_task(newest)
    assert again.result["path"] == run.result["path"]
    assert (Path(again.result["code"]) / "train.py").read_text() == "print(1)\n"
    assert run_task(newest, try_number=2).result == again.result


def test_materialise_takes_the_version_that_triggered_the_run(repository: GitDvcRepository, source: Path) -> None:
    """A run that an asset event started uses the version in that event, not a newer one; other events are passed by."""
    first = run_task(keep(source, outlets=[Asset("flights")]))
    (source / "a.csv").write_text("newer")
    run_task(keep(source))
    events = [
        {"name": "flights", "uri": "flights", "extra": first.result},
        {"name": "other", "uri": "other", "extra": {"path": "data/flights"}},
    ]
    run = run_task(DvcMaterialiseOperator(task_id="fetch", path="data/flights"), memory=DagRunMemory(consumed=events))
    assert run.state == "success", run.log
    assert run.result["version"]["digest"] == first.result["digest"]


def test_unknown_revision_is_final(repository: GitDvcRepository, source: Path) -> None:
    """A revision that does not exist is not tried again, and the message has a close one."""
    run_task(keep(source, tag="release-1"))
    run = run_task(DvcMaterialiseOperator(task_id="fetch", path="data/flights", rev="relaese-1", retries=3))
    assert (run.state, type(run.error)) == ("failed", NotFoundError)
    assert "did you mean 'release-1'" in str(run.error)


def test_missing_objects_are_final(repository: GitDvcRepository, source: Path, tmp_path: Path) -> None:
    """Bytes that are not on the remote are not tried again."""
    kept = run_task(keep(source))
    repository.lose(DataVersion.from_dict(kept.result))
    shutil.rmtree(tmp_path / "worker" / "cache")
    run = run_task(DvcMaterialiseOperator(task_id="fetch", path="data/flights", retries=3))
    assert (run.state, type(run.error)) == ("failed", IntegrityError)


def test_a_repository_that_is_away_is_tried_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A server that does not answer is worth a retry, and the password is nowhere in the log."""
    connect(monkeypatch, "http://127.0.0.1:9/x.git", password="s3cr3t-pass", workdir=str(tmp_path))
    run = run_task(DvcMaterialiseOperator(task_id="fetch", path="data/flights", retries=1))
    assert run.state == "up_for_retry"
    assert "s3cr3t-pass" not in run.log + str(run.error)


def test_connections(repository: GitDvcRepository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A connection can be tried out; a typo in an extra, a missing host and wrong options are refused by name."""
    assert DvcHook().test_connection() == (True, "Connected to the repository; its default branch is 'main'.")
    connect(monkeypatch, str(tmp_path / "nowhere"), workdir=str(tmp_path / "w"))
    works, said = DvcHook().test_connection()
    assert not works
    assert "nowhere" in said
    for host, extra, says in [
        (repository.address, {"workdri": "x"}, "did you mean 'workdir'"),
        (repository.address, {"remote_options": "x"}, "not an object"),
        ("", {}, "has no host"),
    ]:
        connect(monkeypatch, host, **extra)
        with pytest.raises(InvalidSpecError, match=says):
            DvcHook().get_store()
