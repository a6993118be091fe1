"""Links from a task to its job and its tracking run. The operator keeps their addresses as soon as it knows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperatorLink
from airflow.sdk.execution_time.xcom import XCom

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context
    from airflow.sdk.types import TaskInstanceKey

__all__ = ["TrackingRunLink", "TrainingJobLink"]


class _KeptLink(BaseOperatorLink):
    key: ClassVar[str]

    @property
    def xcom_key(self) -> str:
        """Key under which the address is kept."""
        return self.key

    @classmethod
    def keep(cls, context: Context, url: str) -> None:
        """Keep the address for this task."""
        context["ti"].xcom_push(key=cls.key, value=url)

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002 - Airflow's signature
        """Return the address that was kept, or an empty string."""
        found: Any = XCom.get_value(key=self.key, ti_key=ti_key)
        return str(found or "")


class TrainingJobLink(_KeptLink):
    """The platform's page of the job; for a local job the address of its log."""

    name = "Training job"
    key = "training_job_url"


class TrackingRunLink(_KeptLink):
    """The page of the run in the tracking server."""

    name = "Tracking run"
    key = "tracking_run_url"
