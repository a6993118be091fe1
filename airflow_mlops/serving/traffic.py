"""What one endpoint remembers of its requests: recent answers in memory for figures, all rows in parquet for drift."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from airflow_mlops.serving.capture import Capture
from airflow_mlops.serving.parquet import KEPT_PER_REQUEST, Captured, recent_answers
from airflow_mlops.serving.served import Outcome
from airflow_mlops.serving.window import MAX_AGE_SECONDS, Answer, Recent, even_sample, figures


class TrafficLog:
    """The requests of one endpoint; files go below *folder*."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._recent = Recent()
        self.capture = Capture(folder)

    async def recall(self) -> None:
        """Remember what was captured in the last two hours, before a restart."""
        self._recent = Recent(await asyncio.to_thread(recent_answers, self._folder, time.time() - MAX_AGE_SECONDS))

    def add(self, revision: str, request_id: str, arrived: float, outcome: Outcome) -> None:
        """Remember one answered request; *arrived* in seconds since 1970."""
        latency = max(0.0, time.time() - arrived) * 1000
        scores: list[float] = []
        if outcome.table is not None:
            item = Captured(
                request_id,
                arrived,
                revision,
                outcome.status,
                latency,
                outcome.table,
                outcome.types,
                outcome.predictions,
            )
            self.capture.buffer.add(item)
            scores = even_sample([score for score in item.scores if score is not None], KEPT_PER_REQUEST)
        self._recent.add(Answer(arrived, revision, outcome.status, latency, tuple(scores)))

    async def metrics(self, since: float, until: float) -> dict[str, dict[str, Any]]:
        """Return what each revision did in the window, as the API describes it."""
        return await asyncio.to_thread(figures, self._recent.between(since, until))
