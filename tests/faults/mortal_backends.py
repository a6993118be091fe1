"""Training backends that kill their own process at one verb: everything else they leave to the real ones.

``DEATH`` says where, as ``<verb>:<when>:<call>``: before or after that call of the verb, asleep (a moment after it), or
ended (after a look that found the job over). Without it nobody dies.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.training.backends.azureml import AzureMLBackend
from airflow_mlops.training.backends.kubeflow import KubeflowBackend
from airflow_mlops.training.backends.kubernetes import KubernetesBackend
from airflow_mlops.training.backends.local import LocalBackend
from airflow_mlops.training.backends.sagemaker import SageMakerBackend
from airflow_mlops.training.backends.vertex import VertexBackend
from airflow_mlops.training.contract import JobHandle, JobStatus, TrainingSpec

DEATH = "MORTAL_BACKEND_DIES"
NAP = 0.15
"""Seconds after a look at which the worker is asleep: longer than it needs to go on, shorter than the poll interval."""

Look = Callable[[Iterable[JobHandle]], Mapping[JobHandle, JobStatus]]


class Mortal:
    """In front of a real backend in the order of inheritance. Its own names must not be those of a backend."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.mortal_calls = {"submit": 0, "observe": 0}

    def submit(self, spec: TrainingSpec, *, name: str, owner: TaskIdentity) -> JobHandle:
        self.mortal_moment("submit", "before")
        handle: JobHandle = super().submit(spec, name=name, owner=owner)  # type: ignore[misc]
        self.mortal_moment("submit", "after")
        return handle

    def observe(self, handles: Iterable[JobHandle]) -> Mapping[JobHandle, JobStatus]:
        return self.mortal_look(super().observe, handles)  # type: ignore[misc]

    def mortal_look(self, look: Look, handles: Iterable[JobHandle]) -> Mapping[JobHandle, JobStatus]:
        self.mortal_moment("observe", "before")
        found = look(handles)
        self.mortal_moment("observe", "after")
        if os.environ.get(DEATH) == "observe:ended" and any(status.state.terminal for status in found.values()):
            die()
        return found

    def mortal_moment(self, verb: str, when: str) -> None:
        self.mortal_calls[verb] += when == "before"
        at = os.environ.get(DEATH, "")
        if at == f"{verb}:{when}:{self.mortal_calls[verb]}":
            die()
        if (at, when) == (f"{verb}:asleep:{self.mortal_calls[verb]}", "after"):
            threading.Timer(NAP, die).start()


class MortalStream(Mortal):
    """In front of a backend whose platform tells of changes by itself: a look at its stream is a look."""

    @contextmanager
    def stream(self) -> Iterator[Any]:
        with super().stream() as stream:  # type: ignore[misc]
            yield SimpleNamespace(observe=lambda handles: self.mortal_look(stream.observe, handles))


def die() -> None:
    """End this process as ``kill -9`` does."""
    os.kill(os.getpid(), signal.SIGKILL)


class MortalLocal(Mortal, LocalBackend):
    """Processes of this machine."""


class MortalKubernetes(MortalStream, KubernetesBackend):
    """Jobs of a cluster."""


class MortalKubeflow(MortalStream, KubeflowBackend):
    """TrainJobs of a cluster."""


class MortalVertex(Mortal, VertexBackend):
    """CustomJobs of Vertex AI."""


class MortalAzureml(Mortal, AzureMLBackend):
    """Command jobs of a workspace."""


class MortalSagemaker(Mortal, SageMakerBackend):
    """Training jobs of an account."""
