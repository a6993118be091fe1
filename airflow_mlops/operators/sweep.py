"""Search for the best parameters with ordinary training tasks: propose, train, propose again, conclude.

Thin: what to try and what was best is decided in ``training``. There is no study on a server: each proposal reads what
the tasks before it returned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException

from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.core.identity import stable_name
from airflow_mlops.hooks.mlflow import MLflowHook
from airflow_mlops.links.training import TrackingRunLink
from airflow_mlops.operators.base import MlopsOperator, airflow_tags, task_identity
from airflow_mlops.training.parent_run import ParentRun, close_run, conclude_run
from airflow_mlops.training.sampling import propose
from airflow_mlops.training.search import Direction, Sampler, Search, Trial, read_trial, require_enough, summarise

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["CloseSweepOperator", "ConcludeSweepOperator", "OpenSweepOperator", "ProposeTrialsOperator"]

SUMMARY = "sweep"
"""Key of the XCom with the summary."""

Round = tuple[str, str]
"""Ids of the task that proposed and of the mapped task that trained."""


class OpenSweepOperator(MlopsOperator):
    """Start the tracking run of a sweep, or find it, and return its id: one for each DAG run.

    Give it to the trials as ``parent_run_id``. A :class:`CloseSweepOperator` as its teardown ends it in any case.

    :param experiment: name of the MLflow experiment, the same as the trials'
    :param described_by: logged to the run as parameters, mappings as ``name.key``; MLflow keeps the first values also
        when the task is cleared
    """

    template_fields: Sequence[str] = ("experiment", "described_by", "mlflow_conn_id")
    operator_extra_links = (TrackingRunLink(),)

    def __init__(
        self,
        *,
        experiment: str,
        described_by: Mapping[str, Any] | None = None,
        mlflow_conn_id: str = MLflowHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.experiment, self.described_by, self.mlflow_conn_id = experiment, described_by, mlflow_conn_id

    def execute(self, context: Context) -> str:
        """Find or start the run."""
        name = stable_name(task_identity(context), prefix="sweep")
        with MLflowHook(self.mlflow_conn_id).get_client() as client:
            run_id = ParentRun(client, self.experiment).open(name, self.described_by or {}, airflow_tags(context))
            experiment_id = client.run(run_id)["info"]["experiment_id"]
            TrackingRunLink.keep(context, f"{client.address}/#/experiments/{experiment_id}/runs/{run_id}")
        return run_id


class ProposeTrialsOperator(MlopsOperator):
    """Return the parameter sets of the next round, for ``TrainModelOperator.partial(...).expand(parameters=...)``.

    It learns from the trials of all rounds before it, which must be over: give it ``trigger_rule="all_done"``. The same
    trials and seed always propose the same, so a retry changes nothing.

    :param space: parameter -> ``{"low", "high"}`` with ``"log": true``, ``"step"`` or ``"type": "int"``, or
        ``{"choices": [...]}``
    :param metric: metric that every trial reports
    :param n_trials: how many to propose
    :param direction: ``maximize`` or ``minimize``
    :param sampler: ``tpe``, ``random`` or ``grid``
    :param initial: parameter sets to try before any other, for example those in use
    :param fixed: parameters that are the same in every trial
    :param previous: of each round before this one, the ids of its proposing and its training task
    :param max_failed: largest share of the trials so far that may have failed
    :raises InvalidSpecError: the search is not possible as it is described
    :raises JobFailedError: too many trials failed, or all
    """

    template_fields: Sequence[str] = (
        "space", "metric", "n_trials", "direction", "sampler", "seed", "initial", "fixed", "max_failed",
    )  # fmt: skip
    template_fields_renderers = {"space": "json", "initial": "json", "fixed": "json"}  # noqa: RUF012

    def __init__(
        self,
        *,
        space: Mapping[str, Any],
        metric: str,
        n_trials: int | str = 4,
        direction: str = Direction.MAXIMIZE,
        sampler: str = Sampler.TPE,
        seed: int | str = 0,
        initial: Sequence[Mapping[str, Any]] | None = None,
        fixed: Mapping[str, Any] | None = None,
        previous: Sequence[Round] = (),
        max_failed: float | str = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.space, self.metric, self.n_trials = space, metric, n_trials
        self.direction, self.sampler, self.seed = direction, sampler, seed
        self.initial, self.fixed, self.previous, self.max_failed = initial, fixed, previous, max_failed

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Look at the trials so far and ask for more."""
        fixed = self.fixed or {}
        search = Search.of(
            self.space,
            self.metric,
            direction=self.direction,
            sampler=self.sampler,
            seed=int(self.seed),
            initial=self.initial or (),
        )
        if both := sorted(set(fixed) & set(search.space)):
            raise InvalidSpecError(f"{both} is searched for and fixed at the same time. Remove it from one.")
        trials = [trial for trial, _ in read_trials(context, self.previous, self.metric)]
        require_enough(trials, float(self.max_failed))
        found = propose(search, trials, int(self.n_trials))
        self.log.info("After %d trials these are next: %s", len(trials), found)
        return [{**fixed, **parameters} for parameters in found]


class ConcludeSweepOperator(MlopsOperator):
    """Return the training result of the best trial as a dict, as its ``TrainModelOperator`` did.

    So what follows a training task follows this one. The XCom ``sweep`` has the summary
    (:class:`~airflow_mlops.training.search.SweepSummary`): best trial, counts, and every trial with its parameters and
    value or why it failed. Give it ``trigger_rule="all_done"``.

    :param rounds: of each round, the ids of its proposing and its training task
    :param run_id: tracking run of the sweep, which is ended well with the best trial on it; empty for none
    :param max_failed: largest share of all trials that may have failed
    :raises JobFailedError: too many trials failed, or all
    """

    template_fields: Sequence[str] = ("metric", "direction", "max_failed", "run_id", "mlflow_conn_id")
    operator_extra_links = (TrackingRunLink(),)

    def __init__(
        self,
        *,
        rounds: Sequence[Round],
        metric: str,
        direction: str = Direction.MAXIMIZE,
        max_failed: float | str = 0.5,
        run_id: str | None = None,
        mlflow_conn_id: str = MLflowHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.rounds, self.metric, self.direction, self.max_failed = rounds, metric, direction, max_failed
        self.run_id, self.mlflow_conn_id = run_id, mlflow_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Find the best trial and write it down."""
        direction = Direction.of(self.direction)
        found = read_trials(context, self.rounds, self.metric)
        trials = [trial for trial, _ in found]
        require_enough(trials, float(self.max_failed))
        summary = summarise(self.metric, direction, trials, self.run_id or "")
        if self.run_id:
            with MLflowHook(self.mlflow_conn_id).get_client() as client:
                conclude_run(client, self.run_id, summary)
        context["ti"].xcom_push(key=SUMMARY, value=summary.to_dict())
        best = summary.best
        self.log.info(
            "Best of %d: trial %d, %s %s, %s", len(trials), best.number, self.metric, best.value, best.parameters
        )
        return dict(next(result for trial, result in found if trial is best))


class CloseSweepOperator(MlopsOperator):
    """End the tracking run of a sweep as failed, if nothing has ended it. The teardown of :class:`OpenSweepOperator`.

    :param run_id: what :class:`OpenSweepOperator` returned
    """

    template_fields: Sequence[str] = ("run_id", "mlflow_conn_id")

    def __init__(self, *, run_id: str, mlflow_conn_id: str = MLflowHook.default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.run_id, self.mlflow_conn_id = run_id, mlflow_conn_id

    def execute(self, context: Context) -> None:  # noqa: ARG002
        """End it if it is open."""
        with MLflowHook(self.mlflow_conn_id).get_client() as client:
            if close_run(client, self.run_id):
                self.log.warning("The sweep did not come to its end: its tracking run %s is failed now.", self.run_id)


def read_trials(context: Context, rounds: Sequence[Round], metric: str) -> list[tuple[Trial, Any]]:
    """Return every trial of *rounds* with the training result its task returned, ``None`` where there is none.

    Each map index is asked for by itself: Airflow's list of a mapped task's results leaves out what failed, without
    telling where.

    :raises AirflowSkipException: a round was skipped
    :raises InvalidSpecError: a round has no proposals, so it cannot have been tried
    """
    found: list[tuple[Trial, Any]] = []
    for number, (proposing, training) in enumerate(rounds, start=1):
        proposed = context["ti"].xcom_pull(task_ids=proposing, map_indexes=-1)
        if proposed is None:
            _no_proposals(context, proposing)
        indexes = range(len(proposed))
        results = context["ti"].xcom_pull(task_ids=training, map_indexes=list(indexes)) if proposed else []
        for index, parameters, result in zip(indexes, proposed, results, strict=True):
            trial = read_trial(len(found), (number, index), parameters, result, metric=metric)
            found.append((trial, result))
    return found


def _no_proposals(context: Context, proposing: str) -> None:
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    ti = context["ti"]
    states = RuntimeTaskInstance.get_task_states(dag_id=ti.dag_id, task_ids=[proposing], run_ids=[ti.run_id])
    state = states.get(ti.run_id, {}).get(proposing)
    if state == "skipped":
        raise AirflowSkipException(f"Task {proposing!r} was skipped, so there is nothing to search for.")
    raise InvalidSpecError(f"Task {proposing!r} is {state!r} and proposed nothing. Look at its log, then clear it.")
