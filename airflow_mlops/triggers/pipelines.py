"""Wait for a pipeline run in the triggerer, as for a training job. It only looks; the worker decides what it means."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import TriggerEvent

from airflow_mlops.hooks.pipelines import PipelineHook
from airflow_mlops.training.contract import JobHandle
from airflow_mlops.training.watch import Place, watch
from airflow_mlops.triggers.training import TrainingJobTrigger

__all__ = ["PipelineRunTrigger"]


class PipelineRunTrigger(TrainingJobTrigger):
    """Fires once, when there is something for the worker to do; it takes the arguments of its base."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait together with all triggers for runs at one place, and apart from those for training jobs."""
        handle = JobHandle.from_dict(self.job)
        place = Place.of(f"pipelines of {self.backend}", self.conn_id, handle)
        found = await watch(handle, place, self._connect, interval=self.poll_interval, deadline=self.deadline)
        yield TriggerEvent({"why": found.word, "detail": found.detail})  # type: ignore[no-untyped-call]

    async def _connect(self) -> Any:
        return await PipelineHook(self.conn_id or PipelineHook.default_conn_name, self.backend).aget_backend()
