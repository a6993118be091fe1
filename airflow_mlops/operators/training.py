"""Train a model on any platform: one job per task, found again after a crash, stopped when the task is stopped.

Only flat arguments and the way between Airflow and :mod:`airflow_mlops.training` are here.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.connection import ConnectionInfo
from airflow_mlops.core.errors import InvalidSpecError
from airflow_mlops.hooks.training import TrainingHook
from airflow_mlops.links.training import TrackingRunLink, TrainingJobLink
from airflow_mlops.operators.base import airflow_tags
from airflow_mlops.operators.remote_job import RemoteJobOperator
from airflow_mlops.platforms.mlflow import MLflowClient
from airflow_mlops.training.budget import Budget, BudgetMode
from airflow_mlops.training.contract import JobBackend, Resources, TrainingResult, TrainingSpec
from airflow_mlops.training.cost import Basis, Cost, cost_tags, figures
from airflow_mlops.training.driver import MAX_PREEMPTIONS, JobRecord, OnClear, Rules
from airflow_mlops.training.job import TrainingJob
from airflow_mlops.training.launch import ATTEMPT, checkpoint_address, read_inputs
from airflow_mlops.training.parent_run import PARENT_TAG
from airflow_mlops.training.tracking import MLflowTracking, credentials, exported, trust

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["TrainModelOperator"]


class TrainModelOperator(RemoteJobOperator):
    """Run one training job and return its result as a dict (:class:`~airflow_mlops.training.contract.TrainingResult`).

    A retry finds the job of the try before it; clearing the task stops the job and starts a new one. The job sees
    ``MLOPS_JOB_NAME``, ``MLOPS_ATTEMPT``, ``MLOPS_INPUT_<NAME>`` and ``MLOPS_OUTPUT``, a file to which it may write
    ``{"model_uri": ..., "metrics": {...}, "run_id": ...}``; with *experiment* also ``MLFLOW_TRACKING_URI``,
    ``MLFLOW_EXPERIMENT_ID`` and ``MLFLOW_RUN_ID`` of a run that is made for it and closed after it. What it logs there
    and does not report is taken from the run. How it is waited for and stopped (``conn_id``, ``max_runtime``,
    ``deadline_margin``, ``on_clear``, ``deferrable``, ``poll_interval``, ``logging_interval``) is said in
    :class:`~airflow_mlops.operators.remote_job.RemoteJobOperator`.

    :param command: program and fixed arguments; a text is split as a shell would, without running a shell
    :param backend: name of an installed training backend
    :param args: further arguments
    :param image: container image
    :param env: plain environment variables
    :param secret_env: variable -> name of the secret; for the local backend a variable of the worker
    :param inputs: name -> what a task that fetched data returned, a data version, or a path
    :param parameters: passed as ``--name value`` and logged to the tracking run
    :param node_resources: ``cpus``, ``memory_mib``, ``gpus``, ``instance_type`` of each node
    :param nodes: number of machines
    :param spot: cheaper machines that may be taken away; a preempted job starts again from its checkpoint
    :param checkpoint: folder or address below which checkpoints go. The job sees ``MLOPS_CHECKPOINT_DIR``, a place
        below it that is the same for all attempts of this task, and another one after a clear
    :param options: the platform's own further fields
    :param experiment: name of the MLflow experiment; ``None`` for no tracking run
    :param parent_run_id: tracking run that this one hangs below, in the same experiment; empty for none
    :param mlflow_conn_id: connection of the MLflow server. A job that reaches it at another address, or on a platform
        that takes no variable of the worker, is told by ``MLFLOW_TRACKING_URI`` in *env* and by
        ``MLFLOW_TRACKING_TOKEN`` (or ``_USERNAME`` and ``_PASSWORD``) in *secret_env*
    :param code_commit: git commit of the training code, tagged on the run; by default the version of the DAG bundle
    :param max_preemptions: how often a preempted job is started again; after that once more without *spot*
    :param residency: the place this job may not leave; its inputs have theirs besides
    :param price_table: path of a JSON file on the worker, or the same as a mapping; with it the result has ``cost``
        (:class:`~airflow_mlops.training.cost.Cost`), which the tracking run gets as metrics ``mlops.cost.*``
    :param budget: amount for all attempts of the task, in the table's currency
    :param budget_mode: ``hard`` refuses a job that would cost more, ``soft`` warns
    :param expected_runtime: seconds the job is expected to run, for the estimate; by default its ``max_runtime``
    :raises ResidencyError: the connection does not say that the backend is there; nothing was submitted
    :raises BudgetExceededError: it would cost more than a hard budget leaves; nothing was submitted
    :raises JobFailedError: the job failed or was cancelled; with its exit code, last lines and the place of its log
    :raises OutOfMemoryError: its nodes had too little memory; like the one above never tried again
    :raises QuotaExceededError: the account may not use that much now; tried again
    :raises JobInterruptedError: the platform broke it; tried again
    :raises PreemptedError: it was preempted too often; tried again
    :raises JobTimeoutError: it was not over in time and was stopped
    """

    template_fields: Sequence[str] = (
        *("backend", "conn_id", "command", "args", "image", "env", "secret_env", "inputs", "parameters"),
        *(
            "node_resources",
            "nodes",
            "spot",
            "checkpoint",
            "max_runtime",
            "options",
            "experiment",
            "parent_run_id",
            "mlflow_conn_id",
            "code_commit",
        ),
        *("residency", "price_table", "budget", "budget_mode", "expected_runtime"),
    )
    template_fields_renderers = {"env": "json", "inputs": "json", "parameters": "json", "options": "json"}  # noqa: RUF012
    operator_extra_links = (TrainingJobLink(), TrackingRunLink())

    def __init__(
        self,
        *,
        command: Sequence[str] | str,
        backend: str = "local",
        args: Sequence[str] = (),
        image: str = "",
        env: Mapping[str, str] | None = None,
        secret_env: Mapping[str, str] | None = None,
        inputs: Mapping[str, Any] | None = None,
        parameters: Mapping[str, Any] | None = None,
        node_resources: Mapping[str, Any] | None = None,
        nodes: int | str = 1,
        spot: bool | str = False,
        checkpoint: str = "",
        options: Mapping[str, Any] | None = None,
        experiment: str | None = None,
        parent_run_id: str | None = None,
        mlflow_conn_id: str = "mlflow_default",
        code_commit: str = "",
        max_preemptions: int = MAX_PREEMPTIONS,
        residency: str = "",
        price_table: str | Mapping[str, Any] | None = None,
        budget: float | str | None = None,
        budget_mode: str = BudgetMode.HARD,
        expected_runtime: float | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(backend=backend, **kwargs)
        self.command, self.args, self.image = command, args, image
        self.env, self.secret_env, self.inputs = env, secret_env, inputs
        self.parameters, self.node_resources, self.options = parameters, node_resources, options
        self.nodes, self.spot, self.checkpoint = nodes, spot, checkpoint
        self.experiment, self.mlflow_conn_id, self.code_commit = experiment, mlflow_conn_id, code_commit
        self.parent_run_id = parent_run_id
        self.max_preemptions, self.residency = max_preemptions, residency
        self.price_table, self.budget, self.budget_mode = price_table, budget, budget_mode
        self.expected_runtime = expected_runtime

    def connect(self) -> JobBackend[Any, Any]:
        """Return the training backend."""
        return TrainingHook(self.backend, self.conn_id).get_backend()

    def rules(self) -> Rules:
        """Return what the user allows."""
        return Rules(OnClear.of(self.on_clear), self.max_preemptions, truth("spot", self.spot))

    def new_spec(self, record: JobRecord) -> TrainingSpec:
        """Return the spec of an attempt, if it may go there and may cost that much."""
        spec = self._spec(record)
        TrainingHook(self.backend, self.conn_id).require_residency(spec.residencies())
        if budget := self._budget():
            plan = budget.plan(spec, self.backend, record)
            refused = plan.decision is not None and not plan.decision.passed
            self.log.log(logging.WARNING if refused else logging.INFO, "%s", plan)
        return spec

    def _spec(self, record: JobRecord) -> TrainingSpec:
        """Return what is asked for: an attempt after a preemption may go on from the checkpoints on demand."""
        versions, paths = read_inputs(self.inputs or {})
        return TrainingSpec(
            command=words(self.command),
            args=tuple(self.args),
            image=self.image or "",
            env={**paths, ATTEMPT: str(record.attempt), **(self.env or {})},
            secret_env=self.secret_env or {},
            inputs=versions,
            parameters=self.parameters or {},
            resources=Resources.from_dict(self.node_resources or {}),
            nodes=int(self.nodes),
            spot=truth("spot", self.spot) and not record.on_demand,
            checkpoint=checkpoint_address(self.checkpoint or "", record.checkpoint),
            max_runtime=None if self.max_runtime in (None, "") else float(self.max_runtime),
            options=self.options or {},
            residency=self.residency or "",
        )

    def _budget(self) -> Budget | None:
        return Budget.of(self.price_table, self.budget, self.budget_mode, self.expected_runtime)

    def told(self, job: TrainingJob[Any, Any], result: TrainingResult) -> dict[str, Any]:
        """Return the result with what it cost, if there are prices. A table that went bad meanwhile loses no model."""
        record = job.records.load()
        if not self.price_table or record is None:
            return result.to_dict()
        try:
            budget = self._budget()
            cost = budget.cost(result, self._spec(record), record).to_dict() if budget else {}
        except InvalidSpecError as error:
            cost = Cost(None, "", Basis.UNKNOWN, why=str(error)).to_dict()
        if isinstance(job.tracking, MLflowTracking) and record.run_id:
            job.tracking.client.log(record.run_id, metrics=figures(cost), tags=cost_tags(cost))
        return replace(result, cost=cost).to_dict()

    def _mlflow(self) -> ConnectionInfo | None:
        return ConnectionInfo.of(TrainingHook.get_connection(self.mlflow_conn_id)) if self.experiment else None

    def surroundings(self) -> AbstractContextManager[None]:
        """Export what the job needs to reach the tracking server and what must not be in its spec."""
        info = self._mlflow()
        return exported(credentials(info) if info else {})

    def tracking(self, context: Context) -> MLflowTracking | None:
        """Follow each attempt in a run of its own, if there is an experiment."""
        info = self._mlflow()
        if info is None or not self.experiment:
            return None
        bundle = getattr(context["ti"], "bundle_instance", None)
        commit = self.code_commit or str(getattr(bundle, "version", None) or "")
        more = {"mlflow.source.git.commit": commit, PARENT_TAG: self.parent_run_id or ""}
        tags = {**airflow_tags(context), **{name: value for name, value in more.items() if value}}
        secrets = {name: name for name in credentials(info)}
        return MLflowTracking(MLflowClient(info), self.experiment, tags, secrets, trust(info))

    def push_links(self, context: Context, job: TrainingJob[Any, Any], record: JobRecord) -> None:
        """Push the addresses of job and run."""
        TrainingJobLink.keep(context, record.job.console_url if record.job else "")
        if isinstance(job.tracking, MLflowTracking) and record.run_id:
            TrackingRunLink.keep(context, job.tracking.url(record.run_id))


def words(command: Sequence[str] | str) -> tuple[str, ...]:
    """Return a command as its words."""
    return tuple(shlex.split(command)) if isinstance(command, str) else tuple(command)


def truth(name: str, value: bool | str) -> bool:
    """Return a switch that a template may have written as text.

    :raises InvalidSpecError: it is neither true nor false
    """
    words = {"true": True, "false": False, "none": False, "": False}
    if isinstance(value, bool):
        return value
    if str(value).strip().lower() not in words:
        raise InvalidSpecError(f"{name} is {value!r}. It is true or false.")
    return words[str(value).strip().lower()]
