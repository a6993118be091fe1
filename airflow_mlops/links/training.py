"""Links from a task to its job and its tracking run."""

from __future__ import annotations

from airflow_mlops.links.base import KeptLink

__all__ = ["TrackingRunLink", "TrainingJobLink"]


class TrainingJobLink(KeptLink):
    """The platform's page of the job; for a local job the address of its log."""

    name = "Training job"
    key = "training_job_url"


class TrackingRunLink(KeptLink):
    """The page of the run in the tracking server."""

    name = "Tracking run"
    key = "tracking_run_url"
