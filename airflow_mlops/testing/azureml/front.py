"""What every request passes: whose door it is at, the token for it, the query, the count, the faults, then the verb."""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_mlops.testing.azureml.api import ARM_ROUTES, HISTORY_ROUTES, VERSION, Api, route
from airflow_mlops.testing.azureml.identity import TENANT, Identities
from airflow_mlops.testing.azureml.problems import Json, Problem, bad
from airflow_mlops.testing.azureml.tracking import tracking_verb
from airflow_mlops.testing.wire.calls import Call, Calls
from airflow_mlops.testing.wire.listener import Answer, ConnectionLost

ARM, STUDIO = "https://management.azure.com", "https://ml.azure.com"


@dataclass
class Front:
    """All parts of the service that answer a request; it outlives a crash of the listener."""

    api: Api
    identities: Identities
    calls: Calls

    def answer(self, method: str, target: str, headers: Mapping[str, str], raw: bytes) -> Answer:
        """Answer one request.

        :raises ConnectionLost: the connection must be closed instead
        """
        path, _, text = target.partition("?")
        query = dict(urllib.parse.parse_qsl(text, keep_blank_values=True))
        try:
            found = self._aside(method, path, query, headers, raw)
            return found if found is not None else self._verb(method, path, query, headers, raw)
        except Problem as problem:
            retry = {} if problem.retry_after is None else {"Retry-After": str(problem.retry_after)}
            return Answer(problem.status, json.dumps(problem.body()).encode(), headers=retry)

    def _verb(self, method: str, path: str, query: dict[str, str], headers: Mapping[str, str], raw: bytes) -> Answer:
        verb, code = "", 0
        try:
            verb, names = self._entered(method, path, query, headers)
            is_lost = self.api.faults.before(verb)
            done, body = self.api.act(verb, names, query, _json(raw))
            if is_lost:
                raise ConnectionLost
            code = done
            return _answer(code, body)
        except Problem as problem:
            code = problem.status
            raise
        finally:
            self.calls.add(Call(verb, "", "", "", code))

    def _entered(
        self, method: str, path: str, query: dict[str, str], headers: Mapping[str, str]
    ) -> tuple[str, list[str]]:
        """Return the verb of a request, and take the version out of its query."""
        if (tracked := tracking_verb(method, path, self.api.workspace)) is not None:
            verb, run = tracked
            return verb, [self.identities.require_run(headers, run)]
        is_history = path.startswith("/history/v1.0")
        base = f"/history/v1.0{self.api.workspace}/" if is_history else f"{self.api.workspace}/"
        self.identities.require(headers, STUDIO if is_history else ARM)
        if not path.startswith(base):
            raise Problem(404, "ResourceNotFound", f"The workspace of {path} was not found.")
        if not is_history and query.pop("api-version", "") != VERSION:
            raise bad(f"The api-version must be {VERSION}.")
        verb, names = route(method, path.removeprefix(base), HISTORY_ROUTES if is_history else ARM_ROUTES)
        return verb, [urllib.parse.unquote(name) for name in names]

    def _aside(
        self, method: str, path: str, query: dict[str, str], headers: Mapping[str, str], raw: bytes
    ) -> Answer | None:
        """Answer for who gives tokens, for the vault and for the storage account."""
        if path == f"/{TENANT}/v2.0/.well-known/openid-configuration":
            return _answer(200, self.identities.configuration(f"https://{self.api.address}"))
        if path == f"/{TENANT}/oauth2/v2.0/token":
            return self._token(raw)
        if path in ("/msi/token", "/obo/token"):
            return _answer(200, self.identities.for_job(query, headers, is_user=path.startswith("/obo")))
        if path.startswith("/secrets/"):
            return _answer(200, self.identities.read_secret(path.split("/")[2], headers))
        if path.startswith("/blob/"):
            return self._blob(query, headers)
        return None

    def _token(self, raw: bytes) -> Answer:
        """Answer a service principal; who gives tokens has errors of a form of its own."""
        try:
            self.api.faults.before("Token")
            return _answer(200, self.identities.sign_in(raw))
        except Problem as problem:
            return _answer(problem.status, {"error": problem.code, "error_description": problem.message})

    def _blob(self, query: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
        """Answer for the storage account: a signed address needs no token, and one would be refused."""
        if headers.get("Authorization"):
            raise Problem(400, "InvalidAuthenticationInfo", "A signed address takes no token.")
        content = self.api.blob(query.get("sig", "")).read_bytes()
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("Range") or "bytes=0-")
        start = int(span[1]) if span else 0
        if start >= len(content) and start > 0:
            raise Problem(416, "InvalidRange", "The range specified is invalid for the current size of the resource.")
        end = int(span[2]) + 1 if span and span[2] else len(content)
        return Answer(206, content[start:end], content_type="application/octet-stream")


def _answer(code: int, body: Json) -> Answer:
    return Answer(code, json.dumps(body).encode())


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw) if raw else None
    except ValueError as error:
        raise bad(f"The body is no JSON: {error}.") from None
