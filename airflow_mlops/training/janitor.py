"""Which active jobs nobody waits for any more: pure decisions.

A job is stopped only on proof: it is our own deployment's, and Airflow said twice, with a pause in between, that its
task is over or does not exist. What Airflow was not asked about, or answered with a word we do not know, goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from airflow_mlops.core.identity import TaskIdentity
from airflow_mlops.core.records import Record
from airflow_mlops.training.contract import JobHandle

ENDED = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
"""States of a task instance that has ended. A cleared one has none (``None``) and will find its job itself.

https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/tasks.html#task-instances
"""

ABSENT = "absent"
"""Our word for a task instance that Airflow does not know: its run, its DAG or its map index was deleted."""

RUNS = 50
"""Runs in one question: it travels in an address, which servers take up to some 64 KiB."""


@dataclass(frozen=True)
class OwnedJob(Record):
    """An active job, the place it was found at, and the task that started it.

    :param place: backend and connection it was found with
    :param task_state: the state of that task in Airflow
    """

    place: str
    job: JobHandle
    owner: TaskIdentity
    task_state: str | None = None


@dataclass(frozen=True)
class Question:
    """What Airflow is asked at once: the states of one task in some runs, all map indexes of it."""

    dag_id: str
    task_id: str
    run_ids: tuple[str, ...]


Answer = Mapping[str, Mapping[str, Any]]
"""Run -> key -> state. The key is the task id, or ``<task id>_<map index>`` for an instance of a mapped task."""


def questions(owners: Iterable[TaskIdentity]) -> Iterator[Question]:
    """Yield the questions that cover *owners*.

    Each is about one task: in an answer about several, ``train_1`` could be a task or an instance of ``train``.
    """
    runs: dict[tuple[str, str], set[str]] = {}
    for owner in owners:
        runs.setdefault((owner.dag_id, owner.task_id), set()).add(owner.run_id)
    for (dag_id, task_id), found in sorted(runs.items()):
        run_ids = sorted(found)
        for first in range(0, len(run_ids), RUNS):
            yield Question(dag_id, task_id, tuple(run_ids[first : first + RUNS]))


def task_states(owners: Iterable[TaskIdentity], ask: Callable[[Question], Answer]) -> dict[TaskIdentity, str | None]:
    """Return the state of each owner's task instance, ``ABSENT`` for one that Airflow does not know."""
    owners = set(owners)
    found = {
        (question.dag_id, question.task_id, run_id, key): state
        for question in questions(owners)
        for run_id, states in ask(question).items()
        for key, state in states.items()
    }
    return {owner: found.get((owner.dag_id, owner.task_id, owner.run_id, _key(owner)), ABSENT) for owner in owners}


def _key(owner: TaskIdentity) -> str:
    return owner.task_id if owner.map_index < 0 else f"{owner.task_id}_{owner.map_index}"


def orphans(
    active: Iterable[OwnedJob],
    states: Mapping[TaskIdentity, str | None],
    *,
    deployment_id: str,
    suspected: Collection[tuple[str, str]] | None = None,
) -> tuple[OwnedJob, ...]:
    """Return the jobs that nobody waits for, each with the state of its task.

    :param active: jobs that are not over
    :param states: what Airflow says about their tasks; a task that is not in it was not asked about
    :param deployment_id: our own; jobs of another Airflow are never in the answer
    :param suspected: place and id of the jobs that were orphans in the look before; ``None`` for the first look
    """
    return tuple(
        replace(found, task_state=states[found.owner])
        for found in active
        if found.owner.deployment_id == deployment_id
        and states.get(found.owner) in ENDED | {ABSENT}
        and (suspected is None or (found.place, found.job.job_id) in suspected)
    )
