"""What every tuning backend promises: a platform's own parameter search in, the best trial out.

The rest is the contract of all jobs. A search that needs no platform is ``airflow_mlops.groups.sweep``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from airflow_mlops.core.records import Record
from airflow_mlops.training.contract import JobBackend, JobHandle, TrainingResult, TrainingSpec, spec_digest


@dataclass(frozen=True)
class TuningSpec(Record):
    """One search that the platform itself runs. It holds names of secrets, never their values.

    :param training: what every trial runs; its parameters are the fixed ones
    :param space: what is searched, as :func:`~airflow_mlops.training.search_space.read_space` reads it
    :param metric: name of the metric that every trial reports in ``MLOPS_OUTPUT``
    :param direction: ``maximize`` or ``minimize``
    :param max_trials: how many trials there are at most
    :param parallel_trials: how many run at the same time
    :param max_runtime: seconds after which the whole search is stopped; ``None`` for no limit
    :param options: the platform's own further fields; an unknown one is refused
    """

    training: TrainingSpec
    space: Mapping[str, Any]
    metric: str
    direction: str = "maximize"
    max_trials: int = 10
    parallel_trials: int = 2
    max_runtime: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def digest(self) -> str:
        """Return ``sha256:<hex>`` of the spec: two specs are the same search only if their digests agree."""
        return spec_digest(self)


@dataclass(frozen=True)
class TunedTrial(Record):
    """One trial as the platform tells of it.

    :param trial_id: the platform's id
    :param state: the platform's word
    :param parameters: what it was given, the fixed ones not
    :param value: the metric; ``None`` when it failed or was stopped
    """

    trial_id: str
    state: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    value: float | None = None


@dataclass(frozen=True)
class TuningResult(Record):
    """What a search leaves behind.

    :param best: what the best trial left behind, as a training job of its own would have
    :param parameters: all parameters of the best trial
    :param billed_seconds: seconds the platform bills for, all trials together; ``None`` where nobody tells
    """

    job: JobHandle
    best: TrainingResult
    parameters: Mapping[str, Any] = field(default_factory=dict)
    trials: tuple[TunedTrial, ...] = ()
    billed_seconds: float | None = None


@runtime_checkable
class TuningBackend(JobBackend[TuningSpec, TuningResult], Protocol):
    """A platform that searches parameters by itself.

    It refuses by name a space it cannot honour. The search succeeds when the platform says so and at least one trial
    has a value; the platform's own choice of the best trial is checked against the values.
    """
