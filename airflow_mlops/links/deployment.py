"""The button that leads from a task to the endpoint it changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink
from airflow.sdk.execution_time.xcom import XCom

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context
    from airflow.sdk.types import TaskInstanceKey

__all__ = ["EndpointLink"]


class EndpointLink(BaseOperatorLink):
    """Address of the endpoint, kept as an XCom as soon as it is known."""

    name = "Endpoint"
    key = "endpoint_url"

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
