"""One PipelineJob at work: a CustomJob for each task, one after the other, and what is told about them."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from airflow_mlops.testing.kfp.plan import Step, command_line, inputs_of
from airflow_mlops.testing.vertex.custom_run import (
    CANCELLED,
    CANCELLING,
    FAILED,
    PENDING,
    RUNNING,
    SUCCEEDED,
    CustomRun,
    Surroundings,
)
from airflow_mlops.testing.vertex.problems import Json
from airflow_mlops.testing.vertex.schema import message_class
from airflow_mlops.testing.vertex.store import Entry, Store

TASK_RUNNING, TASK_SUCCEEDED, TASK_CANCELLED, TASK_FAILED = 2, 3, 6, 7


class PipelineRun:
    """Runs *steps* in a thread of its own."""

    def __init__(self, store: Store, entry: Entry, steps: list[Step], given: Json, around: Surroundings) -> None:
        self._store, self._entry, self._steps, self._given, self._around = store, entry, steps, given, around
        self._ordered = threading.Event()
        self._current: CustomRun | None = None
        self._thread = threading.Thread(target=self._go, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._set(PENDING)
        self._thread.start()

    def cancel(self) -> None:
        """Order the end: of the task that runs, and of all that would follow."""
        with self._store.lock:
            if self._entry.message.state < SUCCEEDED:
                self._set(CANCELLING)
            self._ordered.set()
            if self._current is not None:
                self._current.cancel()

    def stop(self) -> None:
        """End it now and wait for that."""
        self._around.stop_seconds = 0
        self.cancel()
        self._thread.join(10)

    def _go(self) -> None:
        made: dict[str, Json] = {}
        failed = ""
        if not self._ordered.wait(self._around.pending_seconds):
            self._set(RUNNING)
        for step in self._steps:
            if self._ordered.is_set() or not self._work(step, made):
                failed = step.name
                break
        cancelled = self._ordered.is_set() and bool(failed or not self._steps)

        def end(job: Any) -> None:
            job.state = CANCELLED if cancelled else FAILED if failed else SUCCEEDED
            if cancelled:
                job.error.code, job.error.message = 1, "The pipeline job was cancelled."
            elif failed:
                told = f"The DAG failed because some tasks failed. The failed tasks are: [{failed}]."
                job.error.code, job.error.message = 9, told
            job.end_time.GetCurrentTime()

        self._store.change(self._entry, end)

    def _work(self, step: Step, made: dict[str, Json]) -> bool:
        """Run one task; say whether it succeeded."""
        folder = self._around.folder / "tasks" / self._entry.job_id / step.name
        folder.mkdir(parents=True)
        with self._store.lock:
            entry = self._custom_job(step, made, folder)
            entry.run = self._current = CustomRun(self._store, entry, self._around)
            self._begin(step, entry)
            self._current.start()
            if self._ordered.is_set():
                self._current.cancel()
        job = self._current.wait()
        state = {SUCCEEDED: TASK_SUCCEEDED, CANCELLED: TASK_CANCELLED}.get(job.state, TASK_FAILED)

        def end(run: Any) -> None:
            task = run.job_detail.task_details[-1]
            task.state = state
            task.end_time.GetCurrentTime()
            if state == TASK_FAILED:
                task.error.CopyFrom(job.error)

        self._store.change(self._entry, end)
        made[step.name] = {name: _value(folder / name) for name in step.outputs}
        return bool(state == TASK_SUCCEEDED)

    def _custom_job(self, step: Step, made: dict[str, Json], folder: Path) -> Entry:
        job = message_class("CustomJob").pb()()
        job.display_name = f"{self._entry.job_id}-{step.name}"
        pool = job.job_spec.worker_pool_specs.add(replica_count=1)
        pool.machine_spec.machine_type = "e2-standard-4"
        pool.container_spec.image_uri = step.container["image"]
        pool.container_spec.command.extend(command_line(step, inputs_of(step, self._given, made), str(folder)))
        for one in step.container.get("env", []):
            pool.container_spec.env.add(name=one["name"], value=one["value"])
        job.job_spec.scheduling.disable_retries = True
        return self._store.add(self._entry.project, self._entry.region, "customJobs", job)

    def _begin(self, step: Step, entry: Entry) -> None:
        def begin(run: Any) -> None:
            details = run.job_detail.task_details
            task = details.add(task_id=len(details) + 1, task_name=step.name, state=TASK_RUNNING)
            task.start_time.GetCurrentTime()
            task.executor_detail.container_detail.main_job = entry.message.name

        self._store.change(self._entry, begin)

    def _set(self, state: int) -> None:
        def change(job: Any) -> None:
            if job.state != CANCELLING:
                job.state = state
            if state == RUNNING:
                job.start_time.GetCurrentTime()

        self._store.change(self._entry, change)


def _value(path: Path) -> object:
    """Return an output parameter: JSON where it is some, else text. A missing one is empty."""
    found = path.read_text() if path.exists() else ""
    try:
        return json.loads(found)
    except ValueError:
        return found
