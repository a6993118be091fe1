"""Our own data stores keep the contract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_mlops.core.refs import DataVersion
from airflow_mlops.data.stores.dvc import DvcStore
from airflow_mlops.testing.data_store import DataStoreContract
from airflow_mlops.testing.git_dvc import GitDvcRepository


class TestDvcStore(DataStoreContract):
    """DVC over a git repository and a remote in folders."""

    @pytest.fixture
    def repository(self, tmp_path: Path) -> GitDvcRepository:
        """Give a repository with a remote."""
        return GitDvcRepository(tmp_path / "server")

    @pytest.fixture
    def another_store(self, repository: GitDvcRepository, tmp_path: Path) -> Callable[[], DvcStore]:
        """Give a maker of stores with a work directory each."""
        numbers = iter(range(100))
        return lambda: DvcStore(repository.address, workdir=tmp_path / f"worker-{next(numbers)}")

    @pytest.fixture
    def store(self, another_store: Callable[[], DvcStore]) -> DvcStore:
        """Give one of them."""
        return another_store()

    @pytest.fixture
    def lose(self, repository: GitDvcRepository) -> Callable[[DataVersion], None]:
        """Delete an object from the remote."""
        return repository.lose
