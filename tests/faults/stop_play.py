"""Plays the stop matrix: all cells at once on one real Airflow, each event as soon as the cell's job runs.

It notes what happened and judges nothing: that is for the tests.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from stop_platforms import ACTIVE, Job, Platform

from airflow_mlops.testing.airflow_stack import AirflowStack

PATIENCE = 90.0
FINISHED = ("success", "failed", "skipped")

PROGRAM = """#!/bin/sh
# The first job of a cell runs until it is let go; a later one ends at once.
cell=$1
echo $$ > "$cell/jobs/$MLOPS_JOB_NAME"
if [ "$(ls "$cell/jobs" | wc -l)" -eq 1 ]; then
  until [ -e "$cell/go" ]; do sleep 0.2; done
fi
echo '{"metrics": {"kept": 1}}' > "$MLOPS_OUTPUT"
"""


@dataclass(frozen=True)
class Event:
    """One column of the matrix.

    :param strike: what is done to the task; ``None`` when time alone does it
    :param arguments: further arguments of the operator
    :param times: time limits of task and run, in seconds
    :param alone: whether no triggerer lives when it strikes
    :param orphans: whether it leaves the job to the janitor
    """

    name: str
    strike: Callable[[AirflowStack, Cell], None] | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    times: Mapping[str, float] = field(default_factory=dict)
    alone: bool = False
    orphans: bool = False

    @property
    def deferred(self) -> bool:
        """Whether the task waits in the triggerer."""
        return bool(self.arguments.get("deferrable", True))


@dataclass
class Cell:
    """One event on one platform, and what was seen.

    :param before: the cell's jobs when the event struck
    :param task: the task instance as Airflow tells it, newest look
    :param after: the cell's jobs at the end of the play
    :param seconds: from the event until all was over
    """

    event: Event
    platform: Platform
    folder: Path
    run_id: str = ""
    struck_at: float = 0.0
    seconds: float | None = None
    task: dict[str, Any] = field(default_factory=dict)
    before: list[Job] = field(default_factory=list)
    after: list[Job] = field(default_factory=list)

    @property
    def dag_id(self) -> str:
        """Return the cell's DAG."""
        return f"{self.event.name}-{self.platform.name}"

    @property
    def path(self) -> str:
        """Return the run's path in the REST API."""
        return f"dags/{self.dag_id}/dagRuns/{self.run_id}"

    def processes(self) -> list[psutil.Process]:
        """Return the living processes of the cell's jobs."""
        found = []
        for file in (self.folder / "jobs").iterdir():
            try:
                process = psutil.Process(int(file.read_text()))
                if str(self.folder) in process.cmdline():
                    found.append(process)
            except (psutil.NoSuchProcess, ValueError):
                continue
        return found

    def describe(self) -> dict[str, Any]:
        """Return the cell as the DAG file reads it."""
        command = ["sh", str(self.folder.parent / "program.sh"), str(self.folder)]
        arguments = {"command": command, "poll_interval": 1.0, **self.platform.arguments, **self.event.arguments}
        return {"dag_id": self.dag_id, "arguments": arguments, "times": dict(self.event.times)}


def write_cells(home: Path, cells: Iterable[Cell]) -> dict[str, str]:
    """Prepare folders, program and DAG file, and return the environment that the DAG file needs."""
    cells = list(cells)
    (home / "dags").mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("stop_dags.py"), home / "dags")
    for cell in cells:
        (cell.folder / "jobs").mkdir(parents=True)
        (cell.folder.parent / "program.sh").write_text(PROGRAM)
    (home / "cells.json").write_text(json.dumps([cell.describe() for cell in cells]))
    env = {key: value for cell in cells for key, value in cell.platform.env.items()}
    return env | {"STOP_CELLS": str(home / "cells.json"), "AIRFLOW__MLOPS__DEPLOYMENT_ID": "stops"}


def start(stack: AirflowStack, cells: Iterable[Cell]) -> None:
    """Start a run of every cell."""
    for cell in cells:
        cell.run_id = start_run(stack, cell.dag_id)


def start_run(stack: AirflowStack, dag_id: str) -> str:
    """Start a run and return its id."""
    return str(stack.api.call("POST", f"dags/{dag_id}/dagRuns", json={"logical_date": None})["dag_run_id"])


def look(stack: AirflowStack, cells: Iterable[Cell]) -> dict[str, list[Job]]:
    """Note what Airflow says about every cell's task, and return what the platforms say about jobs, by DAG."""
    cells = list(cells)
    found = stack.api.get("dags/~/dagRuns/~/taskInstances", limit=200)["task_instances"]
    tasks = {task["dag_id"]: task for task in found}
    platforms = {cell.platform.name: cell.platform for cell in cells}
    jobs: dict[str, list[Job]] = {cell.dag_id: [] for cell in cells}
    for platform in platforms.values():
        for job in platform.jobs():
            jobs.setdefault(job.owner, []).append(job)
    for cell in cells:
        cell.task = tasks.get(cell.dag_id, {})
    return jobs


def play(stack: AirflowStack, cells: list[Cell], *, until: Callable[[Cell], bool]) -> None:
    """Let every event strike once its cell is ready; return when *until* holds for all, or nothing happens any more.

    A cell that orphans its job is over with its task.
    """
    deadline = time.monotonic() + PATIENCE
    while not all(map(until, cells)) and time.monotonic() < deadline:
        jobs = look(stack, cells)
        for cell in cells:
            if not cell.struck_at and ready(stack, cell, jobs[cell.dag_id]):
                strike(stack, cell, jobs[cell.dag_id])
                deadline = time.monotonic() + PATIENCE
            elif cell.struck_at and cell.seconds is None and _over(cell, jobs[cell.dag_id]):
                cell.seconds = time.monotonic() - cell.struck_at
        time.sleep(1)


def struck(cell: Cell) -> bool:
    """Return whether the event has struck."""
    return cell.struck_at > 0


def over(cell: Cell) -> bool:
    """Return whether all has come to its end."""
    return cell.seconds is not None


def ready(stack: AirflowStack, cell: Cell, jobs: list[Job]) -> bool:
    """Return whether the job runs and the task waits for it, in the triggerer or in a worker."""
    runs = [job.state for job in jobs] == [ACTIVE] and len(cell.processes()) == 1
    if not cell.event.deferred:
        return runs and cell.task.get("state") == "running"
    if cell.event.alone:
        return runs and cell.task.get("state") == "deferred"
    holder = triggerer_of(cell)
    return runs and holder is not None and waits_under(stack, cell, holder)


def strike(stack: AirflowStack, cell: Cell, jobs: list[Job]) -> None:
    """Let the event happen."""
    cell.before, cell.struck_at = jobs, time.monotonic()
    if cell.event.strike:
        cell.event.strike(stack, cell)


def _over(cell: Cell, jobs: list[Job]) -> bool:
    left = not cell.event.orphans and any(job.state == ACTIVE for job in jobs)
    return cell.task.get("state") in FINISHED and not left


def triggerer_of(cell: Cell) -> int | None:
    """Return the job id of the triggerer that the cell's trigger is assigned to."""
    holder = cell.task.get("triggerer_job") if cell.task.get("state") == "deferred" else None
    return int(holder["id"]) if holder else None


def waits_under(stack: AirflowStack, cell: Cell, triggerer: int) -> bool:
    """Return whether the cell's trigger was started in a triggerer: only then it is told of its task's end."""
    return triggerer_of(cell) == triggerer and " starting" in trigger_log(stack, cell, triggerer)


def trigger_log(stack: AirflowStack, cell: Cell, triggerer: int) -> str:
    """Return what the cell's trigger logged in one triggerer."""
    found = (stack.home / "logs" / f"dag_id={cell.dag_id}").rglob(f"*.trigger.{triggerer}.log")
    return "".join(file.read_text() for file in found)


# What is done to a task


def clear_task(stack: AirflowStack, cell: Cell) -> None:
    """Clear it, as a person does in the UI."""
    body = {"dry_run": False, "dag_run_id": cell.run_id, "task_ids": ["train"], "only_failed": False}
    stack.api.call("POST", f"dags/{cell.dag_id}/clearTaskInstances", json=body)


def fail_task(stack: AirflowStack, cell: Cell) -> None:
    """Mark it failed."""
    stack.api.call("PATCH", f"{cell.path}/taskInstances/train", json={"new_state": "failed"})


def fail_run(stack: AirflowStack, cell: Cell) -> None:
    """Mark the whole run failed."""
    stack.api.call("PATCH", cell.path, json={"state": "failed"})


def terminate_worker(stack: AirflowStack, cell: Cell) -> None:
    """Send SIGTERM to the worker, as a machine does that is shut down."""
    _worker(stack, cell).terminate()


def kill_worker(stack: AirflowStack, cell: Cell) -> None:
    """Take the worker away with all its processes."""
    worker = _worker(stack, cell)
    for process in [worker, *worker.children(recursive=True)]:
        os.kill(process.pid, signal.SIGKILL)


def _worker(stack: AirflowStack, cell: Cell) -> psutil.Process:
    """Return the process that supervises the cell's task."""
    workers = (psutil.Process(pid) for pid in stack.parts["scheduler"].pids())
    return next(each for each in workers if cell.task["id"] in " ".join(each.cmdline()))
