"""Fetch a version of data, and keep new data as a version. Thin: the work is in the data store."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowSkipException

from airflow_mlops.core.errors import InvalidSpecError, NotFoundError
from airflow_mlops.core.refs import DataVersion
from airflow_mlops.hooks.dvc import DvcHook
from airflow_mlops.operators.base import MlopsOperator, airflow_tags

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_mlops.data.stores.dvc import DvcStore

__all__ = ["DvcMaterialiseOperator", "DvcSnapshotOperator"]

DIGEST_BEFORE = "mlops_digest_before"
"""Key of the state store: digest of the newest version before the task's first try."""


_VERSION_FIELDS = {field.name for field in dataclasses.fields(DataVersion)}
_LATER_FIELDS = {"residency"}
"""Fields that the events of older releases do not have."""


class DvcMaterialiseOperator(MlopsOperator):
    """Put one version of data on this machine, checked against its digest.

    Returns ``{"version": DataVersion dict, "path": local path}`` and, with *export_code*, ``"code"``: the folder with
    the repository's own files at the same commit.

    :param path: path of the data inside its repository, for example ``data/flights``
    :param rev: branch, tag or commit. Empty: the version in the asset event that triggered this run, if it is of
        *path*, else the newest one of the default branch
    :param to: where the data goes; by default a folder of the connection's ``workdir`` that all tasks share
    :param export_code: also write the files that git itself keeps, such as training scripts
    :param dvc_conn_id: connection of the repository
    :raises NotFoundError: no such revision or path; the message lists close ones
    :raises IntegrityError: bytes are missing from the remote or damaged
    """

    template_fields = ("path", "rev", "to", "dvc_conn_id")

    def __init__(
        self,
        *,
        path: str,
        rev: str = "",
        to: str | None = None,
        export_code: bool = False,
        dvc_conn_id: str = DvcHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.path, self.rev, self.to = path, rev, to
        self.export_code, self.dvc_conn_id = export_code, dvc_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Resolve the revision, bring the data and say where it is."""
        store = DvcHook(self.dvc_conn_id).get_store()
        version = store.resolve(self.path, self.rev or _triggering_revision(context, self.path) or "HEAD")
        self.log.info("%s at %s is %s, %d bytes", version.path, version.rev, version.digest, version.size)
        where = store.materialise(version, Path(self.to) if self.to else None)
        result = {"version": version.to_dict(), "path": str(where)}
        if self.export_code:
            result["code"] = str(store.export(version.commit, store.workdir / "code" / version.commit))
        return result


class DvcSnapshotOperator(MlopsOperator):
    """Keep data on this machine as a new version that everyone can read. Returns the ``DataVersion`` as a dict.

    Every asset in ``outlets`` gets an event with that dict as its extra, so that a run it triggers knows the version.

    :param source: file or folder to keep
    :param path: path of the data inside the repository
    :param message: first line of the commit's message
    :param tag: git tag for the version; with the same bytes it is the same version. Empty for none
    :param on_unchanged: ``skip`` the task, and with it the asset events, when the newest version has these bytes
        already: nothing new, nothing to start. Or ``continue``
    :param dvc_conn_id: connection of the repository
    :raises ConflictError: the tag names other bytes, or somebody else changed the same path
    """

    template_fields = ("source", "path", "message", "tag", "on_unchanged", "dvc_conn_id")

    def __init__(
        self,
        *,
        source: str,
        path: str,
        message: str,
        tag: str | None = None,
        on_unchanged: str = "skip",
        dvc_conn_id: str = DvcHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.source, self.path, self.message, self.tag = source, path, message, tag
        self.on_unchanged, self.dvc_conn_id = on_unchanged, dvc_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Push the data, then the pointer, then tell the assets."""
        if self.on_unchanged not in ("skip", "continue"):
            raise InvalidSpecError(f"on_unchanged is 'skip' or 'continue', got {self.on_unchanged!r}.")
        store = DvcHook(self.dvc_conn_id).get_store()
        before = self._newest_digest(context, store)
        signed = "\n".join(f"{name}: {value}" for name, value in airflow_tags(context).items())
        version = store.snapshot(
            Path(self.source), self.path, message=f"{self.message}\n\n{signed}\n", tag=self.tag or None
        )
        if self.on_unchanged == "skip" and version.digest == before:
            raise AirflowSkipException(f"The newest version of {version.path!r} has these bytes already: {before}.")
        self.log.info("Kept %s as %s at commit %s", version.path, version.digest, version.commit)
        for asset in self.outlets:
            if isinstance(asset, Asset):
                context["outlet_events"][asset].extra = version.to_dict()
        return version.to_dict()

    def _newest_digest(self, context: Context, store: DvcStore) -> str:
        """Return the newest digest before the first try: a retry must not take its own version for an old one."""
        memory = context["task_state_store"]
        known = memory.get(DIGEST_BEFORE)
        if known is None:
            try:
                known = store.resolve(self.path).digest
            except NotFoundError:
                known = ""
            memory.set(DIGEST_BEFORE, known)
        return str(known)


def _triggering_revision(context: Context, path: str) -> str:
    """Return the commit of the newest version of *path* among the events that triggered this run, or ``""``."""
    events = [event for found in context["triggering_asset_events"].values() for event in found]
    for event in sorted(events, key=lambda event: event.timestamp, reverse=True):
        if isinstance(event.extra, Mapping) and set(event.extra) | _LATER_FIELDS == _VERSION_FIELDS:
            version = DataVersion.from_dict(event.extra)
            if version.path == path.strip("/"):
                return version.commit
    return ""
