"""MLflow's tracking server and model registry, verb by verb, without importing MLflow.

Every search is bounded: at 10,000 versions an unbounded one costs 3 s and 7 MB. Nothing here decides anything; what a
promotion means is in ``airflow_mlops.registry``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import ConflictError, NotFoundError
from airflow_mlops.platforms.mlflow_artifacts import ArtifactProxy
from airflow_mlops.platforms.mlflow_rest import MLflowRest

API = "/api/2.0/mlflow"
BOUND = 100
"""The most runs, models or versions that one search returns."""


class MLflowClient:
    """The server a connection leads to. It may be used as a context manager, which closes it.

    :param info: host, port and schema are the address; login and password are basic credentials, a password alone is
        a bearer token; extras ``verify`` (false or the path of a CA bundle) and ``timeout`` (seconds)
    """

    def __init__(self, info: ConnectionInfo) -> None:
        self._rest = MLflowRest(info)
        self.artifacts = ArtifactProxy(self._rest)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the server."""
        self._rest.close()

    @property
    def address(self) -> str:
        """The server's address without credentials."""
        return self._rest.address

    def server_version(self) -> str:
        """Return the version of MLflow that answers."""
        return self._rest.send("GET", "/version", repeat=True).text.strip()

    # Experiments and runs

    def experiment_id(self, name: str) -> str:
        """Return the id of the experiment called *name*, which is created if it is absent."""
        try:
            return self._experiment(name)
        except NotFoundError:
            try:
                return str(self._rest.post(f"{API}/experiments/create", {"name": name})["experiment_id"])
            except ConflictError:
                return self._experiment(name)

    def _experiment(self, name: str) -> str:
        found = self._rest.get(f"{API}/experiments/get-by-name", experiment_name=name)
        return str(found["experiment"]["experiment_id"])

    def create_run(self, experiment_id: str, name: str, tags: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Start a run and return it. A child run has the tag ``mlflow.parentRunId``."""
        body = {"experiment_id": experiment_id, "run_name": name, "start_time": _now(), "tags": _pairs(tags or {})}
        return dict(self._rest.post(f"{API}/runs/create", body)["run"])

    def run(self, run_id: str) -> dict[str, Any]:
        """Return the run with ``info``, ``data``, ``inputs`` and ``outputs``, as MLflow writes them."""
        return dict(self._rest.get(f"{API}/runs/get", run_id=run_id)["run"])

    def search_runs(
        self, experiment_ids: Sequence[str], query: str = "", *, order_by: Sequence[str] = (), limit: int = BOUND
    ) -> list[dict[str, Any]]:
        """Return at most *limit* runs that match *query* (MLflow's filter language), newest first by default."""
        body = {
            "experiment_ids": list(experiment_ids),
            "filter": query,
            "order_by": list(order_by),
            "max_results": min(limit, BOUND),
        }
        return list(self._rest.post(f"{API}/runs/search", body, repeat=True).get("runs", ()))

    def log(
        self,
        run_id: str,
        *,
        metrics: Mapping[str, float] | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Add metrics, parameters and tags to a run in one request, at most 100 parameters and 100 tags."""
        stamp = _now()
        points = [{"key": k, "value": float(v), "timestamp": stamp, "step": 0} for k, v in (metrics or {}).items()]
        body = {"run_id": run_id, "metrics": points, "params": _pairs(params or {}), "tags": _pairs(tags or {})}
        self._rest.post(f"{API}/runs/log-batch", body, repeat=True)

    def finish_run(self, run_id: str, status: str = "FINISHED") -> None:
        """End a run: ``FINISHED``, ``FAILED`` or ``KILLED``."""
        self._rest.post(f"{API}/runs/update", {"run_id": run_id, "status": status, "end_time": _now()}, repeat=True)

    def reopen_run(self, run_id: str) -> None:
        """Let a run that was ended go on."""
        self._rest.post(f"{API}/runs/update", {"run_id": run_id, "status": "RUNNING"}, repeat=True)

    def logged_model(self, model_id: str) -> dict[str, Any]:
        """Return the ``info`` of a logged model (``m-...``): its name, ``artifact_uri`` and ``source_run_id``."""
        return dict(self._rest.get(f"{API}/logged-models/{model_id}")["model"]["info"])

    # Registered models

    def create_model(self, name: str, tags: Mapping[str, str] | None = None) -> None:
        """Create a registered model. Of many callers at the same moment exactly one succeeds.

        :raises ConflictError: it exists, or did until a moment ago
        """
        try:
            self._rest.post(f"{API}/registered-models/create", {"name": name, "tags": _pairs(tags or {})})
        except NotFoundError as error:  # MLflow looks at the one that was in the way, which may be gone by then
            raise ConflictError(f"Model {name!r} existed and was deleted at this moment. Look again.") from error

    def rename_model(self, name: str, new_name: str) -> None:
        """Rename a registered model.

        :raises ConflictError: *new_name* exists
        :raises NotFoundError: *name* does not
        """
        self._rest.post(f"{API}/registered-models/rename", {"name": name, "new_name": new_name})

    def delete_model(self, name: str, *, repeat: bool = True) -> None:
        """Delete a registered model. An absent one is left alone.

        :param repeat: whether to delete what somebody else may have made under this name since an answer was lost
        """
        try:
            self._rest.post(f"{API}/registered-models/delete", {"name": name}, repeat=repeat, method="DELETE")
        except NotFoundError:
            return

    def model(self, name: str) -> dict[str, Any]:
        """Return a registered model with its ``aliases`` and ``tags``."""
        return dict(self._rest.get(f"{API}/registered-models/get", name=name)["registered_model"])

    def models(self, query: str = "", *, limit: int = BOUND) -> list[dict[str, Any]]:
        """Return at most *limit* registered models that match *query*, such as ``name LIKE 'flights%'``."""
        found = self._rest.get(f"{API}/registered-models/search", filter=query, max_results=min(limit, BOUND))
        return list(found.get("registered_models", ()))

    def set_model_tag(self, name: str, key: str, value: str) -> None:
        """Set one tag of a registered model."""
        self._rest.post(f"{API}/registered-models/set-tag", {"name": name, "key": key, "value": value}, repeat=True)

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Point *alias* to *version*. The last writer wins: guard it with a lock."""
        self._rest.post(
            f"{API}/registered-models/alias", {"name": name, "alias": alias, "version": version}, repeat=True
        )

    # Model versions

    def create_version(
        self, name: str, source: str, *, run_id: str = "", model_id: str = "", tags: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Create a version of the files at *source* and return it."""
        body = {"name": name, "source": source, "tags": _pairs(tags or {})}
        body |= {key: value for key, value in (("run_id", run_id), ("model_id", model_id)) if value}
        return dict(self._rest.post(f"{API}/model-versions/create", body)["model_version"])

    def version(self, name: str, version: str) -> dict[str, Any]:
        """Return one version."""
        return dict(self._rest.get(f"{API}/model-versions/get", name=name, version=version)["model_version"])

    def version_of_alias(self, name: str, alias: str) -> dict[str, Any]:
        """Return the version an alias points to.

        :raises NotFoundError: no such model or alias
        """
        return dict(self._rest.get(f"{API}/registered-models/alias", name=name, alias=alias)["model_version"])

    def versions(self, query: str, *, limit: int = BOUND) -> list[dict[str, Any]]:
        """Return at most *limit* versions that match *query*, newest first. They come without aliases."""
        found = self._rest.get(
            f"{API}/model-versions/search",
            filter=query,
            max_results=min(limit, BOUND),
            order_by="version_number DESC",
        )
        return list(found.get("model_versions", ()))

    def set_version_tag(self, name: str, version: str, key: str, value: str) -> None:
        """Set one tag of a version."""
        body = {"name": name, "version": version, "key": key, "value": value}
        self._rest.post(f"{API}/model-versions/set-tag", body, repeat=True)

    def download_uri(self, name: str, version: str) -> str:
        """Return where the files of a version are."""
        found = self._rest.get(f"{API}/model-versions/get-download-uri", name=name, version=version)
        return str(found["artifact_uri"])


def _pairs(values: Mapping[str, Any]) -> list[dict[str, str]]:
    return [{"key": key, "value": str(value)} for key, value in values.items()]


def _now() -> int:
    """Return the time in milliseconds since 1970, as MLflow counts."""
    return int(time.time() * 1000)
