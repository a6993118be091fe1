"""What every request passes: the token, the path, the count, the faults, and then the verb."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from airflow_mlops.testing.kubernetes.api import Api
from airflow_mlops.testing.kubernetes.faults import Faults
from airflow_mlops.testing.kubernetes.kinds import Kind
from airflow_mlops.testing.kubernetes.kubelet import Kubelet
from airflow_mlops.testing.kubernetes.listing import Listing
from airflow_mlops.testing.kubernetes.logs import pod_log
from airflow_mlops.testing.kubernetes.problems import Json, Problem
from airflow_mlops.testing.kubernetes.requests import Request, read_request
from airflow_mlops.testing.kubernetes.store import Store
from airflow_mlops.testing.wire.calls import Call, Calls
from airflow_mlops.testing.wire.listener import Answer, ConnectionLost

VERSION = {"major": "1", "minor": "37", "gitVersion": "v1.37.0-fake", "gitCommit": "", "gitTreeState": "clean"}
VERSION |= {"buildDate": "", "goVersion": "", "compiler": "", "platform": "linux/amd64"}


@dataclass
class Front:
    """All parts of the server that answer a request; it outlives a crash of the listener."""

    token: str
    store: Store
    kubelet: Kubelet
    listing: Listing
    faults: Faults
    calls: Calls
    kinds: list[Kind]

    def answer(self, method: str, target: str, headers: Mapping[str, str], raw: bytes) -> Answer:
        """Answer one request.

        :raises ConnectionLost: the connection must be closed instead
        """
        try:
            if headers.get("Authorization") != f"Bearer {self.token}":
                raise Problem("Unauthorized", "Unauthorized")
            if found := self._discovery(method, target):
                return found
            request = read_request(method, target, headers, raw, self.kinds)
        except Problem as problem:
            return _refusal(problem)
        return self._counted(request)

    def _counted(self, request: Request) -> Answer:
        is_lost = False
        try:
            is_lost = self.faults.before(request)
            answer = self._dispatch(request)
        except Problem as problem:
            answer = _refusal(problem)
        code = 0 if is_lost else answer.code
        self.calls.add(Call(request.verb, request.resource, request.namespace, request.name, code))
        if is_lost:
            raise ConnectionLost
        return answer

    def _dispatch(self, request: Request) -> Answer:
        if request.subresource == "log":
            lines = pod_log(self.store, self.kubelet, self.faults, request)
            return Answer(200, chunks=lines, content_type="text/plain")
        if request.verb == "watch":
            return Answer(200, chunks=self.listing.watch(request))
        if request.verb == "list":
            return _answer(200, self.listing.page(request))
        code, body = Api(self.store).answer(request)
        return _answer(code, body)

    def _discovery(self, method: str, target: str) -> Answer | None:
        path = target.partition("?")[0].strip("/")
        if method != "GET":
            return None
        if path == "version":
            return _answer(200, VERSION)
        group_version = path.removeprefix("api/").removeprefix("apis/")
        kinds = [kind for kind in self.kinds if path in {f"api/{kind.api_version}", f"apis/{kind.api_version}"}]
        found = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version}
        return _answer(200, found | {"resources": [_resource(kind) for kind in kinds]}) if kinds else None


def _resource(kind: Kind) -> Json:
    names = {"name": kind.plural, "singularName": kind.name.lower(), "kind": kind.name}
    return names | {"namespaced": kind.namespaced, "verbs": list(kind.verbs)}


def _answer(code: int, body: Json) -> Answer:
    return Answer(code, json.dumps(body).encode())


def _refusal(problem: Problem) -> Answer:
    retry = {} if problem.retry_after is None else {"Retry-After": str(problem.retry_after)}
    return Answer(problem.code, json.dumps(problem.status()).encode(), headers=retry)
