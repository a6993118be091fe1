"""What every request passes: the address, the query, the count, the faults, and then the service."""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_mlops.testing.vertex.api import Api
from airflow_mlops.testing.vertex.faults import Faults
from airflow_mlops.testing.vertex.problems import Json, Problem, bad
from airflow_mlops.testing.vertex.services import Services
from airflow_mlops.testing.wire.calls import Call, Calls
from airflow_mlops.testing.wire.listener import Answer

KINDS = "customJobs|pipelineJobs|hyperparameterTuningJobs"
JOBS = rf"/v1/projects/(?P<project>[^/]+)/locations/(?P<region>[^/]+)/(?P<collection>{KINDS})"
ROUTES = {
    "create": ("POST", re.compile(JOBS), ("pipelineJobId",)),
    "list": ("GET", re.compile(JOBS), ("filter", "pageSize", "pageToken", "readMask", "orderBy")),
    "get": ("GET", re.compile(JOBS + r"/(?P<job_id>[^/:]+)"), ()),
    "cancel": ("POST", re.compile(JOBS + r"/(?P<job_id>[^/:]+):cancel"), ()),
    "token": ("GET", re.compile(r"/computeMetadata/v1/instance/service-accounts/default/token"), ()),
    "access": ("GET", re.compile(r"/v1/(?P<name>projects/[^/]+/secrets/[^/]+/versions/[^/:]+):access"), ()),
    "object": ("GET", re.compile(r"/storage/v1/b/(?P<bucket>[^/]+)/o/(?P<path>[^/]+)"), ("alt",)),
    "entries": ("POST", re.compile(r"/v2/entries:list"), ()),
}
ALT = {"$alt": "json;enum-encoding=int"}
"""What the generated client adds to each request."""


@dataclass
class Front:
    """All parts of the server that answer a request; it outlives a crash of the listener."""

    api: Api
    services: Services
    faults: Faults
    calls: Calls

    def answer(self, method: str, target: str, headers: Mapping[str, str], raw: bytes) -> Answer:
        """Answer one request.

        :raises ConnectionLost: the connection must be closed instead
        """
        verb, code = "", 0
        parts: Json = {}
        try:
            verb, parts, query = _read(method, target)
            act = self._act(verb, parts, query, dict(headers), raw)
            body = self.faults.answer(verb, parts.get("collection", verb), act)
            code = 200
            return Answer(code, body)
        except Problem as problem:
            code = problem.code
            retry = {} if problem.retry_after is None else {"Retry-After": str(problem.retry_after)}
            return Answer(code, json.dumps(problem.body()).encode(), headers=retry)
        finally:
            resource, project = parts.get("collection", verb), parts.get("project", "")
            self.calls.add(Call(verb, resource, project, parts.get("job_id", ""), code))

    def _act(self, verb: str, parts: Json, query: Json, headers: Json, raw: bytes) -> Callable[[], bytes]:
        services = self.services
        acts: dict[str, Callable[[], Any]] = {
            "create": lambda: self.api.create(**parts, query=query, body=_json(raw)),
            "list": lambda: self.api.store.page(**parts, query=query),
            "get": lambda: self.api.store.shown(self.api.store.get(**parts)),
            "cancel": lambda: self.api.cancel(**parts),
            "token": lambda: services.token(headers),
            "access": lambda: services.secret(parts["name"], headers),
            "object": lambda: services.object(parts["bucket"], parts["path"], query),
            "entries": lambda: services.entries(raw),
        }

        def act() -> bytes:
            found = acts[verb]()
            return found if isinstance(found, bytes) else json.dumps(found).encode()

        return act


def _read(method: str, target: str) -> tuple[str, Json, Json]:
    path, _, text = target.partition("?")
    query = dict(urllib.parse.parse_qsl(text, keep_blank_values=True))
    query = {key: value for key, value in query.items() if ALT.get(key) != value}
    for verb, (wanted, pattern, known) in ROUTES.items():
        found = pattern.fullmatch(path)
        if method == wanted and found:
            if unknown := [key for key in query if key not in known]:
                raise bad(f"Invalid JSON payload received. Unknown name {unknown[0]}: Cannot bind query parameter.")
            return verb, found.groupdict(), query
    raise Problem("UNIMPLEMENTED", f"The Vertex AI fake does not model {method} {path}.")


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw or b"null")
    except ValueError as error:
        raise bad(f"Invalid JSON payload received. {error}") from None
