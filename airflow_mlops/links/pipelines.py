"""The button that leads from a task to its pipeline run."""

from __future__ import annotations

from airflow_mlops.links.base import KeptLink

__all__ = ["PipelineRunLink"]


class PipelineRunLink(KeptLink):
    """The platform's page of the run."""

    name = "Pipeline run"
    key = "pipeline_run_url"
