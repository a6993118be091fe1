"""What every pipeline backend must do: one suite for ours and for strangers'.

Subclass :class:`PipelineBackendContract` in a test module, with a ``backend`` fixture and a ``spec`` method that wraps
a shell script into a pipeline of one task. It needs no Airflow.
"""

from __future__ import annotations

from typing import Any

import pytest

from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.testing.job_backend import OWNER, JobBackendContract
from airflow_mlops.training.pipelines.contract import PipelineBackend, PipelineSpec


class PipelineBackendContract(JobBackendContract):
    """The promises of :class:`~airflow_mlops.training.contract.PipelineBackend`. Override what a platform needs."""

    def spec(self, script: str, **fields: Any) -> PipelineSpec:
        """Return a spec of a pipeline with one task, which runs a shell script."""
        raise NotImplementedError("Give a method called 'spec'.")

    def test_it_keeps_the_protocol(self, backend: PipelineBackend) -> None:
        """A backend has all verbs and its name."""
        assert isinstance(backend, PipelineBackend)
        assert backend.name

    def test_the_result_names_every_task(self, backend: PipelineBackend, name: str) -> None:
        """What a run leaves behind tells the state of its tasks, in the platform's words."""
        handle, _ = self.ended(backend, name, "true")
        assert len(backend.collect(handle).tasks) == 1

    def test_unknown_parameters_are_refused_before_anything_starts(self, backend: PipelineBackend, name: str) -> None:
        """A parameter that the pipeline does not declare is an error that names it, and no run is left behind."""
        with pytest.raises(InvalidSpecError, match="no_such_parameter"):
            backend.submit(self.spec("true", parameters={"no_such_parameter": 1}), name=name, owner=OWNER)
        assert backend.locate(name) is None
