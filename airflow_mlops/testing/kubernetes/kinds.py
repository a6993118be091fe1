"""The kinds the fake serves: Job, Pod, Event, Secret, Service, Namespace, and the custom ones a test registers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from airflow_mlops.testing.kubernetes.problems import Json

if TYPE_CHECKING:
    from airflow_mlops.testing.kubernetes.store import Store


class Controller(Protocol):
    """What looks after a custom kind, on the cluster's thread."""

    def step(self) -> None:
        """Bring every object a step further. It is called after each change, and now and then without one."""
        ...


@dataclass(frozen=True)
class Kind:
    """One kind of object and where it is served.

    :param model: class of ``kubernetes.client.models`` that is the schema; empty for a custom kind
    :param schema: ``openAPIV3Schema`` of a custom kind, as in its CRD (``spec.versions[].schema``)
    :param verbs: what a client may do with it
    :param admit: of a custom kind, what its webhooks do with the store, the object before and the one after; it may
        complete the latter and refuse it with a ``Problem``
    :param controller: of a custom kind, makes what looks after its objects; without one the test writes their status
    """

    group: str
    version: str
    plural: str
    name: str
    model: str = ""
    schema: Json = field(default_factory=dict, hash=False, compare=False)
    namespaced: bool = True
    verbs: tuple[str, ...] = ("create", "get", "list", "watch", "patch", "update", "delete")
    admit: Callable[[Store, Json | None, Json], None] | None = field(default=None, hash=False, compare=False)
    controller: Callable[[Store], Controller] | None = field(default=None, hash=False, compare=False)

    @property
    def api_version(self) -> str:
        """Return such as ``batch/v1``, or ``v1`` for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """Return the name that messages use, such as ``jobs.batch``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


JOBS = Kind("batch", "v1", "jobs", "Job", "V1Job")
PODS = Kind("", "v1", "pods", "Pod", "V1Pod")
EVENTS = Kind("", "v1", "events", "Event", "CoreV1Event")
SECRETS = Kind("", "v1", "secrets", "Secret", "V1Secret")
SERVICES = Kind("", "v1", "services", "Service", "V1Service")
NAMESPACES = Kind("", "v1", "namespaces", "Namespace", "V1Namespace", namespaced=False, verbs=("create", "get", "list"))
BUILT_IN = (JOBS, PODS, EVENTS, SECRETS, SERVICES, NAMESPACES)


def custom_kind(group: str, version: str, plural: str, name: str, schema: Json) -> Kind:
    """Return a kind as a CRD registers it.

    :param schema: ``openAPIV3Schema``: ``type``, ``properties``, ``required``, ``items``, ``enum``, ``minimum``,
        ``maximum``, ``pattern``, ``maxLength``, ``additionalProperties``, ``x-kubernetes-preserve-unknown-fields``,
        ``x-kubernetes-int-or-string``, ``x-kubernetes-list-map-keys``, ``maxItems`` and ``minLength`` are understood
    """
    return Kind(group, version, plural, name, schema=schema)
