"""From a connection to Vertex AI, Cloud Storage and Cloud Logging: plain dicts in and out, answers as our errors.

Vertex AI is asked through Google's own generated client over REST, whose import takes over a second of CPU: so it is
loaded by the first request, never before. An order that is not safe to give twice is never sent a second time here,
unless the server refused to look at it.

https://cloud.google.com/vertex-ai/docs/reference/rest
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn
from urllib.parse import quote

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import InvalidSpecError, PlatformUnavailableError
from airflow_mlops.core.extras import extra
from airflow_mlops.platforms.gcp_access import ENDPOINTS, credentials, read_extras
from airflow_mlops.platforms.gcp_answers import LONGEST_PAUSE, ThrottledError, headers_of, meaning
from airflow_mlops.platforms.pauses import ATTEMPTS, pause_after

Json = dict[str, Any]

TIMEOUT = 30.0
PAGE = 100
"""Jobs a page: the most that the API gives at once."""


@dataclass(frozen=True)
class Kind:
    """A kind of jobs: ``Kind("job", "custom_job", "customJobs")`` is served by ``JobServiceClient``."""

    service: str
    noun: str
    collection: str


CUSTOM_JOBS = Kind("job", "custom_job", "customJobs")
TUNING_JOBS = Kind("job", "hyperparameter_tuning_job", "hyperparameterTuningJobs")
PIPELINE_JOBS = Kind("pipeline", "pipeline_job", "pipelineJobs")


class GcpApi:
    """One project in one region. It connects on first use.

    Every method raises NotFoundError (no such thing), ConflictError (it exists already), InvalidSpecError (refused, or
    a right is missing), QuotaExceededError, ThrottledError, PlatformUnavailableError.

    :raises InvalidSpecError: an extra of the connection is unknown or cannot be honoured
    """

    def __init__(self, info: ConnectionInfo) -> None:
        self.conn_id, self._extras = info.conn_id, read_extras(info)
        self.staging = str(self._extras.get("staging_bucket") or "").rstrip("/")
        self.service_account = str(self._extras.get("service_account") or "")
        self.network = str(self._extras.get("network") or "")
        self._clients: dict[tuple[str, str], Any] = {}

    @property
    def region(self) -> str:
        """Return where jobs are made.

        :raises InvalidSpecError: the connection does not say
        """
        return str(self._extras.get("region") or "") or self._missing("region", "such as 'europe-west4'")

    @cached_property
    def project(self) -> str:
        """Return the project, by default that of the credentials.

        :raises InvalidSpecError: neither says
        """
        return str(self._extras.get("project") or "") or self._credentials[1] or self._missing("project", "its id")

    @property
    def scope(self) -> str:
        """Return the place that one listing covers: ``<project>/<region>``."""
        return f"{self.project}/{self.region}"

    def create(self, kind: Kind, body: Mapping[str, Any], *, job_id: str = "") -> Json:
        """Start a job and return it as the server keeps it. Without *job_id* the order is given once at most.

        :raises ThrottledError: the server did not look at it, so nothing was started
        """
        named = {f"{kind.noun}_id": job_id} if job_id else {}
        request = {"parent": _parent(self.scope), kind.noun: dict(body), **named}
        return self._job(kind, "create", self.region, request, is_safe=bool(job_id))

    def get(self, kind: Kind, scope: str, job_id: str) -> Json:
        """Return one job with all it has."""
        return self._job(kind, "get", _region(scope), {"name": _name(kind, scope, job_id)})

    def cancel(self, kind: Kind, scope: str, job_id: str) -> None:
        """Order the end of a job. The server refuses it for one that is over."""
        client = self._client(kind, _region(scope))
        order = getattr(client, f"cancel_{kind.noun}")
        request = {"name": _name(kind, scope, job_id)}
        self._asked(f"cancel {kind.noun}", lambda: order(request=request, retry=None, timeout=TIMEOUT))

    def jobs(self, kind: Kind, scope: str, matching: str, fields: tuple[str, ...] = ()) -> Iterator[Json]:
        """Yield the jobs that match a filter, page by page; of each only some *fields*, by default all."""
        ask = getattr(self._client(kind, _region(scope)), f"list_{kind.noun}s")
        request: Json = {"parent": _parent(scope), "filter": matching, "page_size": PAGE}
        if fields:
            request["read_mask"] = {"paths": list(fields)}
        while True:
            page = self._asked(
                f"list {kind.noun}s", lambda: next(ask(request=dict(request), retry=None, timeout=TIMEOUT).pages)
            )
            for job in getattr(page, f"{kind.noun}s"):
                yield _plain(job)
            if not page.next_page_token:
                return
            request["page_token"] = page.next_page_token

    def read_object(self, address: str) -> bytes:
        """Return the content of an object of Cloud Storage, such as ``gs://bucket/path``.

        https://cloud.google.com/storage/docs/json_api/v1/objects/get
        """
        bucket, _, path = address.removeprefix("gs://").partition("/")
        url = f"{self._endpoint('storage')}/storage/v1/b/{quote(bucket, safe='')}/o/{quote(path, safe='')}?alt=media"
        content: bytes = self._rest(f"read {address}", "GET", url).content
        return content

    def log_entries(
        self, project: str, matching: str, *, limit: int, newest_first: bool = False
    ) -> tuple[list[Json], bool]:
        """Return at most *limit* entries of Cloud Logging that match, and whether there are more.

        https://cloud.google.com/logging/docs/reference/v2/rest/v2/entries/list
        """
        body = {
            "resourceNames": [f"projects/{project}"],
            "filter": matching,
            "orderBy": f"timestamp {'desc' if newest_first else 'asc'}",
            "pageSize": limit,
        }
        found = self._rest("read the log", "POST", f"{self._endpoint('logging')}/v2/entries:list", body).json()
        return list(found.get("entries") or []), bool(found.get("nextPageToken"))

    def _job(self, kind: Kind, verb: str, region: str, request: Json, *, is_safe: bool = True) -> Json:
        call = getattr(self._client(kind, region), f"{verb}_{kind.noun}")
        try:
            prepared = dict(request)
            return _plain(
                self._asked(
                    f"{verb} {kind.noun}", lambda: call(request=prepared, retry=None, timeout=TIMEOUT), is_safe=is_safe
                )
            )
        except (ValueError, TypeError) as error:
            if isinstance(error, InvalidSpecError):
                raise
            raise InvalidSpecError(f"Vertex AI has no such {kind.noun}: {error}") from error

    def _rest(self, what: str, method: str, url: str, body: Json | None = None) -> Any:
        def ask() -> Any:
            answer = self._session.request(method, url, json=body, timeout=TIMEOUT)
            if answer.status_code >= 300:
                raise importlib.import_module("google.api_core.exceptions").from_http_response(answer)
            return answer

        return self._asked(what, ask)

    def _asked(self, what: str, ask: Callable[[], Any], *, is_safe: bool = True) -> Any:
        """Return a successful answer; ask again when the server is away, busy or fails on its side."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return ask()
            except self._faults as fault:
                error = meaning(f"Google Cloud, {what}", self.conn_id, fault)
                passes = isinstance(error, PlatformUnavailableError if is_safe else ThrottledError)
                if attempt == ATTEMPTS or not passes:
                    raise error from fault
                time.sleep(pause_after(attempt, headers_of(fault), longest=LONGEST_PAUSE))
        raise AssertionError("the last attempt returns or raises")

    @cached_property
    def _faults(self) -> tuple[type[Exception], ...]:
        modules = ("google.api_core.exceptions", "google.auth.exceptions", "requests.exceptions")
        core, auth, requests = (importlib.import_module(module) for module in modules)
        return (core.GoogleAPICallError, auth.GoogleAuthError, requests.RequestException)

    @cached_property
    def _credentials(self) -> tuple[Any, str]:
        return credentials(self.conn_id, self._extras)

    @cached_property
    def _session(self) -> Any:
        with extra("vertex"):
            transport = importlib.import_module("google.auth.transport.requests")
        return transport.AuthorizedSession(self._credentials[0])

    def _client(self, kind: Kind, region: str) -> Any:
        """Return the generated client of a service. Regions have servers of their own."""
        if (kind.service, region) not in self._clients:
            with extra("vertex"):
                services = importlib.import_module(f"google.cloud.aiplatform_v1.services.{kind.service}_service")
            make = getattr(services, f"{kind.service.capitalize()}ServiceClient")
            options = {"api_endpoint": self._endpoint("aiplatform").replace("{region}", region)}
            self._clients[kind.service, region] = make(
                credentials=self._credentials[0], transport="rest", client_options=options
            )
        return self._clients[kind.service, region]

    def _endpoint(self, service: str) -> str:
        return str((self._extras.get("endpoints") or {}).get(service) or ENDPOINTS[service]).rstrip("/")

    def _missing(self, key: str, example: str) -> NoReturn:
        raise InvalidSpecError(f"Connection {self.conn_id!r} has no {key}. Set its extra {key!r}, {example}.")


def _plain(message: Any) -> Json:
    """Return a message as a dict: names with underscores, enums by name (a number if unknown), times as RFC 3339."""
    found: Json = type(message).to_dict(message, use_integers_for_enums=False)
    return found


def _parent(scope: str) -> str:
    project, _, region = scope.partition("/")
    return f"projects/{project}/locations/{region}"


def _name(kind: Kind, scope: str, job_id: str) -> str:
    return f"{_parent(scope)}/{kind.collection}/{job_id}"


def _region(scope: str) -> str:
    return scope.rpartition("/")[2]
