"""What every data store must do. Subclass :class:`DataStoreContract` in a test and give it its fixtures."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from airflow_mlops.core.errors import ConflictError, IntegrityError, NotFoundError
from airflow_mlops.core.refs import DataVersion
from airflow_mlops.data.contract import DataStore


class DataStoreContract:
    """The promises of :class:`~airflow_mlops.data.contract.DataStore`.

    A subclass gives the fixtures ``store`` (an empty store), ``another_store`` (makes a store over the same place that
    shares nothing on this machine) and ``lose`` (makes bytes of a version vanish from the place they are kept).
    """

    @pytest.fixture
    def store(self) -> DataStore:
        """Give an empty store."""
        raise NotImplementedError

    @pytest.fixture
    def another_store(self) -> Callable[[], DataStore]:
        """Give a maker of stores that share nothing but what is kept."""
        raise NotImplementedError

    @pytest.fixture
    def lose(self) -> Callable[[DataVersion], None]:
        """Give a function that makes bytes of a version vanish."""
        raise NotImplementedError

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """Give a small folder of data: two files alike, one nested, one empty."""
        root = tmp_path / "source" / "flights"
        for name, text in {"a.csv": "x\n1\n", "b.csv": "x\n1\n", "deep/ö c.csv": "y\n2\n", "empty": ""}.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        return root

    def test_is_a_data_store(self, store: DataStore) -> None:
        """A store has every verb of the contract."""
        assert isinstance(store, DataStore)

    def test_what_was_kept_comes_back(
        self, store: DataStore, another_store: Callable[[], DataStore], folder: Path, tmp_path: Path
    ) -> None:
        """A folder that was kept on one machine is byte for byte the same on another."""
        version = store.snapshot(folder, "data/flights", message="Keep", tag="v1")
        other = another_store()
        assert other.resolve("data/flights", "v1") == version
        to = other.materialise(version, tmp_path / "there" / "flights")
        assert _content(to) == _content(folder)
        assert (version.nfiles, version.size) == (4, 12)
        assert version.digest.startswith("md5:")

    def test_single_file(self, store: DataStore, another_store: Callable[[], DataStore], tmp_path: Path) -> None:
        """A single file is a version too."""
        source = tmp_path / "one.csv"
        source.write_text("x\n1\n")
        version = store.snapshot(source, "data/one.csv", message="Keep")
        to = another_store().materialise(version, tmp_path / "there.csv")
        assert to.read_text() == "x\n1\n"
        assert (version.nfiles, version.size) == (1, 4)

    def test_old_versions_stay(self, store: DataStore, folder: Path, tmp_path: Path) -> None:
        """A newer version does not change what an older revision means."""
        first = store.snapshot(folder, "data/flights", message="First", tag="v1")
        (folder / "a.csv").write_text("x\n9\n")
        second = store.snapshot(folder, "data/flights", message="Second", tag="v2")
        assert first.digest != second.digest
        assert store.resolve("data/flights", "v1") == first
        assert (store.materialise(first, tmp_path / "old") / "a.csv").read_text() == "x\n1\n"
        assert (store.materialise(second, tmp_path / "new") / "a.csv").read_text() == "x\n9\n"

    def test_materialise_twice_keeps_the_files(self, store: DataStore, folder: Path, tmp_path: Path) -> None:
        """Bytes that are there already are kept, not written again."""
        version = store.snapshot(folder, "data/flights", message="Keep")
        to = store.materialise(version, tmp_path / "there")
        inode = (to / "a.csv").stat().st_ino
        assert store.materialise(version, tmp_path / "there") == to
        assert (to / "a.csv").stat().st_ino == inode

    def test_a_write_reaches_nobody_else(self, store: DataStore, folder: Path, tmp_path: Path) -> None:
        """What one task writes into its copy is not seen in another's."""
        version = store.snapshot(folder, "data/flights", message="Keep")
        mine = store.materialise(version, tmp_path / "mine")
        (mine / "a.csv").chmod(0o644)
        (mine / "a.csv").write_text("spoilt")
        assert (store.materialise(version, tmp_path / "yours") / "a.csv").read_text() == "x\n1\n"
        assert (folder / "a.csv").read_text() == "x\n1\n"

    def test_a_retry_finds_its_tag(self, store: DataStore, folder: Path) -> None:
        """The same bytes under the same tag are the same version."""
        first = store.snapshot(folder, "data/flights", message="Keep", tag="v1")
        assert store.snapshot(folder, "data/flights", message="Keep again", tag="v1") == first

    def test_a_tag_never_moves(self, store: DataStore, folder: Path) -> None:
        """A tag that names other bytes is a conflict, and stays what it was."""
        first = store.snapshot(folder, "data/flights", message="Keep", tag="v1")
        (folder / "a.csv").write_text("other")
        with pytest.raises(ConflictError, match="'v1'"):
            store.snapshot(folder, "data/flights", message="Keep", tag="v1")
        assert store.resolve("data/flights", "v1") == first

    def test_unknown_revision(self, store: DataStore, folder: Path) -> None:
        """An unknown revision is refused with a close one."""
        store.snapshot(folder, "data/flights", message="Keep", tag="release-1")
        with pytest.raises(NotFoundError, match="did you mean 'release-1'"):
            store.resolve("data/flights", "relaese-1")

    def test_unknown_path(self, store: DataStore, folder: Path) -> None:
        """An unknown path is refused with a close one."""
        store.snapshot(folder, "data/flights", message="Keep", tag="v1")
        with pytest.raises(NotFoundError, match="did you mean 'data/flights'"):
            store.resolve("data/fligths", "v1")

    def test_missing_bytes(
        self,
        store: DataStore,
        another_store: Callable[[], DataStore],
        lose: Callable[[DataVersion], None],
        folder: Path,
        tmp_path: Path,
    ) -> None:
        """When bytes are missing, nothing appears and the error names the data."""
        version = store.snapshot(folder, "data/flights", message="Keep", tag="v1")
        lose(version)
        with pytest.raises(IntegrityError, match="data/flights"):
            another_store().materialise(version, tmp_path / "there")
        assert not (tmp_path / "there").exists()

    def test_concurrent_materialise(
        self, store: DataStore, another_store: Callable[[], DataStore], folder: Path, tmp_path: Path
    ) -> None:
        """Many tasks may ask for one version at once: into one place, and each into its own."""
        version = store.snapshot(folder, "data/flights", message="Keep")
        other = another_store()
        places = [tmp_path / "shared", tmp_path / "shared", tmp_path / "one", tmp_path / "two"]
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda to: _content(other.materialise(version, to)), places))
        assert found == [_content(folder)] * 4

    def test_concurrent_snapshots(
        self, store: DataStore, another_store: Callable[[], DataStore], folder: Path, tmp_path: Path
    ) -> None:
        """Writers of different paths all succeed, and none of them is lost."""
        names = [f"data/set-{number}" for number in range(3)]
        stores = [another_store() for _ in names]
        store.snapshot(folder, "data/flights", message="Start")
        for number, name in enumerate(names):
            shutil.copytree(folder, tmp_path / name)
            (tmp_path / name / "a.csv").write_text(str(number))
        with ThreadPoolExecutor(len(names)) as pool:
            kept = list(pool.map(lambda s, n: s.snapshot(tmp_path / n, n, message=n), stores, names))
        found = [store.resolve(name, "HEAD") for name in names]
        assert [v.digest for v in found] == [v.digest for v in kept]


def _content(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
