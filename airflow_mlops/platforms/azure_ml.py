"""Azure Machine Learning's APIs, verb by verb: jobs and assets of a workspace, and what its run history knows of a job.

Jobs are of Azure Resource Manager. What a job printed, why it failed and which files it left is told by the workspace's
own data plane, whose address every job names. Nothing here decides anything.

Vendor page: https://learn.microsoft.com/rest/api/azureml/jobs?view=rest-azureml-2024-10-01
The data plane is the one that Azure's own client uses (azure-ai-ml: ``_restclient/runhistory``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Self
from urllib.parse import quote, urlsplit

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import InvalidSpecError, NotFoundError
from airflow_mlops.platforms.azure import OFFICIAL, OWN, AzureTokens, cloud_of
from airflow_mlops.platforms.azure_rest import AzureRest

Json = dict[str, Any]

API_VERSION = "2024-10-01"
PROVIDER = "providers/Microsoft.MachineLearningServices/workspaces"
_NAME = re.compile(r"[\w.()-]+")


class AzureMLClient:
    """The workspace a connection leads to. It may be used as a context manager, which closes it.

    :param info: a connection of the type ``azure``: login and password are a service principal with the extra
        ``tenantId``; without a password the machine's own identity counts. Further extras: ``subscriptionId``,
        ``resource_group``, ``workspace``, ``compute`` and ``spot_compute`` (defaults of the options of these names),
        ``cloud_environment``, ``endpoint`` (of Azure Resource Manager), ``authority`` (who gives tokens), ``verify``
        (false or the path of a CA bundle), ``timeout`` (seconds for one request)
    """

    def __init__(self, info: ConnectionInfo) -> None:
        options = info.options((*OFFICIAL, *OWN))
        self.cloud = cloud_of(options)
        self._tokens = AzureTokens(info, options)
        self._rest = AzureRest(self._tokens, info.conn_id, options)
        self._endpoint = str(options.get("endpoint") or self.cloud.arm).rstrip("/")
        self.defaults = {key: str(options.get(key) or "") for key in ("compute", "spot_compute")}
        parts = {key: str(options.get(key) or "") for key in ("resource_group", "workspace")}
        parts = {"subscriptionId": self._tokens.subscription, **parts}
        for key, value in parts.items():
            if not _NAME.fullmatch(value):
                raise InvalidSpecError(
                    f"Connection {info.conn_id!r} has {value!r} as {key}. Set the extra {key!r}: a job is in a "
                    "workspace of a resource group of a subscription."
                )
        self.scope = "/".join(parts.values())
        subscription, group, workspace = parts.values()
        self.workspace_id = f"/subscriptions/{subscription}/resourceGroups/{group}/{PROVIDER}/{workspace}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._rest.close()

    def console_url(self, name: str) -> str:
        """Return the page of a job in the studio."""
        tenant = f"&tid={self._tokens.tenant}" if self._tokens.tenant else ""
        return f"{self.cloud.studio}/runs/{quote(name)}?wsid={self.workspace_id}{tenant}"

    # Azure Resource Manager

    def job(self, name: str) -> Json:
        """Return one job.

        :raises NotFoundError: it was never made, or was deleted
        """
        return self._arm("GET", f"jobs/{quote(name)}")

    def put_job(self, name: str, properties: Mapping[str, Any]) -> Json:
        """Make the job called *name* and return it. A second time, the same properties change nothing.

        :raises ConflictError: a job of that name has other properties
        """
        return self._arm("PUT", f"jobs/{quote(name)}", body={"properties": properties})

    def cancel_job(self, name: str) -> None:
        """Order the end of a job.

        :raises InvalidSpecError: it is over
        """
        self._arm("POST", f"jobs/{quote(name)}/cancel")

    def jobs(self, kind: str, tag: str) -> Iterator[Json]:
        """Yield the jobs of a type that have a tag, newest first, archived ones too. It asks page by page."""
        query = {"jobType": kind, "tag": tag, "listViewType": "All"}
        page = self._arm("GET", "jobs", params=query)
        while True:
            yield from page.get("value") or ()
            following = str(page.get("nextLink") or "")
            if not following:
                return
            page = self._rest.json("GET", self._ours(following), self.cloud.arm)

    def component(self, name: str, version: str) -> Json:
        """Return a version of a component.

        :raises NotFoundError: the workspace has no such component or version
        """
        return self._arm("GET", f"components/{quote(name)}/versions/{quote(version)}")

    def keep_environment(self, name: str, version: str, properties: Mapping[str, Any]) -> str:
        """Make a version of an environment unless it is there, and return its id."""
        path = f"environments/{quote(name)}/versions/{quote(version)}"
        try:
            self._arm("GET", path)
        except NotFoundError:
            self._arm("PUT", path, body={"properties": properties})
        return f"{self.workspace_id}/{path}"

    # The data plane

    def details(self, job: Json) -> Json:
        """Return what the run history knows of a job: its error, its times, the signed addresses of its logs."""
        return self._history(job, f"runs/{quote(job['name'])}/details")

    def children(self, job: Json) -> Iterator[Json]:
        """Yield the runs of the steps of a pipeline."""
        token = ""
        while True:
            params = {"continuationtoken": token} if token else {}
            page = self._history(job, f"runs/{quote(job['name'])}/children", params)
            yield from page.get("value") or ()
            token = str(page.get("continuationToken") or "")
            if not token:
                return

    def artifact(self, job: Json, path: str, length: int) -> bytes | None:
        """Return a file that a job left, at most *length* bytes of it, or ``None`` when it left no such file."""
        experiment = quote(str(job["properties"].get("experimentName") or "Default"), safe="")
        where = f"experiments/{experiment}/runs/{quote(job['name'])}/artifacts/contentinfo"
        try:
            found = self._history(job, where, {"path": path})
        except NotFoundError:
            return None
        return self._rest.fetch(str(found["contentUri"]), 0, length)

    def fetch(self, url: str, start: int, length: int) -> bytes | None:
        """Return bytes of a signed address, ``None`` when there is nothing from *start* on."""
        return self._rest.fetch(url, start, length)

    def _history(self, job: Json, path: str, params: Mapping[str, str] | None = None) -> Json:
        """Ask the data plane, whose address is that of the job's own tracking service.

        Whoever may make a job may write that address, so the token goes to Azure's own hosts alone.

        :raises NotFoundError: the job does not name it yet, or names a host of somebody else, or nothing is there
        """
        services = job["properties"].get("services") or {}
        found = urlsplit(str((services.get("Tracking") or {}).get("endpoint") or ""))
        if not (found.hostname or "").endswith(self.cloud.data) and found.netloc != urlsplit(self._endpoint).netloc:
            raise NotFoundError(f"The job {job['name']!r} does not tell where its run history is: {found.netloc!r}.")
        url = f"https://{found.netloc}/history/v1.0{self.workspace_id}/{path}"
        return self._rest.json("GET", url, self.cloud.studio, params=params)

    def _arm(
        self, method: str, path: str, *, params: Mapping[str, str] | None = None, body: Json | None = None
    ) -> Json:
        query = {"api-version": API_VERSION, **(params or {})}
        url = f"{self._endpoint}{self.workspace_id}/{path}"
        return self._rest.json(method, url, self.cloud.arm, params=query, body=body)

    def _ours(self, link: str) -> str:
        """Return the link to a next page, which must lead to where we asked: the token goes with it."""
        if _host(link) != _host(self._endpoint):
            raise InvalidSpecError(f"The next page of a list is not at {self._endpoint}. It is not asked for.")
        return link


def _host(url: str) -> tuple[str, str | None, int]:
    found = urlsplit(url)
    return found.scheme, found.hostname, found.port or 443
