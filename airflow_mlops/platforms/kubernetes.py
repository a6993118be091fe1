"""From a connection to an authenticated Kubernetes API: plain dicts in and out, answers turned into our errors.

Every request here has the same effect once or twice (objects are made by name), so it is sent again when the answer was
lost. The generated models are not used: one way for built-in and custom kinds. It must never turn off TLS, and no
message may show a credential or what is in a Secret.

API conventions: https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import quote, urlsplit

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import PlatformUnavailableError, redact
from airflow_mlops.platforms.kubernetes_access import api_client, read_extras
from airflow_mlops.platforms.kubernetes_answers import refusal
from airflow_mlops.platforms.pauses import ATTEMPTS, pause_after

Json = dict[str, Any]

LONGEST_PAUSE = 10.0
"""Seconds that a server's Retry-After is obeyed for at most, each time."""

TIMEOUT = (5.0, 30.0)
"""Seconds to connect, and to wait for the next bytes."""

STRICT = "?fieldValidation=Strict"
"""Without it a server drops fields that it does not know."""

MERGE_PATCH = "application/merge-patch+json"
PAGE = 500


@dataclass(frozen=True)
class Kind:
    """A kind of objects, as in the address: ``Kind("trainer.kubeflow.org", "v1alpha1", "trainjobs")``."""

    group: str
    version: str
    plural: str

    def path(self, namespace: str, name: str = "", subresource: str = "") -> str:
        """Return the address of one object, or of all in *namespace*; without it, of objects of the cluster."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        scope = ("namespaces", namespace) if namespace else ()
        parts = [part for part in (*scope, self.plural, name, subresource) if part]
        return f"{root}/{'/'.join(quote(part, safe='') for part in parts)}"


JOBS = Kind("batch", "v1", "jobs")
PODS, EVENTS = Kind("", "v1", "pods"), Kind("", "v1", "events")
SECRETS, SERVICES = Kind("", "v1", "secrets"), Kind("", "v1", "services")


class KubernetesApi:
    """One cluster. It connects on first use.

    :ivar namespace: the connection's namespace, where objects are made
    :ivar further: what the connection's extras say besides, by name: those of *options*
    :raises InvalidSpecError: an extra is unknown, or asks for TLS without verification

    Every method raises NotFoundError (no such object), ConflictError (it exists already), InvalidSpecError (refused, or
    a right is missing), QuotaError, ExpiredError (a version is too old to watch from), PlatformUnavailableError.
    """

    def __init__(self, info: ConnectionInfo, options: tuple[str, ...] = ()) -> None:
        found = read_extras(info, options)
        self.conn_id, self._extras = info.conn_id, found
        self.namespace = str(found.get("namespace") or "default")
        self.further = {key: found[key] for key in options if found.get(key)}

    def console_url(self, namespace: str, name: str) -> str:
        """Return the page of an object by the extra ``console_url``, such as ``https://c.example/{namespace}/{name}``."""
        template = str(self._extras.get("console_url") or "")
        return template.replace("{namespace}", namespace).replace("{name}", name)

    def create(self, kind: Kind, namespace: str, body: Mapping[str, Any]) -> Json:
        """Make an object that has a name, and return it as the server keeps it. A field it does not know is refused."""
        return self._json("POST", kind, kind.path(namespace) + STRICT, body=body)

    def get(self, kind: Kind, namespace: str, name: str) -> Json:
        """Return one object."""
        return self._json("GET", kind, kind.path(namespace, name))

    def patch(self, kind: Kind, namespace: str, name: str, patch: Mapping[str, Any]) -> Json:
        """Merge *patch* (RFC 7396) into an object and return it."""
        return self._json("PATCH", kind, kind.path(namespace, name), body=patch, content_type=MERGE_PATCH)

    def delete(self, kind: Kind, namespace: str, name: str, *, uid: str = "") -> None:
        """Delete an object and, in the background, all that it owns. With *uid* only if it is still the same one."""
        body: Json = {"propagationPolicy": "Background"}
        if uid:
            body["preconditions"] = {"uid": uid}
        self._json("DELETE", kind, kind.path(namespace, name), body=body)

    def list(self, kind: Kind, namespace: str, *, labels: str = "", fields: str = "") -> tuple[list[Json], str]:
        """Return the objects that match both selectors, read in pages, and the version to watch from."""
        query = {"labelSelector": labels, "fieldSelector": fields, "limit": str(PAGE)}
        items: list[Json] = []
        while True:
            page = self._json("GET", kind, kind.path(namespace), query=query)
            items += page.get("items") or []
            metadata = page.get("metadata") or {}
            if not metadata.get("continue"):
                return items, str(metadata.get("resourceVersion", ""))
            query["continue"] = metadata["continue"]

    def watch(self, kind: Kind, namespace: str, *, labels: str, version: str, seconds: int) -> Watch:
        """Open a watch with bookmarks from *version* on, which the server ends after *seconds*."""
        query = {"labelSelector": labels, "resourceVersion": version, "timeoutSeconds": str(seconds)}
        query |= {"watch": "true", "allowWatchBookmarks": "true"}
        address = kind.path(namespace)
        answer = self._send("GET", address, query=query, stream=True, timeout=(TIMEOUT[0], seconds + 30.0))
        self._refuse("GET", kind, answer)
        return Watch(self, kind, answer)

    def log(self, namespace: str, pod: str, container: str = "", **query: str) -> Generator[bytes, None, None]:
        """Yield what a container printed, in pieces. Leave the loop when that is enough.

        *query* is such as ``tailLines="20"``. A container that has not started is an InvalidSpecError.
        """
        if container:
            query["container"] = container
        answer = self._asked("GET", PODS, PODS.path(namespace, pod, "log"), query=query, stream=True)
        try:
            yield from answer.stream(1 << 16)
        except self._transport_errors as error:
            raise self.unreachable(error) from error
        finally:
            answer.close()

    def unreachable(self, error: Exception) -> PlatformUnavailableError:
        """Return what to raise when a connection could not be made or broke."""
        return PlatformUnavailableError(
            f"The Kubernetes API at {self._address} did not answer ({type(error).__name__}: {redact(str(error))}). "
            f"Check that it runs and that connection {self.conn_id!r} leads to it."
        )

    def _json(self, method: str, kind: Kind, path: str, **request: Any) -> Json:
        found: Json = json.loads(self._asked(method, kind, path, **request).data)
        return found

    def _asked(self, method: str, kind: Kind, path: str, **request: Any) -> Any:
        """Return a successful answer; ask again when the server is away, busy or fails on its side."""
        for attempt in range(1, ATTEMPTS + 1):
            headers = None
            try:
                answer = self._send(method, path, **request)
                headers = answer.headers
                self._refuse(method, kind, answer)
            except PlatformUnavailableError as error:
                if attempt == ATTEMPTS or not getattr(error, "passing", True):
                    raise
            else:
                return answer
            time.sleep(pause_after(attempt, headers, longest=LONGEST_PAUSE))
        raise AssertionError("the last attempt returns or raises")

    def _send(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        stream: bool = False,
        timeout: tuple[float, float] = TIMEOUT,
    ) -> Any:
        headers = {"Accept": "application/json, */*", "Content-Type": content_type, "User-Agent": "airflow-mlops"}
        self._client.update_params_for_auth(headers, [], ["BearerToken"])
        fields = {key: value for key, value in (query or {}).items() if value}
        sent: Json = {"fields": fields} if method == "GET" else {"body": json.dumps(body)}
        sent |= {"headers": headers, "preload_content": not stream, "retries": False}
        patience = importlib.import_module("urllib3").Timeout(connect=timeout[0], read=timeout[1])
        request = self._client.rest_client.pool_manager.request
        host = self._client.configuration.host
        try:
            return request(method, host + path, timeout=patience, **sent)
        except self._transport_errors as error:
            raise self.unreachable(error) from error

    def _refuse(self, method: str, kind: Kind, answer: Any) -> None:
        """Raise what an answer other than success means."""
        if 200 <= answer.status < 300:
            return
        where = f"Kubernetes at {self._address}, {method} {kind.plural}"
        raise refusal(where, answer.status, answer.data, is_secret=kind == SECRETS)

    @property
    def _address(self) -> str:
        return str(urlsplit(self._client.configuration.host).netloc.rpartition("@")[2])

    @property
    def _transport_errors(self) -> tuple[type[Exception], ...]:
        return (importlib.import_module("urllib3.exceptions").HTTPError, OSError)

    @cached_property
    def _client(self) -> Any:
        return api_client(self.conn_id, self._extras)


class Watch:
    """An open watch: iterate over its events (``type`` and ``object``), and close it from any thread."""

    def __init__(self, api: KubernetesApi, kind: Kind, answer: Any) -> None:
        self._api, self._kind, self._answer = api, kind, answer

    def __iter__(self) -> Iterator[Json]:
        rest = b""
        try:
            for piece in self._answer.stream(None):
                *lines, rest = (rest + piece).split(b"\n")
                yield from (self._event(line) for line in lines if line)
        except self._api._transport_errors as error:
            raise self._api.unreachable(error) from error
        finally:
            self._answer.close()

    def _event(self, line: bytes) -> Json:
        event: Json = json.loads(line)
        if event.get("type") == "ERROR":
            told = event.get("object") or {}
            raise refusal(f"Kubernetes, watch {self._kind.plural}", int(told.get("code") or 500), json.dumps(told))
        return event

    def close(self) -> None:
        """End it. The thread that reads it finds the end of the stream."""
        try:
            self._answer.shutdown()
        except (ValueError, RuntimeError, OSError):
            self._answer.close()  # it was over already
