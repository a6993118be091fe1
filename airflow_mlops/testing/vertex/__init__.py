"""A strict fake of Vertex AI, for Google's own client over REST, with what its jobs need around them.

CustomJobs, HyperparameterTuningJobs and PipelineJobs: create, get, list (label filter, pages, read mask), cancel.
Requests are held against Google's message definitions. Containers really run, as processes of this machine; a variable
below ``/gcs`` gets the private folder that stands for the bucket. Beside them Cloud Storage (reading objects), Cloud
Logging (entries.list), Secret Manager (access) and the metadata server's token.

Not modelled: rights and tokens of who calls the API, images, machine types and quotas, the queue's order, Python
packages, how searches learn (see ``tuning_run``), artifacts and caching of pipelines, reruns of a whole job beyond its
workers, and how long Cloud Logging takes. Which code and words a preempted SPOT job ends with is a guess at what is
documented.
"""

from __future__ import annotations

from airflow_mlops.testing.vertex.fake import BUCKET, PROJECT, REGION, VertexFake, vertex_fake

__all__ = ["BUCKET", "PROJECT", "REGION", "VertexFake", "vertex_fake"]
