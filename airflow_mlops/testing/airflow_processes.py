"""Airflow's worker and triggerer as processes of their own, so that a test can kill them as a machine does.

They are forked off one small server that has Airflow imported and no threads: a process costs a fraction of a second.
What they know besides their arguments is in the Execution API, which the caller keeps.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from airflow_mlops.core.identity import TaskIdentity

PRELOADED = (
    "airflow.sdk.execution_time.supervisor",
    "airflow.sdk.execution_time.task_runner",
    "airflow.sdk.serde",
    "airflow.triggers.base",
    "kubernetes.client",
    "airflow_mlops.testing.airflow_processes",
    "airflow_mlops.testing.task_runner",
    "airflow_mlops.operators.training",
)
"""Modules that the server imports once for all processes; one that is not installed is left out."""

LIMIT = 120.0

_forks = multiprocessing.get_context("forkserver")
_children = threading.Lock()  # multiprocessing's book of children is not made for several threads


@dataclass(frozen=True)
class Turn:
    """What one worker process does: one turn of one task.

    :param operator: the operator's class, in a module that can be imported
    :param arguments: its arguments, as a DAG file gives them
    :param who: which task it is
    :param address: where its Execution API is
    """

    operator: type
    arguments: Mapping[str, Any]
    who: TaskIdentity
    address: str
    try_number: int = 1


@dataclass(frozen=True)
class Machine:
    """Where a process runs.

    :param environment: variables besides those of this process
    :param log: file that takes what it prints and logs
    """

    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)


def run_worker(turn: Turn, machine: Machine) -> int:
    """Run a worker to its end and return its exit code: 0, or minus the signal that killed it.

    :raises TimeoutError: it was killed because it ran longer than two minutes
    """
    return _run(machine, _work, turn)


def run_triggerer(deferred: dict[str, Any], machine: Machine, event: Path) -> int:
    """Run a triggerer until the first event of the trigger of *deferred* is in the file *event*, as JSON."""
    return _run(machine, _trigger, deferred, event)


def _run(machine: Machine, target: Callable[..., None], *arguments: Any) -> int:
    with _children:
        _forks.set_forkserver_preload(list(PRELOADED))
        process = _forks.Process(target=_enter, args=(machine, target, arguments), daemon=True)
        process.start()
    is_over = bool(wait([process.sentinel], LIMIT))
    if not is_over:
        process.kill()
    with _children:
        process.join()
    if not is_over:
        raise TimeoutError(f"The process ran longer than {LIMIT:g} s: {machine.log}.")
    return int(process.exitcode or 0)


def _enter(machine: Machine, target: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """Begin in the new process."""
    with machine.log.open("ab") as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
    os.environ.update(machine.environment)
    target(*arguments)


def _work(turn: Turn) -> None:
    from airflow_mlops.testing.task_runner import run_turn

    run = run_turn(turn.operator(**turn.arguments), turn.who, turn.address, try_number=turn.try_number)
    sys.stdout.write(f"{run.log}\nThis turn ended as {run.state!r}: {run.error!r}\n")


def _trigger(deferred: dict[str, Any], event: Path) -> None:
    from airflow_mlops.testing.task_runner import run_trigger, trigger_of

    payload = run_trigger(trigger_of(deferred))
    part = event.with_suffix(".part")
    part.write_text(json.dumps(payload))
    part.replace(event)
