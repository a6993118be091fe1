"""Task groups the template DAGs are made of.

Every step is an ordinary task with a fixed name. To change one, pass a subclass of its operator in ``operators``; it
gets the same arguments. A group never decides anything itself: the gates inside it do.
"""

from airflow_mlops.groups.pipelines import CanaryRollout, TrainingPipeline, canary_rollout, training_pipeline
from airflow_mlops.groups.sweeps import Sweep, sweep

__all__ = ["CanaryRollout", "Sweep", "TrainingPipeline", "canary_rollout", "sweep", "training_pipeline"]
