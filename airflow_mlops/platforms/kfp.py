"""Kubeflow Pipelines' API ``v2beta1``, verb by verb, without its SDK, which wants an older Kubernetes client.

Every list is read page by page. Nothing here decides anything; what a run means is in ``airflow_mlops.training``.

Vendor page: https://www.kubeflow.org/docs/components/pipelines/reference/api/kubeflow-pipeline-api-spec/
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Self
from urllib.parse import quote

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import ConflictError, NotFoundError
from airflow_mlops.platforms.kfp_rest import KfpRest

API = "/apis/v2beta1"
PAGE = 50
"""Runs a page: each comes with its whole pipeline."""


class KfpClient:
    """The server a connection leads to. It may be used as a context manager, which closes it.

    :param info: host, port and schema are the address, with the path if there is one; password is a bearer token; login
        is sent as the user's name in the header ``userid_header`` (``kubeflow-userid``), for servers that trust it;
        further extras: ``token_path`` (file of a token that is renewed), ``namespace``, ``console_url`` (page before
        ``#``), ``verify`` (false or the path of a CA bundle), ``timeout`` (seconds)
    """

    def __init__(self, info: ConnectionInfo) -> None:
        self._rest = KfpRest(info)
        self.namespace = str(info.extra.get("namespace", ""))
        self._console = str(info.extra.get("console_url", "")) or self._rest.address

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

    def console_url(self, run_id: str) -> str:
        """Return the page of a run."""
        console = self._console.rstrip("/") if "?" not in self._console else self._console
        return f"{console}{'' if '?' in console else '/'}#/runs/details/{run_id}"

    def health(self) -> dict[str, Any]:
        """Return what the server says of itself, such as ``multi_user`` and ``tag_name``."""
        return self._rest.get(f"{API}/healthz")

    # Runs

    def create_run(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Start a run and return it. It is not repeated: a second one with the same id would run beside the first."""
        return self._rest.post(f"{API}/runs", body)

    def run(self, run_id: str) -> dict[str, Any]:
        """Return one run with the details of its tasks.

        :raises NotFoundError: it was never started, or deleted
        """
        return self._rest.get(f"{API}/runs/{run_id}")

    def runs(self, *predicates: Mapping[str, Any], namespace: str = "") -> Iterator[dict[str, Any]]:
        """Yield the runs that fit all *predicates*, newest first, archived ones too."""
        return self._list("runs", "runs", predicates, namespace=namespace, sort_by="created_at desc")

    def terminate(self, run_id: str) -> None:
        """Order the end of a run.

        :raises InvalidSpecError: it is over, or was ordered to end before
        """
        self._rest.post(f"{API}/runs/{run_id}:terminate")

    # Experiments and pipelines

    def experiment_id(self, name: str, namespace: str) -> str:
        """Return the id of the experiment called *name*, which is created if it is absent."""
        if found := self._experiment(name, namespace):
            return found
        body = {"display_name": name} | ({"namespace": namespace} if namespace else {})
        try:
            return str(self._rest.post(f"{API}/experiments", body)["experiment_id"])
        except ConflictError:
            if found := self._experiment(name, namespace):
                return found
            raise

    def _experiment(self, name: str, namespace: str) -> str:
        found = next(self._list("experiments", "experiments", [equals("name", name)], namespace=namespace), {})
        return str(found.get("experiment_id", ""))

    def pipeline_version(self, name: str, version: str, namespace: str) -> dict[str, Any]:
        """Return a version of an uploaded pipeline, by default its newest: of the namespace, else one shared by all.

        :raises NotFoundError: the server has no such pipeline or version
        """
        where = f"pipelines/{self._pipeline_id(name, namespace)}/versions"
        predicates = [equals("name", version)] if version else []
        for one in self._list(where, "pipeline_versions", predicates, sort_by="created_at desc"):
            return one
        raise NotFoundError(f"Pipeline {name!r} at {self.address} has no version {version or 'at all'!r}.")

    def _pipeline_id(self, name: str, namespace: str) -> str:
        path = f"{API}/pipelines/names/{quote(name, safe='')}"
        try:
            return str(self._rest.get(path, namespace=namespace)["pipeline_id"])
        except NotFoundError:
            if not namespace:
                raise
            return str(self._rest.get(path)["pipeline_id"])

    def _list(self, path: str, key: str, predicates: Any, **params: str) -> Iterator[dict[str, Any]]:
        token, wanted = "", json.dumps({"predicates": list(predicates)}) if predicates else ""
        while True:
            # The server unquotes the value of the filter once more than it does other parameters.
            found = self._rest.get(f"{API}/{path}", filter=quote(wanted), page_size=PAGE, page_token=token, **params)
            yield from found.get(key, ())
            token = found.get("next_page_token", "")
            if not token:
                return


def equals(key: str, value: str) -> dict[str, Any]:
    """Return a predicate of a list."""
    return {"operation": "EQUALS", "key": key, "string_value": value}


def contains(key: str, value: str) -> dict[str, Any]:
    """Return a predicate of a list."""
    return {"operation": "IS_SUBSTRING", "key": key, "string_value": value}


def one_of(key: str, values: list[str]) -> dict[str, Any]:
    """Return a predicate of a list."""
    return {"operation": "IN", "key": key, "string_values": {"values": values}}
