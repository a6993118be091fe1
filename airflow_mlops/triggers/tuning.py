"""Wait for a platform's own parameter search in the triggerer, as for a training job. It only looks."""

from __future__ import annotations

from airflow_mlops.hooks.tuning import TuningHook
from airflow_mlops.triggers.training import TrainingJobTrigger

__all__ = ["TuningJobTrigger"]


class TuningJobTrigger(TrainingJobTrigger):
    """Fires once, when there is something for the worker to do; it takes the arguments of its base."""

    hook_class = TuningHook
