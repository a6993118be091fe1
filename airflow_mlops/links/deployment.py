"""The button that leads from a task to the endpoint it changed."""

from __future__ import annotations

from airflow_mlops.links.base import KeptLink

__all__ = ["EndpointLink"]


class EndpointLink(KeptLink):
    """Address of the endpoint."""

    name = "Endpoint"
    key = "endpoint_url"
