"""A strict workspace of Azure Machine Learning for tests, on this machine only, over TLS with an authority of its own.

It proves that requests are well formed, what they cost, and how a client bears what goes wrong. It does not prove that
Azure agrees. Built on the published schema of the API ``2024-10-01`` (``schema.py`` says where), refusing every unknown
field, and on what is known of the service: a second PUT of a job changes tags, description and the like or is refused
as ``JobPropertyImmutable``; lists are newest first; tokens are for one audience each; what a job printed and why it
failed is told by the run history, in addresses that are signed.

Served: jobs (put, get, list, cancel), environments and components (put or publish, get); of the run history details,
children and artifacts; tokens for service principals (to Azure's own client library) and for jobs; a key vault. Jobs
really run their command, a process a node, with the variables of PyTorch, MPI or TensorFlow.

Sweeps run their trials, children with sampled values, a few at a time; Bayesian sampling is at random here, early
termination ends nothing. A job logs to its tracking run over the REST API of MLflow, ``runs/log-batch`` alone, with the
token of its run, which it can exchange for a new one.

Not modelled, and refused: steps of pipelines that are no command component, inputs and outputs between steps. Not
modelled, and silently absent: images (any name works), code snapshots, input mounts, quota, roles, rates, costs,
schedules. A pipeline runs its steps one after the other. That the service puts a job whose low-priority node
was taken away into its queue again is not modelled: it fails.
"""

from __future__ import annotations

from airflow_mlops.testing.azureml.fake import AzureMLFake, azureml_fake
from airflow_mlops.testing.azureml.faults import Faults

__all__ = ["azureml_fake", "AzureMLFake", "Faults"]
