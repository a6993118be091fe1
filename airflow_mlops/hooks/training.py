"""From Airflow connections to a training backend, and a task's memory of its job. Nothing is decided here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from airflow.sdk.execution_time.context import NEVER_EXPIRE

from airflow_mlops.core.entrypoints import TRAINING_BACKENDS
from airflow_mlops.hooks.jobs import JobHook
from airflow_mlops.training.driver import JobRecord

__all__ = ["KubernetesTrainingHook", "TaskRecords", "TrainingHook"]


class TrainingHook(JobHook):
    """A training backend.

    Connection of the local backend, all optional, in the extras: ``workdir`` (folder of the jobs), ``cwd`` (folder they
    run in), ``inherit_env`` (list of the worker's variables they see), ``grace`` (seconds to end in peace).

    :param backend: name of an installed backend, for example ``local``
    :param conn_id: connection of the platform; ``None`` where the platform needs none, as the local one
    """

    group = TRAINING_BACKENDS
    default_conn_name = "mlops_local_default"
    conn_type = "mlops_local"
    hook_name = "MLOps local training"

    def __init__(self, backend: str = "local", conn_id: str | None = None, **kwargs: Any) -> None:
        super().__init__(backend, conn_id, **kwargs)


class KubernetesTrainingHook(TrainingHook):
    """A Kubernetes cluster for training jobs and TrainJobs, where Airflow's own ``kubernetes`` type is not installed.

    The extras are named as in that type; ``docs/howto/kubernetes.md`` lists them.
    """

    default_conn_name = "mlops_kubernetes_default"
    conn_type = "mlops_kubernetes"
    hook_name = "MLOps Kubernetes training"

    def __init__(self, conn_id: str = default_conn_name, backend: str = "kubernetes", **kwargs: Any) -> None:
        super().__init__(backend, conn_id, **kwargs)


class TaskRecords:
    """One task's record of its job in Airflow's task state store, which survives retries and clears.

    Only one worker at a time works on a task, so what was read once is kept. The cancel mark has a key of its own: it
    is written while another thread may be about to save the record.
    """

    KEY, MARK, SUMMARY = "mlops_training_job", "mlops_training_cancelled", "mlops_training_status"

    def __init__(self, store: Any) -> None:
        self._store = store
        self._record: JobRecord | None = None
        self._mark: str | None = None
        self._shown: dict[str, Any] | None = None

    def load(self) -> JobRecord | None:
        """Return the record, or ``None`` before the first submission."""
        if self._record is None:
            found = self._store.get(self.KEY)
            self._record = JobRecord.from_dict(found) if found else None
        if self._record is None:
            return None
        if self._mark is None:
            self._mark = self._store.get(self.MARK) or ""
        return replace(self._record, cancelled=self._mark == self._record.name)

    def save(self, record: JobRecord) -> None:
        """Keep *record* for ever."""
        self._store.set(self.KEY, record.to_dict(), retention=NEVER_EXPIRE)
        self._record = record

    def mark_cancelled(self, name: str) -> None:
        """Set the cancel mark of job *name*."""
        self._mark = name
        self._store.set(self.MARK, name, retention=NEVER_EXPIRE)

    def show(self, summary: dict[str, Any]) -> None:
        """Keep what a person wants to know, where Airflow shows a task's state."""
        if summary != self._shown:
            self._store.set(self.SUMMARY, summary, retention=NEVER_EXPIRE)
            self._shown = summary
