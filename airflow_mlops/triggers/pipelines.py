"""Wait for a pipeline run in the triggerer, as for a training job. It only looks; the worker decides what it means."""

from __future__ import annotations

from airflow_mlops.hooks.pipelines import PipelineHook
from airflow_mlops.triggers.training import TrainingJobTrigger

__all__ = ["PipelineRunTrigger"]


class PipelineRunTrigger(TrainingJobTrigger):
    """Fires once, when there is something for the worker to do; it takes the arguments of its base."""

    hook_class = PipelineHook
