"""A model's files: registered with a digest, fetched complete and checked, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.core.digests import combined_digest, file_digest, folder_digest
from airflow_mlops.core.errors import IntegrityError, InvalidSpecError, NotFoundError
from airflow_mlops.registry.attempts import REMEMBERED, count_attempt, counted
from airflow_mlops.registry.registries.mlflow import MLflowRegistry

LogModel = Callable[[bytes], tuple[str, str]]
FILES = st.dictionaries(
    st.text("ab/ \n", min_size=1), st.text("0123456789abcdef", min_size=64, max_size=64), min_size=1
)


@given(FILES, st.randoms())
def test_the_digest_ignores_order_and_sees_every_change(files: dict[str, str], random: object) -> None:
    """The order of files does not count; a file that is gone, renamed or changed does."""
    pairs = list(files.items())
    digest = combined_digest(pairs)
    random.shuffle(pairs)  # type: ignore[attr-defined]
    assert combined_digest(pairs) == digest
    path, content = pairs[0]
    rest = pairs[1:]
    others = [[*rest, (path + "x", content)], [*rest, (path, content[::-1] + "0")], [*pairs, ("new", content)]]
    assert all(combined_digest(other) != digest for other in others)


def test_a_folder_has_the_digest_that_was_registered(
    registry: MLflowRegistry, log_model: LogModel, name: str, tmp_path: Path
) -> None:
    """What is fetched has the digest recorded at registration, computed from the folder alone."""
    uri, run_id = log_model(b"weights")
    model = registry.register(name, uri, run_id=run_id, tags={})
    folder = registry.fetch(model, tmp_path / "deep" / "model")
    assert folder_digest(folder) == model.digest
    assert (folder / "data" / "weights.bin").read_bytes() == b"weights"
    assert registry.fetch(model, folder) == folder, "files that are there already are kept"
    assert [path.name for path in folder.parent.iterdir()] == ["model"], "no scratch is left"


def test_changed_files_are_not_handed_out(
    registry: MLflowRegistry, log_model: LogModel, name: str, tmp_path: Path
) -> None:
    """Files that changed at the server or here are refused, and nothing appears."""
    uri, run_id = log_model(b"good")
    model = registry.register(name, uri, run_id=run_id, tags={})
    where = registry.client.run(run_id)["info"]["artifact_uri"]
    registry.client.artifacts.write(f"{where}/model/data/weights.bin", b"evil")
    with pytest.raises(IntegrityError, match=model.digest):
        registry.fetch(model, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "MLmodel").write_text("mine")
    with pytest.raises(IntegrityError, match="the files at"):
        registry.fetch(model, tmp_path / "model")


def test_links_and_empty_folders_have_no_digest(tmp_path: Path) -> None:
    """A link could change its target unseen, and an empty folder is a download that went wrong."""
    with pytest.raises(IntegrityError, match="no file"):
        folder_digest(tmp_path)
    (tmp_path / "link").symlink_to("/etc/hostname")
    with pytest.raises(IntegrityError, match="symbolic link"):
        folder_digest(tmp_path)


def test_a_file_has_the_digest_dvc_gives_it(tmp_path: Path) -> None:
    """MD5 of the bytes, with its name in front."""
    (tmp_path / "a").write_bytes(b"hello")
    assert file_digest(tmp_path / "a", "md5") == "md5:5d41402abc4b2a76b9719d911017c592"


def test_tags_and_aliases_of_a_version(registry: MLflowRegistry, log_model: LogModel, name: str) -> None:
    """What became known later is kept as tags; the guarded aliases move by promotion alone."""
    uri, run_id = log_model(b"x")
    version = registry.register(name, uri, run_id=run_id, tags={}).version
    registry.set_version_tags(name, version, {"mlops.drift.verdict": "pass"})
    registry.set_alias(name, "candidate", version)
    found = registry.resolve(name, "candidate")
    assert found.tags["mlops.drift.verdict"] == "pass"
    for alias in ("champion", "previous"):
        with pytest.raises(InvalidSpecError, match="promote"):
            registry.set_alias(name, alias, version)


def test_a_model_without_files_is_not_registered(registry: MLflowRegistry, name: str) -> None:
    """A run without the model is answered with what it has."""
    client = registry.client
    run_id = client.create_run(client.experiment_id("registry-tests"), "empty")["info"]["run_id"]
    with pytest.raises(NotFoundError, match="has no model 'model'"):
        registry.register(name, f"runs:/{run_id}/model", run_id=run_id, tags={})


@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=20))
def test_every_decision_has_one_number(decisions: list[str]) -> None:
    """The same decision keeps its number, a new one gets the next, and a new champion starts at one."""
    ledger, numbers = "", {}
    for decision in decisions:
        ledger, numbers[decision] = counted(ledger, "1", decision)
        assert counted(ledger, "1", decision) == (ledger, numbers[decision])
    assert sorted(numbers.values()) == list(range(1, len(numbers) + 1))
    assert counted(ledger, "2", decisions[0])[1] == 1


def test_the_count_goes_on_when_the_ledger_is_full() -> None:
    """Old decisions are forgotten, their number is not."""
    ledger = ""
    for turn in range(REMEMBERED + 20):
        ledger, attempt = counted(ledger, "1", f"{turn:016}")
    assert attempt == REMEMBERED + 20
    assert len(json.loads(ledger)["decisions"]) == REMEMBERED
    assert len(ledger) < 5000


def test_the_count_is_kept_with_the_model(registry: MLflowRegistry, log_model: LogModel, name: str) -> None:
    """Two decisions about one champion are the first and the second, also for another client."""
    uri, run_id = log_model(b"y")
    registry.register(name, uri, run_id=run_id, tags={})
    numbers = [count_attempt(registry.client, name, champion="1", decision=word) for word in ("a", "b", "a")]
    assert numbers == [1, 2, 1]
