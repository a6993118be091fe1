"""What every pipeline backend promises: a compiled pipeline in, one run out. The rest is the contract of all jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from airflow_mlops.core.records import Record
from airflow_mlops.training.contract import JobBackend, JobHandle, spec_digest


@dataclass(frozen=True)
class PipelineSpec(Record):
    """One run of a pipeline that the platform itself orchestrates. It holds names of secrets, never their values.

    :param pipeline: the compiled pipeline as a mapping, or the platform's own name of one that it already has
    :param parameters: runtime parameters by name
    :param max_runtime: seconds after which the run is stopped from here; ``None`` for no limit
    :param options: the platform's own further fields; an unknown one is refused
    """

    pipeline: Mapping[str, Any] | str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    max_runtime: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def digest(self) -> str:
        """Return ``sha256:<hex>`` of the spec: two specs are the same run only if their digests agree."""
        return spec_digest(self)


@dataclass(frozen=True)
class PipelineResult(Record):
    """What a pipeline run that succeeded leaves behind.

    :param tasks: task of the pipeline -> its state, in the platform's words
    :param outputs: what the platform tells about outputs, by name
    """

    job: JobHandle
    tasks: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class PipelineBackend(JobBackend[PipelineSpec, PipelineResult], Protocol):
    """A platform that runs compiled pipelines."""
