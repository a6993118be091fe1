"""What the DVC store promises beyond the contract of all stores."""

from __future__ import annotations

import dataclasses
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from airflow_mlops.core.errors import (
    ConflictError,
    IntegrityError,
    InvalidSpecError,
    NotFoundError,
    UnsupportedFeatureError,
)
from airflow_mlops.data.stores.dvc import DvcStore
from airflow_mlops.testing.git_dvc import GitDvcRepository


def test_dvc_itself_can_read_what_we_keep(
    repository: GitDvcRepository, store: DvcStore, folder: Path, tmp_path: Path
) -> None:
    """A person with a clone and the real DVC gets the same files, and git does not track them."""
    from dvc.repo import Repo

    store.snapshot(folder, "data/flights", message="Keep")
    repository.git("clone", "-q", repository.address, str(tmp_path / "clone"))
    with Repo(str(tmp_path / "clone")) as repo:
        repo.pull()
    assert (tmp_path / "clone" / "data" / "flights" / "b.csv").read_text() == "x\n2\n"
    assert repository.git("status", "--porcelain", cwd=tmp_path / "clone") == ""


def test_we_can_read_what_dvc_itself_keeps(
    repository: GitDvcRepository, store: DvcStore, folder: Path, tmp_path: Path
) -> None:
    """A version a person made with DVC has the digest we would give it."""
    from dvc.repo import Repo

    shutil.copytree(folder, repository.work / "data" / "flights")
    with Repo(str(repository.work)) as repo:
        repo.add(str(repository.work / "data" / "flights"))
        repo.push()
    pointer = (repository.work / "data" / "flights.dvc").read_text()
    repository.commit({"data/flights.dvc": pointer}, "By hand", tag="by-hand")
    version = store.resolve("data/flights", "by-hand")
    assert (store.materialise(version) / "a.csv").read_text() == "x\n1\n"
    again = store.snapshot(folder, "data/flights", message="Nothing new")
    assert (again.digest, again.commit) == (version.digest, version.commit)


def test_resolve_downloads_no_data(repository: GitDvcRepository, store: DvcStore, folder: Path, tmp_path: Path) -> None:
    """Naming a version needs no object, neither from the cache nor from the remote."""
    version = store.snapshot(folder, "data/flights", message="Keep", tag="v1")
    shutil.rmtree(repository.remote)
    fresh = DvcStore(repository.address, workdir=tmp_path / "fresh")
    assert fresh.resolve("data/flights", "v1") == version
    assert not fresh.cache_dir.exists()


def test_every_way_to_name_a_revision(repository: GitDvcRepository, store: DvcStore, folder: Path) -> None:
    """Branch, annotated tag, full id, short id of an old commit and HEAD all lead to their commit."""
    version = store.snapshot(folder, "data/flights", message="Keep", tag="v1")
    newer = repository.commit({"README": "hello"}, "Readme", tag="annotated")
    for rev in ("v1", version.commit, version.commit[:9]):
        assert store.resolve("data/flights", rev).commit == version.commit, rev
    for rev in ("main", "HEAD", "refs/heads/main", "annotated"):
        assert store.resolve("data/flights", rev).commit == newer, rev


@pytest.mark.parametrize("rev", ["0" * 40, "abcdef1", "-x", "--upload-pack=touch", ""])
def test_revisions_that_are_none(store: DvcStore, rev: str) -> None:
    """What is not a revision is not found, and never taken as an option of git."""
    with pytest.raises(NotFoundError, match="has no revision"):
        store.resolve("data/flights", rev)


def test_missing_object_is_named(repository: GitDvcRepository, store: DvcStore, folder: Path, tmp_path: Path) -> None:
    """When one file of a folder is missing from the remote, the error names that file."""
    version = store.snapshot(folder, "data/flights", message="Keep")
    one = store.snapshot(folder / "b.csv", "data/one", message="Keep")
    repository.lose(one)
    fresh = DvcStore(repository.address, workdir=tmp_path / "fresh")
    with pytest.raises(IntegrityError, match=r"1 of 2 objects of 'data/flights'.*b\.csv"):
        fresh.materialise(version, tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_damaged_remote_is_found(repository: GitDvcRepository, store: DvcStore, folder: Path, tmp_path: Path) -> None:
    """An object of the right length with other bytes is not handed out."""
    version = store.snapshot(folder, "data/flights", message="Keep")
    one = store.snapshot(folder / "b.csv", "data/one", message="Keep")
    path = repository.object_path(one.digest)
    path.chmod(0o644)
    path.write_text("x\n3\n")
    path.chmod(0o444)
    fresh = DvcStore(repository.address, workdir=tmp_path / "fresh")
    with pytest.raises(IntegrityError, match="differ from their md5"):
        fresh.materialise(version, tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_damaged_cache_heals(store: DvcStore, folder: Path, tmp_path: Path) -> None:
    """A damaged object in the cache is fetched again."""
    version = store.snapshot(folder / "b.csv", "data/one", message="Keep")
    oid = version.digest.removeprefix("md5:")
    cached = store.cache_dir / "files" / "md5" / oid[:2] / oid[2:]
    cached.chmod(0o644)
    cached.write_text("y\n2\n")
    assert store.materialise(version, tmp_path / "there").read_text() == "x\n2\n"


def test_a_place_with_other_bytes_is_left_alone(store: DvcStore, folder: Path, tmp_path: Path) -> None:
    """A folder that holds something else is neither overwritten nor added to."""
    version = store.snapshot(folder, "data/flights", message="Keep")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine.txt").write_text("mine")
    with pytest.raises(InvalidSpecError, match=r"holds other bytes, for example 'a\.csv'"):
        store.materialise(version, tmp_path / "there")
    assert os.listdir(tmp_path / "there") == ["mine.txt"]


def test_a_list_that_leads_out_of_the_folder_is_refused(
    repository: GitDvcRepository, store: DvcStore, tmp_path: Path
) -> None:
    """A hostile list of files cannot write beside the folder it describes."""
    import hashlib

    text = '[{"md5": "b026324c6904b2a9cb4b88d6d61c81d1", "relpath": "../evil.csv"}]'
    oid = hashlib.md5(text.encode()).hexdigest() + ".dir"
    path = repository.object_path(oid)
    path.parent.mkdir(parents=True)
    path.write_text(text)
    pointer = f"outs:\n- md5: {oid}\n  size: 2\n  nfiles: 1\n  hash: md5\n  path: x\n"
    repository.commit({"x.dvc": pointer}, "Evil")
    with pytest.raises(IntegrityError, match="outside of its folder"):
        store.materialise(store.resolve("x", "main"), tmp_path / "to" / "x")
    assert not (tmp_path / "to" / "evil.csv").exists()


def test_a_version_with_a_wrong_digest_is_refused(store: DvcStore, folder: Path) -> None:
    """A digest that is not one of DVC's never becomes part of a path."""
    version = store.snapshot(folder, "data/flights", message="Keep")
    with pytest.raises(InvalidSpecError, match="not a digest"):
        store.materialise(dataclasses.replace(version, digest="md5:../../x"))


def test_the_same_path_changed_by_two_is_a_conflict(repository: GitDvcRepository, folder: Path, tmp_path: Path) -> None:
    """Of two writers of different bytes to one path at once, exactly one wins, and the other is told."""
    starts = [DvcStore(repository.address, workdir=tmp_path / f"worker-{n}") for n in range(2)]
    base = starts[0].git.commit_of("main")
    objects = [store._objects(base) for store in starts]
    pointers = [objects[0].keep(folder / "a.csv"), objects[1].keep(folder / "b.csv")]
    for kept, pointer in zip(objects, pointers, strict=True):
        kept.push(pointer.oid)

    def publish(number: int) -> str:
        try:
            return (
                starts[number]
                ._publish("data/x", pointers[number], message="m", tag=None, branch="refs/heads/main", start=base)
                .digest
            )
        except ConflictError as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        said = sorted(pool.map(publish, range(2)))
    assert "was changed by commit" in said[0]
    assert said[1] in {pointer.digest for pointer in pointers}


def test_same_tag_at_once(repository: GitDvcRepository, folder: Path, tmp_path: Path) -> None:
    """Two runs of one task keep one version: same tag, same commit."""
    stores = [DvcStore(repository.address, workdir=tmp_path / f"worker-{n}") for n in range(3)]
    with ThreadPoolExecutor(3) as pool:
        kept = list(pool.map(lambda s: s.snapshot(folder, "data/flights", message="Keep", tag="v1"), stores))
    assert kept[0] == kept[1] == kept[2]


def test_nothing_to_keep(store: DvcStore, tmp_path: Path) -> None:
    """An empty or absent source is refused, and nothing is committed."""
    (tmp_path / "empty").mkdir()
    before = store.git.commit_of("main")
    for source in (tmp_path / "empty", tmp_path / "absent"):
        with pytest.raises(InvalidSpecError, match="holds no file"):
            store.snapshot(source, "data/x", message="Keep")
    assert store.git.commit_of("main") == before


@pytest.mark.parametrize("path", ["", ".", "/etc/passwd", "../x", "a/../../x", "-rf"])
def test_paths_that_lead_out_are_refused(store: DvcStore, path: str) -> None:
    """A path outside of the repository is refused by name."""
    with pytest.raises(InvalidSpecError, match="not a path inside"):
        store.resolve(path, "main")


def test_programs_in_the_configuration_are_refused(repository: GitDvcRepository, store: DvcStore, folder: Path) -> None:
    """A repository cannot make a worker run a program through its DVC configuration."""
    config = (
        "[core]\n remote = x\n['remote \"x\"']\n url = webdavs://127.0.0.1/x\n bearer_token_command = touch /tmp/x\n"
    )
    repository.commit({".dvc/config": config}, "Evil")
    with pytest.raises(InvalidSpecError, match="runs a program"):
        store.snapshot(folder, "data/flights", message="Keep")


@pytest.mark.parametrize(
    ("config", "says"),
    [("", "names no default"), ("[core]\n remote = x\n['remote \"x\"']\n url = ../x\n", "relative to a checkout")],
)
def test_remotes_that_cannot_be_used(
    repository: GitDvcRepository, store: DvcStore, folder: Path, tmp_path: Path, config: str, says: str
) -> None:
    """A repository without a usable remote is refused, and the extra 'remote_url' takes its place."""
    repository.commit({".dvc/config": config}, "Broken")
    with pytest.raises(InvalidSpecError, match=says):
        store.snapshot(folder, "data/flights", message="Keep")
    other = DvcStore(repository.address, workdir=tmp_path / "w2", remote_url=str(tmp_path / "elsewhere"))
    assert other.materialise(other.snapshot(folder, "data/flights", message="Keep")).name == "flights"
    assert (tmp_path / "elsewhere" / "files" / "md5").is_dir()


def test_old_pointers_are_refused(repository: GitDvcRepository, store: DvcStore) -> None:
    """A pointer of DVC 2 is refused with the command that migrates it."""
    repository.commit({"x.dvc": f"outs:\n- md5: {'0' * 32}\n  size: 2\n  path: x\n"}, "Old")
    with pytest.raises(UnsupportedFeatureError, match="dvc cache migrate"):
        store.resolve("x", "main")


def test_files_of_git_itself(repository: GitDvcRepository, store: DvcStore, tmp_path: Path) -> None:
    """Suites and scripts are read at the commit that was asked for, alone or all together."""
    first = repository.commit({"suites/flights.json": "{}", "src/train.py": "print(1)\n"}, "Code", tag="code-1")
    repository.commit({"suites/flights.json": "[]"}, "Changed")
    assert store.read_file("suites/flights.json", "code-1") == "{}"
    assert store.read_file("suites/flights.json", "main") == "[]"
    with pytest.raises(NotFoundError, match=r"did you mean 'suites/flights\.json'"):
        store.read_file("suites/flight.json", "main")
    to = store.export("code-1", tmp_path / "code")
    assert (to / "src" / "train.py").read_text() == "print(1)\n"
    assert store.export(first, tmp_path / "code") == to
    (to / "src" / "train.py").write_text("print(2)\n")
    with pytest.raises(InvalidSpecError, match="holds other files"):
        store.export("code-1", tmp_path / "code")


def test_no_dvc_repository_at_all(tmp_path: Path) -> None:
    """An address without a repository is not found, and not tried again."""
    store = DvcStore(str(tmp_path / "nowhere"), workdir=tmp_path / "worker")
    with pytest.raises(NotFoundError, match="nowhere"):
        store.ping()


def test_a_new_version_stays_where_the_old_one_had_to(
    store: DvcStore, repository: GitDvcRepository, folder: Path
) -> None:
    """A residency that a person wrote into the pointer is told by resolve and kept by every later snapshot."""
    store.snapshot(folder, "data/flights", message="First")
    pointer = repository.git("show", "main:data/flights.dvc", cwd=repository.bare)
    repository.commit({"data/flights.dvc": f"{pointer}\n  meta: {{residency: On-Prem}}\n"}, "It stays here")
    assert store.resolve("data/flights").residency == "on-prem"
    same = store.snapshot(folder, "data/flights", message="The same bytes", tag="v1")
    (folder / "c.csv").write_text("x\n3\n")
    other = store.snapshot(folder, "data/flights", message="Second", tag="v2")
    again = store.snapshot(folder, "data/flights", message="Second", tag="v2")
    assert (same.residency, other.residency, again.residency) == ("on-prem",) * 3
    assert store.resolve("data/flights") == dataclasses.replace(other, rev="HEAD")
