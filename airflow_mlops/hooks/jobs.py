"""From an Airflow connection to a platform that runs jobs. Nothing is decided here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from airflow.sdk import BaseHook

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.entrypoints import load_plugin
from airflow_mlops.core.errors import MlopsError
from airflow_mlops.core.residency import require_residency, split_places
from airflow_mlops.training.contract import JobBackend

__all__ = ["JobHook"]


class JobHook(BaseHook):
    """A backend, found by name, with what its connection says about how to reach it.

    The connection of any backend may have the extra ``residency``: the name of the place where the platform is, or a
    list of names. The backend itself does not see it.

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
        return self._backend(self._info())

    async def aget_backend(self) -> JobBackend[Any, Any]:
        """Return the backend from within a trigger. Its verbs block: call them in a thread."""
        if not self.conn_id:
            return self._backend(ConnectionInfo())
        return self._backend(ConnectionInfo.of(await self.aget_connection(self.conn_id)))

    def require_residency(self, carried: Mapping[str, str]) -> None:
        """Refuse what may not go where the connection's extra ``residency`` says that the platform is.

        :param carried: what is sent, in words, and the place it may not leave
        :raises ResidencyError: something has to stay elsewhere
        """
        if any(carried.values()):
            _, places = split_places(self._info(), self.backend)
            require_residency(carried, places, backend=self.backend, conn_id=self.conn_id or "")

    def test_connection(self) -> tuple[bool, str]:
        """Ask the platform for the first of our jobs."""
        try:
            found = next(iter(self.get_backend().managed()), None)
        except MlopsError as error:
            return False, str(error)
        return True, f"The backend {self.backend!r} answers" + (f"; it knows {found[0].job_id!r}." if found else ".")

    def _info(self) -> ConnectionInfo:
        return ConnectionInfo.of(self.get_connection(self.conn_id)) if self.conn_id else ConnectionInfo()

    def _backend(self, info: ConnectionInfo) -> JobBackend[Any, Any]:
        rest, _ = split_places(info, self.backend)
        found: JobBackend[Any, Any] = load_plugin(self.group, self.backend).from_connection(rest)
        return found
