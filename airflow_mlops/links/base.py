"""What all our links share: the address is kept as an XCom as soon as a task knows it, where the UI looks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperatorLink
from airflow.sdk.execution_time.xcom import XCom

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context
    from airflow.sdk.types import TaskInstanceKey


class KeptLink(BaseOperatorLink):
    """A link whose address the task keeps itself under ``key``."""

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
