"""Many training tasks that look for the best parameters, and stand where one training task would."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk import TaskGroup

from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.groups.steps import pick_steps
from airflow_mlops.operators.sweep import (
    CloseSweepOperator,
    ConcludeSweepOperator,
    OpenSweepOperator,
    ProposeTrialsOperator,
)
from airflow_mlops.operators.training import TrainModelOperator

SWEEP_STEPS: Mapping[str, Any] = {
    "open": OpenSweepOperator,
    "propose": ProposeTrialsOperator,
    "train": TrainModelOperator,
    "conclude": ConcludeSweepOperator,
    "close": CloseSweepOperator,
}

DONE = "all_done"
SHOWN = "{{ (task.parameters | string)[:250] }}"
"""What the UI shows of a trial instead of its index: its parameters, as many characters as Airflow keeps."""


class Sweep(TaskGroup):
    """The tasks of :func:`sweep`.

    ``output`` is the training result of the best trial, ``summary`` tells about all trials. ``proposals`` and
    ``trainings`` are the tasks of the rounds in order.
    """

    output: Any
    summary: Any
    conclude: Any
    proposals: list[Any]
    trainings: list[Any]

    def ids(self) -> tuple[tuple[str, str], ...]:
        """Return the ids of the proposing and the training task of each round."""
        return tuple((a.task_id, b.task_id) for a, b in zip(self.proposals, self.trainings, strict=True))


def sweep(
    *,
    space: Any,
    metric: Any,
    n_trials: Any = 4,
    rounds: int = 3,
    direction: Any = "maximize",
    sampler: Any = "tpe",
    seed: Any = 0,
    initial: Any = None,
    max_failed: Any = 0.5,
    parameters: Any = None,
    experiment: Any = None,
    mlflow_conn_id: Any = "mlflow_default",
    operators: Mapping[str, Any] | None = None,
    task_id: str = "sweep",
    **training: Any,
) -> Sweep:
    """Search for the best parameters: *rounds* times *n_trials* training jobs, each round learning from those before.

    It takes every argument of :class:`~airflow_mlops.operators.training.TrainModelOperator`, and its ``output`` is what
    that would return, so it can stand wherever a training task stands. With *experiment* the trials' runs hang below
    one run of the sweep, which is ended also when the sweep fails or is stopped.

    :param space: parameter -> ``{"low", "high"}`` with ``"log": true``, ``"step"`` or ``"type": "int"``, or
        ``{"choices": [...]}``
    :param metric: metric that every trial reports
    :param n_trials: jobs of one round; they run at the same time. A round may be smaller only with ``grid``
    :param rounds: how many; a number of the DAG file, because each is tasks of its own
    :param direction: ``maximize`` or ``minimize``
    :param sampler: ``tpe``, ``random`` or ``grid``
    :param initial: parameter sets to try before any other, for example those in use: the best is never worse than they
    :param max_failed: largest share of the trials that may fail; looked at after each round
    :param parameters: parameters that are the same in every trial
    :param operators: step name -> operator class to use instead
    :param task_id: name of the group
    :param training: further arguments of each training task
    """
    if rounds < 1:
        raise InvalidSpecError(f"A sweep has {rounds!r} rounds. It has at least 1.")
    step = pick_steps(SWEEP_STEPS, operators)
    search = {"space": space, "metric": metric, "direction": direction, "sampler": sampler, "seed": seed}
    asked = {**search, "n_trials": n_trials, "initial": initial, "fixed": parameters, "max_failed": max_failed}
    tracked = {"experiment": experiment, "mlflow_conn_id": mlflow_conn_id}
    with (group := Sweep(task_id)):
        opened = step["open"](task_id="open", described_by=search, **tracked) if experiment is not None else None
        run_id = None if opened is None else opened.output
        each = {**training, **tracked, "parent_run_id": run_id, "map_index_template": SHOWN}
        group.proposals, group.trainings = [], []
        for number in range(1, rounds + 1):
            rule = DONE if number > 1 else "all_success"
            propose = step["propose"](task_id=f"propose_{number}", previous=group.ids(), trigger_rule=rule, **asked)
            train = step["train"].partial(task_id=f"train_{number}", **each).expand(parameters=propose.output)
            group.trainings[-1:] >> propose
            group.proposals.append(propose)
            group.trainings.append(train)
        group.conclude = step["conclude"](
            task_id="conclude",
            rounds=group.ids(),
            metric=metric,
            direction=direction,
            max_failed=max_failed,
            # Not as an XComArg: what follows a setup task directly may have no other rule than all_success.
            run_id=None if opened is None else f"{{{{ ti.xcom_pull({opened.task_id!r}) or '' }}}}",
            mlflow_conn_id=mlflow_conn_id,
            trigger_rule=DONE,
        )
        group.trainings >> group.conclude
        group.output, group.summary = group.conclude.output, group.conclude.output["sweep"]
        if opened is not None:
            close = step["close"](task_id="close", run_id=run_id, mlflow_conn_id=mlflow_conn_id)
            group.conclude >> close.as_teardown(setups=opened)
    return group
