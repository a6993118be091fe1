"""A strict Kubernetes API server for tests, on this machine only, for the official client over TLS.

It proves that a client's requests are well formed, what they cost, and how the client bears what goes wrong. It does
not prove that a given cluster agrees. Built on the schema in the client's own generated models (36), with
strict field validation always on: unknown fields are 400, missing or wrong ones 422.

Served: Jobs, Pods and their logs, Events, Secrets, headless Services, Namespaces and custom kinds with a CRD's
schema; create, get, list (selectors, pages, versions), watch (bookmarks, 410), merge patch, update, delete with
propagation and grace. A Job's pods run their containers' commands as processes of this machine: first the init
containers, one after the other. Claims, empty folders and termination messages are private files, whose paths replace
those in variables (``mounts``).

Not modelled, and refused with 501 where a request asks for it: several containers, restart policies other than Never,
work queues, ``successPolicy``, ``backoffLimitPerIndex``, ``managedBy``, JSON patch, server-side apply, lists in
strategic merge patches, previous logs, volumes other than claims and empty folders, Services with an address. A
ConfigMap is never found. Not modelled, and silently absent: images (any name works unless a test took it away,
nothing is pulled; a command must be given), probes (accepted, without effect), CPU and memory limits, names of
Services in DNS, service accounts, access rights, quotas but on counts, admission, finalizers on Namespaces, managed
fields, event aggregation, the watch cache's delays, more than one node, the doubling of the pause between failures of
a Job, deleting collections (405), warnings in headers. Custom kinds without a controller: the
test writes their status. ``trainer`` has those of Kubeflow Trainer.
"""

from __future__ import annotations

from airflow_mlops.testing.kubernetes.fake import KubernetesFake, kubernetes_fake
from airflow_mlops.testing.kubernetes.faults import Faults
from airflow_mlops.testing.kubernetes.kinds import JOBS, PODS, Kind, custom_kind
from airflow_mlops.testing.wire.calls import Call, Calls

__all__ = ["kubernetes_fake", "KubernetesFake", "Faults", "Call", "Calls", "Kind", "JOBS", "PODS", "custom_kind"]
