"""What every request passes: the token, the path, the query, the count, the faults, and then the server."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_mlops.testing.kfp.api import Api, route
from airflow_mlops.testing.kfp.problems import Json, Problem, bad_input
from airflow_mlops.testing.wire.calls import Call, Calls
from airflow_mlops.testing.wire.listener import Answer

QUERIES = ("namespace", "experiment_id", "page_token", "page_size", "sort_by", "filter")


@dataclass
class Front:
    """All parts of the server that answer a request; it outlives a crash of the listener."""

    token: str
    api: Api
    calls: Calls

    def answer(self, method: str, target: str, headers: Mapping[str, str], raw: bytes) -> Answer:
        """Answer one request.

        :raises ConnectionLost: the connection must be closed instead
        """
        rpc, code = "", 0
        try:
            rpc, ids, query, body = self._read(method, target, headers, raw)
            found = self.api.faults.answer(rpc, lambda: (200, self.api.act(rpc, ids, query, body)))
            code = found[0]
            return Answer(code, json.dumps(found[1]).encode())
        except Problem as problem:
            code = problem.code
            retry = {} if problem.retry_after is None else {"Retry-After": str(problem.retry_after)}
            return Answer(code, json.dumps(problem.status()).encode(), headers=retry)
        finally:
            self.calls.add(Call(rpc, "", "", "", code))

    def _read(
        self, method: str, target: str, headers: Mapping[str, str], raw: bytes
    ) -> tuple[str, list[str], Json, Any]:
        if headers.get("Authorization") != f"Bearer {self.token}":
            raise Problem("UNAUTHENTICATED", "Request header error: there is no user identity.")
        path, _, text = target.partition("?")
        rpc, ids = route(method, path)
        query = dict(urllib.parse.parse_qsl(text, keep_blank_values=True))
        if unknown := [key for key in query if key not in QUERIES]:
            raise bad_input(f"unknown parameter {unknown[0]}")
        try:
            body = json.loads(raw) if raw else None
        except ValueError as error:
            raise bad_input(f"the body is no JSON: {error}") from None
        return rpc, [urllib.parse.unquote(one) for one in ids], query, body
