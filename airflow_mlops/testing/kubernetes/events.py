"""Events as the scheduler, the kubelet and the Job controller write them."""

from __future__ import annotations

import secrets

from airflow_mlops.testing.kubernetes.defaults import now, with_defaults
from airflow_mlops.testing.kubernetes.kinds import EVENTS
from airflow_mlops.testing.kubernetes.problems import Json
from airflow_mlops.testing.kubernetes.store import Store


def emit(store: Store, about: Json, source: str, reason: str, message: str, *, is_warning: bool = False) -> None:
    """Add an event about *about*; *source* is the component that writes it, such as ``kubelet``."""
    metadata = about["metadata"]
    reference = {key: metadata[key] for key in ("name", "namespace", "uid", "resourceVersion")}
    event: Json = {
        "metadata": {"name": f"{metadata['name']}.{secrets.token_hex(8)}"},
        "involvedObject": {"kind": about["kind"], "apiVersion": about["apiVersion"], **reference},
        "type": "Warning" if is_warning else "Normal",
        "reason": reason,
        "message": message,
        "source": {"component": source},
        "reportingComponent": source,
        "count": 1,
        "firstTimestamp": now(),
        "lastTimestamp": now(),
    }
    store.create(EVENTS, with_defaults(EVENTS, event, metadata["namespace"]))
