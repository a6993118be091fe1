"""A strict Kubeflow Pipelines server (API ``v2beta1``) for tests, on this machine only, over TLS.

It proves that a client's requests are well formed, what they cost, and how the client bears what goes wrong. It does
not prove that a given server agrees. Built on the schema in the official client's generated models (kfp-server-api
2.17, which must be installed), refusing every unknown field, and on what the server's own sources do: it takes a run
id from the client, starts the workflow before it stores the run (so an id that it has runs twice and is answered with
HTTP 500), wraps refusals of a pipeline into HTTP 500, reports a terminated run as CANCELING and in the end FAILED.

Served: runs (create, get, list, terminate, archive, delete), experiments and pipelines with versions (create, get,
list), health; filters, order and pages of lists. The tasks of a run are run as processes of this machine, in the order
of their dependencies, with parameters in and out.

Not modelled, and refused when a run is created: conditions, loops, exit handlers, pipelines in pipelines, importers,
input artifacts, retries. Not modelled, and silently absent: images (any name works, nothing is pulled), caching,
resources, platform specs, service accounts, pipeline roots, access rights beyond the token, recurring runs.
"""

from __future__ import annotations

from airflow_mlops.testing.kfp.fake import KfpFake, kfp_fake
from airflow_mlops.testing.kfp.faults import Faults

__all__ = ["kfp_fake", "KfpFake", "Faults"]
