"""From an Airflow connection to a DVC store. Nothing is decided here, and DVC itself is not imported."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from airflow.sdk import BaseHook

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import InvalidSpecError, MlopsError
from airflow_mlops.data.stores.dvc import DvcStore

__all__ = ["EXTRAS", "DvcHook"]

EXTRAS = ("remote_url", "remote_options", "workdir", "cache_dir")
"""The extras of a connection; any other is refused."""


class DvcHook(BaseHook):
    """A git repository whose data DVC tracks.

    Connection: ``host`` (URL, ``git@host:path`` or local path of the repository), ``login`` and ``password`` (for git
    over http), extras ``remote_url`` (DVC remote to use in place of the repository's), ``remote_options`` (dict of
    DVC's own options of that remote, such as ``endpointurl`` or ``secret_access_key``), ``workdir`` (lasting folder
    for mirrors and data, default ``$AIRFLOW_HOME/mlops/dvc``) and ``cache_dir`` (default ``<workdir>/cache``).

    :param dvc_conn_id: the connection
    """

    conn_name_attr = "dvc_conn_id"
    default_conn_name = "dvc_default"
    conn_type = "dvc"
    hook_name = "DVC repository"

    def __init__(self, dvc_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dvc_conn_id = dvc_conn_id

    def get_store(self) -> DvcStore:
        """Return the store that the connection leads to.

        :raises InvalidSpecError: the connection has no host, or an unknown extra
        """
        return _store(ConnectionInfo.of(self.get_connection(self.dvc_conn_id)))

    async def aget_store(self) -> DvcStore:
        """Return the store from within a trigger. Its verbs block: call them in a thread."""
        return _store(ConnectionInfo.of(await self.aget_connection(self.dvc_conn_id)))

    def get_conn(self) -> DvcStore:
        """Return the store, under the name that Airflow's own code uses."""
        return self.get_store()

    def test_connection(self) -> tuple[bool, str]:
        """Ask the repository for its default branch."""
        try:
            branch = self.get_store().ping()
        except MlopsError as error:
            return False, str(error)
        return True, f"Connected to the repository; its default branch is {branch!r}."


def _store(info: ConnectionInfo) -> DvcStore:
    if not info.host:
        raise InvalidSpecError(f"Connection {info.conn_id!r} has no host. Set it to the address of a git repository.")
    options = info.options(EXTRAS)
    home = Path(os.environ.get("AIRFLOW_HOME") or "~/airflow")
    workdir = Path(options.get("workdir") or home / "mlops" / "dvc").expanduser().absolute()
    cache_dir = Path(options["cache_dir"]).expanduser().absolute() if options.get("cache_dir") else None
    remote_options = options.get("remote_options") or {}
    if not isinstance(remote_options, dict):
        raise InvalidSpecError(f"The extra 'remote_options' of connection {info.conn_id!r} is not an object.")
    return DvcStore(
        info.host,
        workdir=workdir,
        cache_dir=cache_dir,
        login=info.login,
        password=info.password,
        remote_url=options.get("remote_url") or "",
        remote_options=remote_options,
    )
