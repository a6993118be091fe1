"""From a data version to a champion, and from a champion to all traffic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import TaskGroup

from airflow_mlops.groups.steps import pick_steps
from airflow_mlops.operators.data import DvcMaterialiseOperator
from airflow_mlops.operators.deployment import CanaryRolloutOperator, DeployModelOperator
from airflow_mlops.operators.drift import ProfileDataOperator
from airflow_mlops.operators.registry import (
    EvaluateModelOperator,
    PromoteModelOperator,
    RegisterModelOperator,
    RollbackModelOperator,
)
from airflow_mlops.operators.training import TrainModelOperator
from airflow_mlops.operators.validation import ValidateDataOperator

DATA = "{{ ti.xcom_pull('materialise')['path'] }}"
CODE = "{{ ti.xcom_pull('materialise')['code'] }}"

TRAINING_STEPS: Mapping[str, Any] = {
    "materialise": DvcMaterialiseOperator,
    "validate": ValidateDataOperator,
    "train": TrainModelOperator,
    "register": RegisterModelOperator,
    "profile": ProfileDataOperator,
    "evaluate": EvaluateModelOperator,
    "promote": PromoteModelOperator,
}
ROLLOUT_STEPS: Mapping[str, Any] = {
    "deploy": DeployModelOperator,
    "canary": CanaryRolloutOperator,
    "rollback_model": RollbackModelOperator,
}


FIRST_GATE: Mapping[str, Any] = {"metric": "roc_auc", "floors": {"roc_auc": 0.55}}
"""What a first model must reach: clearly better than tossing a coin."""


@dataclass(frozen=True)
class TrainingPipeline:
    """The tasks of :func:`training_pipeline`. ``promote`` skips what follows it when the gate said no."""

    group: TaskGroup
    model_name: str
    materialise: Any
    validate: Any
    train: Any
    register: Any
    profile: Any
    evaluate: Any
    promote: Any


@dataclass(frozen=True)
class CanaryRollout:
    """The tasks of :func:`canary_rollout`.

    ``rolled_out`` does nothing: what should follow a successful rollout goes behind it. It also keeps a failed run red,
    which would look green if the skipped ``rollback_model`` were the only last task.
    """

    group: TaskGroup
    deploy: Any
    canary: Any
    rollback_model: Any
    rolled_out: Any


def training_pipeline(
    *,
    model_name: str,
    data_path: str,
    suite: str,
    command: Sequence[str],
    target: str,
    rev: str = "",
    train_file: str = "train.parquet",
    holdout_file: str = "holdout.parquet",
    backend: Any = "local",
    training_conn_id: Any = None,
    dvc_conn_id: Any = "dvc_default",
    mlflow_conn_id: Any = "mlflow_default",
    parameters: Any = None,
    training: Mapping[str, Any] | None = None,
    validation: Mapping[str, Any] | None = None,
    gate: Mapping[str, Any] | None = None,
    operators: Mapping[str, Any] | None = None,
    group_id: str = "training",
) -> TrainingPipeline:
    """From a data version to a champion: materialise, validate, train, register, profile, evaluate, promote.

    :param data_path: folder under DVC that holds *train_file* and *holdout_file*
    :param suite: path of the suite's JSON file in the same git repository, read at the same commit as the data
    :param command: program to train with; ``{code}`` in it is the folder of the repository's files at that commit
    :param target: column to predict
    :param rev: data revision; empty for the version that triggered the run, else the newest one
    :param training, validation: further arguments of ``train`` and ``validate``
    :param gate: further arguments of ``evaluate``; :data:`FIRST_GATE` when not given. Without ``floors`` a first model,
        which has nobody to be compared with, is never promoted
    :param operators: step name -> operator class to use instead
    """
    step = pick_steps(TRAINING_STEPS, operators)
    with TaskGroup(group_id, prefix_group_id=False) as group:
        materialise = step["materialise"](
            task_id="materialise", path=data_path, rev=rev, export_code=True, dvc_conn_id=dvc_conn_id
        )
        validate = step["validate"](
            task_id="validate",
            data=materialise.output,
            file=train_file,
            suite=suite,
            dvc_conn_id=dvc_conn_id,
            **(validation or {}),
        )
        train = step["train"](
            task_id="train",
            backend=backend,
            conn_id=training_conn_id,
            command=[part.replace("{code}", CODE) for part in command],
            experiment=model_name,
            parameters=parameters,
            inputs={"train": materialise.output},
            mlflow_conn_id=mlflow_conn_id,
            **(training or {}),
        )
        register = step["register"](
            task_id="register",
            model_name=model_name,
            training=train.output,
            validation=validate.output,
            mlflow_conn_id=mlflow_conn_id,
        )
        profile = step["profile"](
            task_id="profile",
            data=materialise.output,
            file=train_file,
            target=target,
            model=register.output,
            mlflow_conn_id=mlflow_conn_id,
        )
        evaluate = step["evaluate"](
            task_id="evaluate",
            model_name=model_name,
            challenger=register.output,
            holdout=f"{DATA}/{holdout_file}",
            target=target,
            mlflow_conn_id=mlflow_conn_id,
            **(gate or FIRST_GATE),
        )
        promote = step["promote"](
            task_id="promote", model_name=model_name, evaluation=evaluate.output, mlflow_conn_id=mlflow_conn_id
        )
        validate >> train
        materialise >> evaluate
        profile >> promote
    return TrainingPipeline(group, model_name, materialise, validate, train, register, profile, evaluate, promote)


def canary_rollout(
    *,
    endpoint: str,
    trained: TrainingPipeline,
    target: Any = "local",
    conn_id: Any = "gateway_default",
    mlflow_conn_id: Any = "mlflow_default",
    steps: Any = (5, 25, 50, 100),
    bake: Any = 300,
    guards: Mapping[str, Any] | None = None,
    operators: Mapping[str, Any] | None = None,
    group_id: str = "rollout",
) -> CanaryRollout:
    """From a model version to all traffic: deploy without traffic, shift step by step, take it back when a guard fails.

    :param trained: what :func:`training_pipeline` returned; the rollout starts only after its promotion
    :param steps: traffic of the new revision in percent, rising to 100
    :param bake: seconds each step is watched
    :param guards: further arguments of the canary: its thresholds
    :param operators: step name -> operator class to use instead
    """
    step = pick_steps(ROLLOUT_STEPS, operators)
    with TaskGroup(group_id, prefix_group_id=False) as group:
        deploy = step["deploy"](
            task_id="deploy",
            endpoint=endpoint,
            model=trained.register.output,
            target=target,
            conn_id=conn_id,
            mlflow_conn_id=mlflow_conn_id,
            remove_idle=True,
        )
        canary = step["canary"](
            task_id="canary",
            endpoint=endpoint,
            revision=deploy.output,
            steps=steps,
            bake=bake,
            target=target,
            conn_id=conn_id,
            **(guards or {}),
        )
        rollback_model = step["rollback_model"](
            task_id="rollback_model",
            model_name=trained.model_name,
            promoted=trained.promote.output,
            mlflow_conn_id=mlflow_conn_id,
            trigger_rule="one_failed",
        )
        rolled_out = EmptyOperator(task_id="rolled_out")
        trained.promote >> deploy
        canary >> rollback_model
        canary >> rolled_out
    return CanaryRollout(group, deploy, canary, rollback_model, rolled_out)
