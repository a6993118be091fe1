"""What every training backend promises: one spec in, one job out, whoever calls how often."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, TypeVar, runtime_checkable

from airflow_mlops.core.features import Feature
from airflow_mlops.core.identity import TaskIdentity, text_digest
from airflow_mlops.core.records import Record
from airflow_mlops.core.refs import DataVersion


class JobState(StrEnum):
    """The seven states that native words are mapped to. An unknown word is UNKNOWN, never success."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PREEMPTED = "preempted"
    UNKNOWN = "unknown"

    @property
    def terminal(self) -> bool:
        """Whether the job can no longer change. UNKNOWN is not terminal: we look again."""
        return self not in (JobState.PENDING, JobState.RUNNING, JobState.UNKNOWN)


class FailureReason(StrEnum):
    """Why a job is FAILED. It decides whether another try can help."""

    NONE = ""
    """The platform does not say. It counts as the program's own fault, which is never tried again."""
    USER_CODE = "user_code"
    """The program ended with an error."""
    OUT_OF_MEMORY = "out_of_memory"
    """The program needed more memory than its node gave it."""
    TIMEOUT = "timeout"
    """It ran longer than ``max_runtime``."""
    QUOTA = "quota"
    """The account may not use that much. It may later."""
    PLATFORM = "platform"
    """The platform's own fault: a node was lost, an image server did not answer."""


@dataclass(frozen=True)
class Resources(Record):
    """What one node of the job needs. ``None`` leaves it to the platform's default.

    :param cpus: processor cores
    :param memory_mib: memory in MiB
    :param gpus: number of accelerators
    :param instance_type: the platform's own machine name, where it has such names
    """

    cpus: float | None = None
    memory_mib: int | None = None
    gpus: int = 0
    instance_type: str = ""


@dataclass(frozen=True)
class TrainingSpec(Record):
    """Everything a platform has to know to run one training job. It holds names of secrets, never their values.

    :param image: container image; empty where the backend runs without one
    :param command: program and its fixed arguments
    :param args: further arguments
    :param env: plain environment variables
    :param secret_env: environment variable -> name of the secret that holds its value
    :param inputs: input name -> data version; the job sees ``MLOPS_INPUT_<NAME>``
    :param parameters: passed as ``--name value`` after ``args`` and logged to the tracking run
    :param nodes: number of machines; above 1 is distributed training
    :param spot: cheaper machines that may be taken away at any time
    :param checkpoint: where checkpoints go: a folder or address that is the same for all attempts that go on from each
        other; the job sees it as ``MLOPS_CHECKPOINT_DIR``
    :param max_runtime: seconds after which the platform ends the job; ``None`` for no limit
    :param options: the platform's own further fields; an unknown one is refused
    :param residency: the place the job may not leave; the inputs have theirs besides. No backend has to look at it:
        :func:`airflow_mlops.core.residency.require_residency` did before
    """

    command: tuple[str, ...]
    args: tuple[str, ...] = ()
    image: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    secret_env: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, DataVersion] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    resources: Resources = field(default_factory=Resources)
    nodes: int = 1
    spot: bool = False
    checkpoint: str = ""
    max_runtime: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    residency: str = ""

    def residencies(self) -> dict[str, str]:
        """Return what may not leave where it is, in words, and the place."""
        own = {"this job": self.residency} if self.residency else {}
        inputs = {f"input {name!r}": version.residency for name, version in self.inputs.items() if version.residency}
        return own | inputs

    def digest(self) -> str:
        """Return ``sha256:<hex>`` of the spec: two specs are the same job only if their digests agree."""
        return spec_digest(self)

    def features(self) -> tuple[Feature, ...]:
        """Return the optional abilities this spec asks of a backend."""
        used = {
            Feature.IMAGE: bool(self.image),
            Feature.NODES: self.nodes > 1,
            Feature.GPUS: self.resources.gpus > 0,
            Feature.SPOT: self.spot,
            Feature.CHECKPOINT: bool(self.checkpoint),
            Feature.SECRET_ENV: bool(self.secret_env),
            Feature.MAX_RUNTIME: self.max_runtime is not None,
        }
        return tuple(feature for feature, asked in used.items() if asked)


@dataclass(frozen=True)
class JobHandle(Record):
    """Where a job is. Enough to find it again from another machine.

    :param job_id: the platform's id, made from our stable name
    :param console_url: page or file where a person sees the job; empty when there is none
    """

    backend: str
    job_id: str
    console_url: str = ""


@dataclass(frozen=True)
class JobStatus(Record):
    """What a job is doing.

    :param native: the platform's own word for it
    :param detail: why, in the platform's words: the exit code, the last lines of the log
    :param progress: share done from 0 to 1, if the job tells
    :param reason: of a FAILED job, what kind of failure it is
    :param billed_seconds: seconds the platform bills for so far, all nodes together; ``None`` where it does not tell
    """

    state: JobState
    native: str = ""
    detail: str = ""
    progress: float | None = None
    reason: FailureReason = FailureReason.NONE
    billed_seconds: float | None = None


@dataclass(frozen=True)
class TrainingResult(Record):
    """What a finished job leaves behind.

    :param model_uri: the model it logged; empty when it logged none
    :param metrics: final metrics by name
    :param run_id: tracking run that holds parameters, metrics and artifacts
    :param data: the data versions it was trained on, by input name
    :param billed_seconds: seconds the platform bills for, all nodes together; ``None`` where it does not tell
    :param ran_seconds: seconds the job ran, all nodes together, where the platform bills fewer of them for a spot job
    :param cost: what it cost, as :class:`~airflow_mlops.training.cost.Cost` tells; empty without a price table
    """

    job: JobHandle
    model_uri: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    run_id: str = ""
    data: Mapping[str, DataVersion] = field(default_factory=dict)
    billed_seconds: float | None = None
    ran_seconds: float | None = None
    cost: Mapping[str, Any] = field(default_factory=dict)


class JobSpec(Protocol):
    """What the job driver has to know of any spec."""

    @property
    def max_runtime(self) -> float | None:
        """Seconds after which the platform ends the job."""
        ...

    def digest(self) -> str:
        """Return the spec's identity."""
        ...


Spec_contra = TypeVar("Spec_contra", bound=JobSpec, contravariant=True)
Result_co = TypeVar("Result_co", bound=Record, covariant=True)


@runtime_checkable
class JobBackend(Protocol[Spec_contra, Result_co]):
    """A platform that runs jobs of one kind. Every verb may be called twice with the same effect as once."""

    name: str

    def submit(self, spec: Spec_contra, *, name: str, owner: TaskIdentity) -> JobHandle:
        """Start the job called *name*, or find it. On return the platform has accepted it. Same name, same job.

        :raises UnsupportedFeatureError: the spec uses a field that the platform cannot honour
        :raises ConflictError: a job of that name exists with another spec
        """
        ...

    def locate(self, name: str) -> JobHandle | None:
        """Return the job called *name*, or ``None`` when the platform does not know it. It never starts one."""
        ...

    def observe(self, handles: Iterable[JobHandle]) -> Mapping[JobHandle, JobStatus]:
        """Look at many jobs at once. A job that the platform does not know is absent from the answer."""
        ...

    def cancel(self, handle: JobHandle) -> None:
        """Stop the job and all it started. A finished or absent job is left alone. On return the stop is ordered."""
        ...

    def collect(self, handle: JobHandle) -> Result_co:
        """Return what a succeeded job left behind."""
        ...

    def managed(self) -> Iterator[tuple[JobHandle, TaskIdentity]]:
        """Yield every job this package started here and the task that owns it."""
        ...


@runtime_checkable
class TrainingBackend(JobBackend[TrainingSpec, TrainingResult], Protocol):
    """A platform that runs training jobs.

    ``lacks`` says which fields of a spec it cannot honour, and why: they are refused by name.
    """

    lacks: Mapping[Feature, str]


@runtime_checkable
class HasLog(Protocol):
    """A backend that can show what a job printed."""

    def read_log(self, handle: JobHandle, offset: int) -> tuple[str, int]:
        """Return what the job printed from byte *offset* on, and the offset to go on from.

        At most 1 MiB at once; while the job is active, whole lines only.
        """
        ...


def spec_digest(spec: Record) -> str:
    """Return ``sha256:<hex>`` of a spec's fields."""
    import json

    return text_digest(json.dumps(spec.to_dict(), sort_keys=True, default=str))
