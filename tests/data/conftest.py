"""A git repository with a DVC remote, and a store over it."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_mlops.data.stores.dvc import DvcStore
from airflow_mlops.testing.git_dvc import GitDvcRepository


@pytest.fixture
def repository(tmp_path: Path) -> GitDvcRepository:
    """Give a repository with a remote, both in folders."""
    return GitDvcRepository(tmp_path / "server")


@pytest.fixture
def store(repository: GitDvcRepository, tmp_path: Path) -> DvcStore:
    """Give a store of one worker."""
    return DvcStore(repository.address, workdir=tmp_path / "worker")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with two files."""
    root = tmp_path / "flights"
    root.mkdir()
    (root / "a.csv").write_text("x\n1\n")
    (root / "b.csv").write_text("x\n2\n")
    return root
