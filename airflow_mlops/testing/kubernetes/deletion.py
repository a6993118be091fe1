"""Deleting: preconditions, finalizers, grace, and what becomes of the pods of a Job.

A Job deleted without a propagation policy leaves its pods running: that is what a real server does for ``batch/v1``
(https://kubernetes.io/docs/concepts/architecture/garbage-collection/), and a client that forgets it must see it here.
"""

from __future__ import annotations

import datetime

from airflow_mlops.testing.kubernetes.defaults import now, stamp
from airflow_mlops.testing.kubernetes.kinds import JOBS, PODS, SECRETS, SERVICES, Kind
from airflow_mlops.testing.kubernetes.problems import Json, Problem, invalid
from airflow_mlops.testing.kubernetes.requests import Request
from airflow_mlops.testing.kubernetes.schema import check_model
from airflow_mlops.testing.kubernetes.store import Store

POLICIES = {"Orphan": "orphan", "Foreground": "foregroundDeletion", "Background": ""}


class Deletion:
    """Answers delete, and removes what was only waiting for its finalizers."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def answer(self, request: Request) -> tuple[int, Json]:
        """Delete one object, or mark it so that its controller does.

        :raises Problem: 400, 404, 409 a precondition does not hold, 422 unknown propagation policy
        """
        options = _options(request)
        kind = request.kind
        with self._store.changed:
            item = self._store.get(kind, request.namespace, request.name)
            _check_preconditions(kind, item, options.get("preconditions") or {})
            policy = options.get("propagationPolicy") or ("Orphan" if kind == JOBS else "Background")
            if "dryRun" not in request.query:
                self._mark(kind, item, policy, options.get("gracePeriodSeconds"))
            left = self._store.find(kind, request.namespace, request.name)
        return 200, left or _gone(kind, item)

    def finish(self, kind: Kind, item: Json) -> None:
        """Remove an object that is being deleted and has no finalizer left; a Pod waits for its process."""
        if kind != PODS and item["metadata"].get("deletionTimestamp") and not item["metadata"].get("finalizers"):
            self._store.remove(kind, item)

    def _mark(self, kind: Kind, item: Json, policy: str, grace: int | None) -> None:
        if kind == PODS:
            mark_pod(self._store, item, grace)
        elif kind == JOBS and policy == "Orphan":
            self._orphan(item)
            self._store.remove(kind, item)
        elif POLICIES[policy] and kind == JOBS:
            self._store.change(kind, item, lambda new: _begin(new["metadata"], 0, POLICIES[policy]))
        elif item["metadata"].get("finalizers"):
            self._store.change(kind, item, lambda new: _begin(new["metadata"], 0))
        else:
            self._store.remove(kind, item)

    def _orphan(self, job: Json) -> None:
        def disown(pod: Json) -> None:
            pod["metadata"].pop("ownerReferences", None)
            pod["metadata"].pop("finalizers", None)

        def take_away(item: Json) -> None:
            item["metadata"].pop("ownerReferences", None)

        for kind, alter in ((PODS, disown), (SECRETS, take_away), (SERVICES, take_away)):
            for item in self._store.owned(kind, job):
                self._store.change(kind, item, alter)


def mark_pod(store: Store, pod: Json, grace: int | None = None) -> None:
    """Ask for the end of a pod: its process gets SIGTERM now and SIGKILL after *grace* seconds."""
    wanted = grace if grace is not None else pod["spec"].get("terminationGracePeriodSeconds", 30)
    store.change(PODS, pod, lambda new: _begin(new["metadata"], wanted))


def _begin(metadata: Json, grace: int, finalizer: str = "") -> None:
    """Mark the object as being deleted; a second deletion may only shorten the grace."""
    shorter = grace < metadata.get("deletionGracePeriodSeconds", grace + 1)
    if shorter:
        end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=grace)
        metadata.update({"deletionTimestamp": stamp(end) if grace else now(), "deletionGracePeriodSeconds": grace})
    if finalizer and finalizer not in metadata.get("finalizers", []):
        metadata["finalizers"] = [*metadata.get("finalizers", []), finalizer]


def _options(request: Request) -> Json:
    body = request.body if isinstance(request.body, dict) else {}
    errors = check_model("V1DeleteOptions", body).errors
    if errors:
        raise Problem("BadRequest", "strict decoding error: " + ", ".join(errors))
    options = dict(body)
    if "propagationPolicy" in request.query:
        options["propagationPolicy"] = request.query["propagationPolicy"]
    if (grace := request.number("gracePeriodSeconds")) is not None:
        options["gracePeriodSeconds"] = grace
    if options.get("propagationPolicy") not in {None, *POLICIES}:
        told = {"reason": "FieldValueNotSupported", "field": "propagationPolicy", "message": "Unsupported value"}
        raise invalid("DeleteOptions", "", [told])
    return options


def _check_preconditions(kind: Kind, item: Json, wanted: Json) -> None:
    for key, value in wanted.items():
        if item["metadata"].get(key) != value:
            told = f"the {key} in the precondition ({value}) does not match the {key} in record"
            raise Problem(
                "Conflict", f'Operation cannot be fulfilled on {kind.resource} "{item["metadata"]["name"]}": {told}'
            )


def _gone(kind: Kind, item: Json) -> Json:
    details = {
        "name": item["metadata"]["name"],
        "group": kind.group,
        "kind": kind.plural,
        "uid": item["metadata"]["uid"],
    }
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
