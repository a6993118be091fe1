"""What all our operators share: which errors are worth another try, and who a task is.

Nothing else belongs here. An operator holds flat, templated arguments; the work is in the engines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, ExceptionRetryPolicy, RetryAction, RetryRule

from airflow_mlops.core.errors import NEVER_RETRY, RETRY
from airflow_mlops.core.identity import TaskIdentity

if TYPE_CHECKING:
    from airflow.sdk import Context

RETRY_POLICY = ExceptionRetryPolicy(
    rules=[
        RetryRule(list(NEVER_RETRY), RetryAction.FAIL, reason="The same input would fail again."),
        RetryRule(list(RETRY), RetryAction.RETRY, reason="The platform may answer next time."),
    ]
)
"""Never retries what must fail again, retries what a platform may cure; anything else as the task is configured."""


class MlopsOperator(BaseOperator):
    """An operator with :data:`RETRY_POLICY`, unless the task brings its own ``retry_policy``."""

    def __init__(self, **kwargs: Any) -> None:
        if kwargs.get("retry_policy") is None:  # a mapped task brings None when nobody gave it one
            kwargs["retry_policy"] = RETRY_POLICY
        super().__init__(**kwargs)


def deployment_id() -> str:
    """Return the name of this Airflow on shared platforms: option ``[mlops] deployment_id``, empty if it is not set."""
    from airflow.sdk.configuration import conf

    return str(conf.get("mlops", "deployment_id", fallback="")).strip()


def task_identity(context: Context) -> TaskIdentity:
    """Return which task of which Airflow this is, the same on every try."""
    ti = context["ti"]
    map_index = -1 if ti.map_index is None else ti.map_index
    return TaskIdentity(ti.dag_id, ti.run_id, ti.task_id, map_index, deployment_id())


def airflow_tags(context: Context) -> dict[str, str]:
    """Return the tags that lead from a tracking run or model version back to this task."""
    who = task_identity(context)
    return {
        "airflow.dag_id": who.dag_id,
        "airflow.run_id": who.run_id,
        "airflow.task_id": who.task_id,
        "airflow.map_index": str(who.map_index),
    }
