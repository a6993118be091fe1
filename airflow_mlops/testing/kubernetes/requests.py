"""From a path and a method to what is asked for, named as Kubernetes names it in its rules and metrics."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_mlops.testing.kubernetes.kinds import Kind
from airflow_mlops.testing.kubernetes.problems import Json, Problem

VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete", "GET": "get"}
SUBRESOURCES = {"log", "status"}


@dataclass(frozen=True)
class Request:
    """One request for a resource; *verb* is get, list, watch, create, update, patch, delete or deletecollection."""

    verb: str
    kind: Kind
    namespace: str
    name: str
    subresource: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    content_type: str = ""

    @property
    def resource(self) -> str:
        """Return such as ``jobs`` or ``pods/log``."""
        return f"{self.kind.plural}/{self.subresource}" if self.subresource else self.kind.plural

    def flag(self, name: str) -> bool:
        """Say whether a query parameter is true."""
        return self.query.get(name, "").lower() in {"true", "1"}

    def number(self, name: str) -> int | None:
        """Return a query parameter that is a number, or None if it is absent.

        :raises Problem: 400, it is no number
        """
        text = self.query.get(name)
        if text is None or text == "":
            return None
        try:
            return int(text)
        except ValueError:
            raise Problem("BadRequest", f"invalid value for {name}: {text!r} is not an integer") from None


def read_request(method: str, target: str, headers: Mapping[str, str], raw: bytes, kinds: Iterable[Kind]) -> Request:
    """Return what is asked for.

    :raises Problem: 404 no such path, 405 not on this resource, 400 the body is no JSON
    """
    path, _, query = target.partition("?")
    kind, namespace, rest = _resource([urllib.parse.unquote(part) for part in path.strip("/").split("/")], kinds)
    parameters = {key: values[-1] for key, values in urllib.parse.parse_qs(query, keep_blank_values=True).items()}
    name, subresource = [*rest, "", ""][:2]
    if len(rest) > 2 or (subresource and subresource not in SUBRESOURCES):
        raise Problem("NotFound", "the server could not find the requested resource")
    verb = _verb(method, name, parameters)
    if verb not in kind.verbs:
        raise Problem("MethodNotAllowed", f"the server does not allow this method on the requested resource: {verb}")
    content_type = headers.get("Content-Type") or ""
    return Request(verb, kind, namespace, name, subresource, parameters, _json(raw), content_type)


def _verb(method: str, name: str, parameters: Mapping[str, str]) -> str:
    verb = VERBS.get(method, method.lower())
    if verb == "get" and not name:
        return "watch" if parameters.get("watch", "").lower() in {"true", "1"} else "list"
    return "deletecollection" if verb == "delete" and not name else verb


def _resource(parts: list[str], kinds: Iterable[Kind]) -> tuple[Kind, str, list[str]]:
    group, version, rest = "", "", parts[3:]
    if parts[:2] == ["api", "v1"]:
        version, rest = "v1", parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        group, version = parts[1], parts[2]
    namespace = ""
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    for kind in kinds:
        if rest and (kind.group, kind.version, kind.plural) == (group, version, rest[0]):
            return kind, namespace, rest[1:]
    raise Problem("NotFound", "the server could not find the requested resource")


def _json(raw: bytes) -> Json | list[Json] | None:
    try:
        return json.loads(raw) if raw else None
    except ValueError as error:
        raise Problem("BadRequest", f"the object provided is unrecognized (must be of type JSON): {error}") from None
