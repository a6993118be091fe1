"""Stop the jobs whose task is gone: the last line of defence against paying for what nobody waits for.

It never stops a job of a task that waits, of another Airflow, or of a task Airflow was not heard about.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_mlops.core.errors import InvalidSpecError, NotFoundError, PlatformUnavailableError
from airflow_mlops.hooks.pipelines import PipelineHook
from airflow_mlops.hooks.training import TrainingHook
from airflow_mlops.hooks.tuning import TuningHook
from airflow_mlops.operators.base import MlopsOperator, deployment_id
from airflow_mlops.training.janitor import Answer, OwnedJob, Question
from airflow_mlops.training.patrol import Backend, Look, Patrol, Stopped

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["CancelOrphanedJobsOperator"]

TRAINING, PIPELINE, TUNING = "training", "pipeline", "tuning"
LOCAL = "local"
FIELDS = {"kind", "backend", "conn_id"}

FIRST_LOOK = "mlops_first_look"
"""Where the suspects are kept meanwhile. Not in the deferral: ``airflow dags test`` forgets what is there."""


class CancelOrphanedJobsOperator(MlopsOperator):
    """Cancel jobs of this Airflow whose task has ended or does not exist, and verify that they are over.

    It looks; if there is a suspect it waits *patience* seconds without a worker, looks again, and cancels what is an
    orphan both times. Returns ``{"checked", "active", "cancelled", "would_cancel", "still_active", "unreachable"}``:
    how many jobs are listed and how many of our own are active; lists of jobs, each with ``place``, ``job``, ``owner``,
    ``task_state`` and, if it is still active, ``why``; place -> reason. It is an XCom, too, when the task fails.

    :param backends: where to look: ``{"backend": name, "conn_id": connection}`` each; with ``"kind": "pipeline"`` for
        pipeline runs, with ``"kind": "tuning"`` for searches of tuning services
    :param patience: seconds for which a job must have been an orphan, at least 5
    :param report_only: report in ``would_cancel`` and cancel nothing
    :param stop_limit: seconds that a cancelled job has to end
    :param poll_interval: seconds between two looks at jobs that are being cancelled
    :raises PlatformUnavailableError: a place could not be looked at, or a job was not over in time
    :raises InvalidSpecError: *backends* is not what it should be, or this Airflow has no ``deployment_id``, which only
        the local backend can do without
    """

    template_fields: Sequence[str] = ("backends", "patience", "report_only", "stop_limit", "poll_interval")

    def __init__(
        self,
        *,
        backends: Sequence[Mapping[str, Any]],
        patience: float | str = 900.0,
        report_only: bool = False,
        stop_limit: float | str = 120.0,
        poll_interval: float | str = 5.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.backends, self.patience, self.report_only = backends, patience, report_only
        self.stop_limit, self.poll_interval = stop_limit, poll_interval

    def execute(self, context: Context) -> dict[str, Any]:
        """Look for suspects. Without one there is nothing to wait for."""
        look = self._patrol().look()
        for found in look.orphans:
            self.log.warning("Suspect: %s", describe(found))
        if look.orphans:
            self._wait(context, look)
        return self._report(context, look)

    def look_again(self, context: Context, event: Any) -> dict[str, Any]:
        """Stop the suspects that are still orphans."""
        first: Any = context["task_state_store"].get(FIRST_LOOK)
        self.log.info("Looking again at %d suspects: it is %s.", len(first["suspects"]), event)
        patrol = self._patrol()
        look = patrol.look({(place, job_id) for place, job_id in first["suspects"]})
        look = replace(look, unreachable={**first["unreachable"], **look.unreachable})
        if self.report_only or not look.orphans:
            return self._report(context, look)
        stopped = patrol.stop(look.orphans, limit=float(self.stop_limit), interval=float(self.poll_interval))
        return self._report(context, look, stopped)

    def _wait(self, context: Context, look: Look) -> NoReturn:
        suspects: list[Any] = [[found.place, found.job.job_id] for found in look.orphans]
        context["task_state_store"].set(FIRST_LOOK, {"suspects": suspects, "unreachable": dict(look.unreachable)})
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=float(self.patience))), method_name="look_again")

    def _patrol(self) -> Patrol:
        found, who = places(self.backends), deployment_id()
        if not who and any(place.partition(":")[0] != LOCAL for place in found):
            raise InvalidSpecError(
                "This Airflow has no name, so its jobs cannot be told from those of another one on the same platform. "
                "Set [mlops] deployment_id (AIRFLOW__MLOPS__DEPLOYMENT_ID) to a name of its own for each Airflow."
            )
        return Patrol(found, ask_airflow, who)

    def _report(self, context: Context, look: Look, stopped: Stopped | None = None) -> dict[str, Any]:
        """Return the report, or fail with it when not everything was looked at."""
        over = stopped.cancelled if stopped else ()
        left = stopped.still_active if stopped else ()
        report = {
            "checked": look.checked,
            "active": look.active,
            "cancelled": [found.to_dict() for found in over],
            "would_cancel": [found.to_dict() for found in look.orphans] if self.report_only else [],
            "still_active": [{**found.to_dict(), "why": why} for found, why in left],
            "unreachable": dict(look.unreachable),
        }
        for found in over:
            self.log.info("Cancelled: %s", describe(found))
        faults = [f"{describe(found)} is still active: {why}" for found, why in left]
        faults += [f"{place} could not be looked at: {why}" for place, why in look.unreachable.items()]
        if faults:
            context["ti"].xcom_push(key="return_value", value=report)
            raise PlatformUnavailableError("The round is not complete: " + "; ".join(faults))
        return report


def describe(found: OwnedJob) -> str:
    """Return the job and its task in words."""
    owner = found.owner
    index = "" if owner.map_index < 0 else f"[{owner.map_index}]"
    return (
        f"job {found.job.job_id!r} at {found.place}, whose task {owner.dag_id}.{owner.task_id}{index} "
        f"of run {owner.run_id!r} is {found.task_state}"
    )


def places(backends: Any) -> dict[str, Callable[[], Backend]]:
    """Return place -> how to get its backend. A place is called ``<backend>:<connection>``.

    :raises InvalidSpecError: an entry is not what :class:`CancelOrphanedJobsOperator` takes
    """
    found: dict[str, Callable[[], Backend]] = {}
    for entry in [backends] if isinstance(backends, (str, Mapping)) else backends:
        if not isinstance(entry, Mapping) or not set(entry) <= FIELDS or not entry.get("backend"):
            raise InvalidSpecError(
                f"backends holds {entry!r}. Give {{'backend': name, 'conn_id': connection or None}} for each place."
            )
        kind, name, conn_id = entry.get("kind", TRAINING), str(entry["backend"]), entry.get("conn_id") or None
        if kind not in (TRAINING, PIPELINE, TUNING):
            raise InvalidSpecError(f"backends holds {entry!r}: 'kind' is {TRAINING!r}, {PIPELINE!r} or {TUNING!r}.")
        place = ":".join(filter(None, (kind if kind != TRAINING else "", name, conn_id)))
        found[place] = partial(connect, kind, name, conn_id)
    return found


def connect(kind: str, backend: str, conn_id: str | None) -> Backend:
    """Return a backend.

    :raises NotFoundError: Airflow has no such connection
    """
    try:
        if kind == PIPELINE:
            return PipelineHook(backend, conn_id).get_backend()
        return (TuningHook if kind == TUNING else TrainingHook)(backend, conn_id).get_backend()
    except AirflowNotFoundException as error:
        raise NotFoundError(f"There is no connection {conn_id!r}. Add it under Admin > Connections.") from error


def ask_airflow(question: Question) -> Answer:
    """Ask Airflow's Execution API. It fails when there is no answer: silence must not read as "absent"."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    return RuntimeTaskInstance.get_task_states(
        dag_id=question.dag_id, task_ids=[question.task_id], run_ids=list(question.run_ids)
    )
