"""The verbs: what create, get, update, patch and delete do to the store, in the order in which a real server checks.

Shape first (400), then the rules (422), then the state (404, 409). Defaults are added before the rules are checked.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from airflow_mlops.testing.kubernetes.defaults import with_defaults
from airflow_mlops.testing.kubernetes.deletion import Deletion
from airflow_mlops.testing.kubernetes.kinds import NAMESPACES, Kind
from airflow_mlops.testing.kubernetes.patches import patched
from airflow_mlops.testing.kubernetes.problems import Json, Problem, invalid, required
from airflow_mlops.testing.kubernetes.requests import Request
from airflow_mlops.testing.kubernetes.rules import broken_rules, changed_immutables
from airflow_mlops.testing.kubernetes.schema import check_model, check_schema
from airflow_mlops.testing.kubernetes.store import Store

KEPT_BY_SERVER = ("uid", "creationTimestamp", "resourceVersion", "generation", "deletionTimestamp", "managedFields")


class Api:
    """Answers all verbs but list, watch and logs."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._deletion = Deletion(store)

    def answer(self, request: Request) -> tuple[int, Json]:
        """Return the HTTP code and the body.

        :raises Problem: the request is refused
        """
        verbs: dict[str, Callable[[Request], tuple[int, Json]]] = {
            "create": self._create,
            "get": self._get,
            "update": self._update,
            "patch": self._patch,
            "delete": self._delete,
        }
        return verbs[request.verb](request)

    def _get(self, request: Request) -> tuple[int, Json]:
        return 200, self._store.get(request.kind, request.namespace, request.name)

    def _create(self, request: Request) -> tuple[int, Json]:
        kind, item = request.kind, copy.deepcopy(_object(request))
        _check_shape(kind, item)
        self._check_namespace(request, item)
        item = with_defaults(kind, item, request.namespace)
        if not item["metadata"].get("name"):
            raise invalid(kind.name, "", [required("metadata.name: name or generateName is required")])
        _check_rules(kind, item)
        self._admit(kind, None, item)
        self._store.plants.check_quota(kind, item, self._store.all(kind, request.namespace))
        if "dryRun" in request.query:
            return 201, item
        return 201, self._store.create(kind, item)

    def _check_namespace(self, request: Request, item: Json) -> None:
        if not request.kind.namespaced:
            return
        own = (item.get("metadata") or {}).get("namespace", request.namespace)
        if own != request.namespace:
            raise Problem("BadRequest", "the namespace of the provided object does not match the namespace sent")
        self._store.get(NAMESPACES, "", request.namespace)

    def _update(self, request: Request) -> tuple[int, Json]:
        item = _object(request)
        if not request.kind.model and not (item.get("metadata") or {}).get("resourceVersion"):
            told = required("metadata.resourceVersion: must be specified for an update")
            raise invalid(request.kind.name, request.name, [told])
        return self._replace(request, lambda _: copy.deepcopy(item))

    def _patch(self, request: Request) -> tuple[int, Json]:
        is_custom = not request.kind.model
        return self._replace(request, lambda old: patched(old, request.body, request.content_type, is_custom=is_custom))

    def _replace(self, request: Request, make: Callable[[Json], Json]) -> tuple[int, Json]:
        kind = request.kind
        with self._store.changed:
            old = self._store.get(kind, request.namespace, request.name)
            new = make(old)
            _check_shape(kind, new)
            _check_version(kind, old, new)
            new = _merged(old, new, status_only=request.subresource == "status")
            causes = changed_immutables(kind, old, new)
            if causes:
                raise invalid(kind.name, request.name, causes)
            _check_rules(kind, new)
            if request.subresource != "status":
                self._admit(kind, old, new)
            if "dryRun" in request.query:
                return 200, new
            kept = self._store.change(kind, old, lambda item: _become(item, new)) or new
            self._deletion.finish(kind, kept)
            return 200, kept

    def _admit(self, kind: Kind, old: Json | None, new: Json) -> None:
        if kind.admit is not None:
            kind.admit(self._store, old, new)

    def _delete(self, request: Request) -> tuple[int, Json]:
        return self._deletion.answer(request)


def _object(request: Request) -> Json:
    """Return the body as an object of the request's kind.

    :raises Problem: 400, 415
    """
    body: Any = request.body
    if request.content_type.partition(";")[0].strip() not in {"", "application/json"}:
        raise Problem(
            "UnsupportedMediaType", f"the body of the request was in an unknown format: {request.content_type}"
        )
    if not isinstance(body, dict):
        raise Problem("BadRequest", "the object provided is unrecognized: it is no JSON object")
    kind = request.kind
    for key, wanted in (("apiVersion", kind.api_version), ("kind", kind.name)):
        given = body.get(key) or (wanted if kind.model else None)
        if given != wanted:
            told = f"{key} in the data ({given}) does not match the expected {key} ({wanted})"
            raise Problem("BadRequest", told if given else f"Object '{key}' is missing")
    return body


def _check_shape(kind: Kind, item: Json) -> None:
    found = check_model(kind.model, item) if kind.model else check_schema(kind.schema, item)
    if found.errors:
        told = f'{kind.name} in version "{kind.version}" cannot be handled as a {kind.name}: strict decoding error: '
        raise Problem("BadRequest", told + ", ".join(found.errors))
    if found.missing:
        raise invalid(kind.name, (item.get("metadata") or {}).get("name", ""), found.missing)


def _check_rules(kind: Kind, item: Json) -> None:
    causes = broken_rules(kind, item)
    if causes:
        raise invalid(kind.name, item["metadata"]["name"], causes)


def _check_version(kind: Kind, old: Json, new: Json) -> None:
    given = new["metadata"].get("resourceVersion")
    if given and given != old["metadata"]["resourceVersion"]:
        name = old["metadata"]["name"]
        told = "the object has been modified; please apply your changes to the latest version and try again"
        raise Problem("Conflict", f'Operation cannot be fulfilled on {kind.resource} "{name}": {told}')


def _merged(old: Json, new: Json, *, status_only: bool) -> Json:
    """Return what is kept: a status comes only through its subresource, and that changes nothing else."""
    result = copy.deepcopy(old if status_only else new)
    source = new if status_only else old
    if "status" in source:
        result["status"] = copy.deepcopy(source["status"])
    else:
        result.pop("status", None)
    for key in KEPT_BY_SERVER:
        if key in old["metadata"]:
            result["metadata"][key] = old["metadata"][key]
    return result | {"apiVersion": old["apiVersion"], "kind": old["kind"]}


def _become(item: Json, new: Json) -> None:
    item.clear()
    item.update(copy.deepcopy(new))
