"""From Airflow connections to a training backend, and a task's memory of its job. Nothing is decided here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from airflow.sdk import BaseHook
from airflow.sdk.execution_time.context import NEVER_EXPIRE

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.entrypoints import TRAINING_BACKENDS, load_plugin
from airflow_mlops.core.errors import MlopsError
from airflow_mlops.training.contract import TrainingBackend
from airflow_mlops.training.driver import JobRecord

__all__ = ["TaskRecords", "TrainingHook"]


class TrainingHook(BaseHook):
    """A training backend, found by name, with what its connection says about where it is.

    Connection of the local backend, all optional, in the extras: ``workdir`` (folder of the jobs), ``cwd`` (folder they
    run in), ``inherit_env`` (list of the worker's variables they see), ``grace`` (seconds to end in peace).

    :param backend: name of an installed backend, for example ``local``
    :param conn_id: connection of the platform; ``None`` where the platform needs none, as the local one
    """

    conn_name_attr = "conn_id"
    default_conn_name = "mlops_local_default"
    conn_type = "mlops_local"
    hook_name = "MLOps local training"

    def __init__(self, backend: str = "local", conn_id: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.backend = backend
        self.conn_id = conn_id

    def get_backend(self) -> TrainingBackend:
        """Return the backend that the connection leads to.

        :raises UnknownPluginError: no installed package offers it
        """
        return self._backend(ConnectionInfo.of(self.get_connection(self.conn_id)) if self.conn_id else ConnectionInfo())

    async def aget_backend(self) -> TrainingBackend:
        """Return the backend from within a trigger. Its verbs block: call them in a thread."""
        if not self.conn_id:
            return self._backend(ConnectionInfo())
        return self._backend(ConnectionInfo.of(await self.aget_connection(self.conn_id)))

    def test_connection(self) -> tuple[bool, str]:
        """Ask the platform for the first of our jobs."""
        try:
            found = next(iter(self.get_backend().managed()), None)
        except MlopsError as error:
            return False, str(error)
        return True, f"The backend {self.backend!r} answers" + (f"; it knows {found[0].job_id!r}." if found else ".")

    def _backend(self, info: ConnectionInfo) -> TrainingBackend:
        found: TrainingBackend = load_plugin(TRAINING_BACKENDS, self.backend).from_connection(info)
        return found


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
