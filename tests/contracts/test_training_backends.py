"""The training contract, kept by our own backend and by a stranger's."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_mlops.testing.training_backend import TrainingBackendContract
from airflow_mlops.training.backends.local import LocalBackend


class TestLocal(TrainingBackendContract):
    """Processes of this machine."""

    @pytest.fixture
    def backend(self, tmp_path: Path) -> LocalBackend:
        """Keep jobs in the test's own folder."""
        return LocalBackend(tmp_path / "jobs")
