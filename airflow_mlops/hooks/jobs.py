"""From an Airflow connection to a platform that runs jobs. Nothing is decided here."""

from __future__ import annotations

from typing import Any, ClassVar

from airflow.sdk import BaseHook

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.entrypoints import load_plugin
from airflow_mlops.core.errors import MlopsError
from airflow_mlops.training.contract import JobBackend

__all__ = ["JobHook"]


class JobHook(BaseHook):
    """A backend, found by name, with what its connection says about where it is.

    :param backend: name of an installed backend
    :param conn_id: connection of the platform; ``None`` where the platform needs none
    """

    group: ClassVar[str]
    """The entry points that offer such backends."""

    conn_name_attr = "conn_id"

    def __init__(self, backend: str, conn_id: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.backend, self.conn_id = backend, conn_id

    def get_backend(self) -> JobBackend[Any, Any]:
        """Return the backend that the connection leads to.

        :raises UnknownPluginError: no installed package offers it
        """
        return self._backend(ConnectionInfo.of(self.get_connection(self.conn_id)) if self.conn_id else ConnectionInfo())

    async def aget_backend(self) -> JobBackend[Any, Any]:
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

    def _backend(self, info: ConnectionInfo) -> JobBackend[Any, Any]:
        found: JobBackend[Any, Any] = load_plugin(self.group, self.backend).from_connection(info)
        return found
